#include "lib/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "lib/base/text.h"
#include "tests/support/temp_dir.h"

namespace muster::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Config, AnEmptyFileIsTheDefaults) {
  const auto config = parse("", "m.toml", "/etc/muster");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->node.heartbeat_interval, Duration::from_s(5));
  EXPECT_EQ(config->node.kill_grace, Duration::from_s(30));
  EXPECT_EQ(config->controller.dedup_window, Duration::from_s(86400));
  EXPECT_EQ(config->controller.state_dir, "/var/lib/muster");
  EXPECT_TRUE(config->job.max_time.is_infinite());
  EXPECT_TRUE(config->slurm.names);
  EXPECT_THAT(config->explicit_keys, IsEmpty());
  ASSERT_EQ(config->queues.size(), 1U);
  EXPECT_EQ(config->queues.begin()->first, "main");
  EXPECT_EQ(config->queues.at("main").state, "up");
}

TEST(Config, ReadsEveryKindOfValue) {
  const auto config = parse(R"(
[cluster]
name = "alpha"
controller = ["tcp://a:7701", "tcp://[::1]:7701"]
key = "keys/own"
[controller]
queue_max_jobs = 5
dedup_window = "2h"
node_timeout = 30
[node]
memory = "4G"
kill_grace = "90s"
topology = "machine.xml+gpu:4"
enforce_memory = true
[job]
default_time = 90
max_time = "7-00"
default_queue = "fast"
[queue.fast]
priority = -5
nodes = "n[1-4]"
default_time = "30m"
[queue."big.one"]
state = "down"
[log]
level = "debug"
)",
                            "m.toml", "/etc/muster");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_THAT(config->cluster.controller, ElementsAre("tcp://a:7701", "tcp://[::1]:7701"));
  EXPECT_EQ(config->cluster.key, "/etc/muster/keys/own");
  EXPECT_EQ(config->controller.queue_max_jobs, 5U);
  EXPECT_EQ(config->controller.dedup_window, Duration::from_s(7200));
  EXPECT_EQ(config->controller.node_timeout, Duration::from_s(30));  // a bare number counts the key's unit
  EXPECT_EQ(config->node.memory_mib, 4096U);
  EXPECT_EQ(config->node.topology, "/etc/muster/machine.xml+gpu:4");
  EXPECT_TRUE(config->node.enforce_memory);
  EXPECT_EQ(config->job.default_time, Duration::from_s(90 * 60));
  EXPECT_EQ(config->queues.at("fast").priority, -5);
  EXPECT_EQ(config->queues.at("big.one").state, "down");
  EXPECT_EQ(config->queues.size(), 2U);
  EXPECT_THAT(config->explicit_keys, testing::Contains("queue.big.one.state"));
}

TEST(Config, ErrorsNamePlaceAndRemedy) {
  const struct {
    const char* text;
    const char* said;
  } cases[] = {
      {"[node]\n\nlisen = \"x\"", "unknown key \"lisen\" in [node] at m.toml:3:1: did you mean \"listen\"?"},
      {"[node]\nzzzzz = 1", "at m.toml:2:1: the keys there are name, listen"},
      {"[noed]\nlisten = \"x\"", "unknown section [noed] at m.toml:1:2: did you mean \"node\"?"},
      {"listen = \"x\"", "key \"listen\" at m.toml:1:1 stands outside of a section"},
      {"node = 1", "[node] at m.toml:1:1 is no section"},
      {"[queue]\npriority = 1", "key \"priority\" in [queue] at m.toml:2:1 belongs to no queue"},
      {"[queue.\"a b\"]\npriority = 1", "bad queue name \"a b\""},
      {"[queue.a]\nprioriti = 1", "unknown key \"prioriti\" in [queue.a] at m.toml:2:1: did you mean \"priority\"?"},
      {"[node]\nkill_grace = \"5x\"", "bad value of kill_grace in [node] at m.toml:2:14: bad time \"5x\""},
      {"[node]\nkill_grace = \"2d\"", "is out of bounds: give 0s .. 1h"},
      {"[node]\nkill_grace = -5", "bad time \"-5"},
      {"[node]\nkill_grace = true", "is no time"},
      {"[node]\nkill_grace = 1.5", "a fraction, date or table cannot stand here"},
      {"[node]\nheartbeat_interval = \"UNLIMITED\"", "is out of bounds"},
      {"[node]\nmemory = \"4Q\"", "bad memory size \"4Q\""},
      {"[node]\nmemory = -1", "is no memory size"},
      {"[node]\noutput_chunk = \"65536\"", "is no whole number: give 1024 .. 16777216 bytes, without quotes"},
      {"[node]\noutput_chunk = 1", "is out of bounds: give 1024 .. 16777216 bytes"},
      {"[slurm]\nnames = \"yes\"", "write true or false, without quotes"},
      {"[cluster]\nname = \"a b\"", "\"a b\" is no name"},
      {"[cluster]\nname = \"\"", "the value is empty"},
      {"[cluster]\nname = 5", "is no text: write it in quotes"},
      {"[cluster]\ncontroller = []", "the list has 0 addresses"},
      {"[cluster]\ncontroller = [1]", "an item that is no text"},
      {"[cluster]\ncontroller = [\"host:1\"]", "\"host:1\" is no address: write tcp://HOST:PORT"},
      {"[controller]\nlisten = \"tcp://*:70000\"", "is no address"},
      {"[controller]\nlisten = \"tcp://:1\"", "is no address"},
      {"[log]\nlevel = \"loud\"", "give one of debug|info|warning|error|off"},
      {"[log]\nfile = \"a\\nb\"", "contains control characters"},
      {"[queue.main]\nnodes = \"n[1\"", "bad node list"},
      {"[job]\ndefault_queue = \"x\"\n[queue.y]\n",
       "names the queue \"x\" in m.toml, which does not exist: add [queue.x]"},
      {"[job]\ndefault_time = \"2h\"\nmax_time = \"1h\"", "default_time in [job] in m.toml is longer than max_time"},
      {"[queue.main]\ndefault_time = \"2h\"\nmax_time = \"1h\"", "default_time in [queue.main] in m.toml is longer"},
      {"[queue.main]\npreempt_mode = \"kill\"", "give one of off|requeue|cancel|checkpoint|suspend"},
      {"[node]\nlisten = ", "bad TOML at m.toml:2:"},
      {"[node]\n[node]\n", "bad TOML at m.toml:2:"},
      {"\xff", "bad TOML at m.toml:1"},
  };
  for (const auto& c : cases) {
    const auto config = parse(c.text, "m.toml", "/");
    ASSERT_FALSE(config.ok()) << c.text;
    EXPECT_THAT(config.error().message, HasSubstr(c.said)) << c.text;
  }
}

TEST(Config, BoundsHostileFiles) {
  EXPECT_FALSE(parse(std::string(kConfigBytesMax + 1, '#'), "m.toml", "/").ok());
  EXPECT_FALSE(parse("[node]\nname = " + std::string(10'000, '[') + std::string(10'000, ']'), "m.toml", "/").ok());
  std::string queues;
  for (std::size_t i = 0; i <= kQueuesMax; ++i) queues += "[queue.q" + std::to_string(i) + "]\n";
  EXPECT_THAT(parse(queues, "m.toml", "/").error().message, HasSubstr("too many queues"));
}

TEST(Config, OverridesWinAndAreChecked) {
  const auto config = parse("[node]\nkill_grace = \"10s\"\n", "m.toml", "/etc",
                            {"node.kill_grace=5s", "queue.fast.priority=7", "job.default_queue=fast",
                             "cluster.controller=tcp://a:1,tcp://b:2", "slurm.names=false", "node.memory=64G"});
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->node.kill_grace, Duration::from_s(5));
  EXPECT_EQ(config->queues.at("fast").priority, 7);
  EXPECT_THAT(config->cluster.controller, ElementsAre("tcp://a:1", "tcp://b:2"));
  EXPECT_FALSE(config->slurm.names);
  const struct {
    const char* assignment;
    const char* said;
  } cases[] = {{"node.kill_grace", "write --set section.key=value"},
               {"kill_grace=5s", "write section.key=value"},
               {"node.kil_grace=5s",
                "unknown key \"kil_grace\" in [node] at --set node.kil_grace=5s: did you mean \"kill_grace\"?"},
               {"nod.kill_grace=5s", "unknown section [nod] at --set nod.kill_grace=5s: did you mean \"node\"?"},
               {"node.kill_grace=x", "bad value of kill_grace in [node] at --set node.kill_grace=x"},
               {"slurm.names=yes", "\"yes\" is no truth value"},
               {"controller.queue_max_jobs=many", "\"many\" is no whole number"},
               {"queue.priority=5", "name the queue as in queue.main.priority"},
               {"=", "write section.key=value"}};
  for (const auto& c : cases) {
    const auto refused = parse("", "m.toml", "/etc", {c.assignment});
    ASSERT_FALSE(refused.ok()) << c.assignment;
    EXPECT_THAT(refused.error().message, HasSubstr(c.said));
  }
}

TEST(Config, ARefusedOverrideChangesNothing) {
  Config config = defaults();
  ASSERT_TRUE(set_override(config, "node.kill_grace=5s").ok());
  EXPECT_EQ(config.node.kill_grace, Duration::from_s(5));
  EXPECT_FALSE(set_override(config, "job.default_queue=none").ok());
  EXPECT_EQ(config.job.default_queue, "main");
}

// Found by fuzzing: the key of a section that needs a name was shown as it was typed, and a long setting was cut within
// the last of its characters.
TEST(Config, RefusedSettingsAreShownWithoutControlCharacters) {
  Config config = defaults();
  const std::string hostile = "queue.ma\xff\x01\n" + std::string(5'000, 'x');
  const Status override = set_override(config, hostile + "=1");
  ASSERT_FALSE(override.ok());
  EXPECT_EQ(printable(override.error().message), override.error().message);
  EXPECT_LT(override.error().message.size(), 1'000U);
  EXPECT_THAT(override.error().message, HasSubstr("name the queue as in queue.main.ma\\xff\\x01"));

  const std::string key = "queue.main.priority";
  const std::string value = std::string(120 - key.size() - 2, 'x') + "\xc3\xa9";  // its end is the 121st byte
  const auto setting = with_settings(config, {{key, value}});
  ASSERT_FALSE(setting.ok());
  EXPECT_THAT(setting.error().message, HasSubstr("is no whole number"));
  EXPECT_EQ(printable(setting.error().message), setting.error().message);
}

TEST(Config, LoadsFilesAndFindsThem) {
  const test::TempDir dir;
  EXPECT_EQ(load(dir / "none").error().code, ErrorCode::kNotFound);
  std::ofstream(dir / "m.toml") << "[cluster]\nkey = \"k\"\n";
  const auto config = load(dir / "m.toml");
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->cluster.key, dir / "k");
  EXPECT_FALSE(load(dir.path()).ok());

  EXPECT_EQ(*find_config_path(dir / "m.toml"), dir / "m.toml");
  EXPECT_THAT(find_config_path(dir / "none").error().message, HasSubstr("correct --config"));
  ASSERT_EQ(::setenv("MUSTER_CONFIG", (dir / "m.toml").c_str(), 1), 0);
  EXPECT_EQ(*find_config_path(""), dir / "m.toml");
  ASSERT_EQ(::setenv("MUSTER_CONFIG", (dir / "none").c_str(), 1), 0);
  EXPECT_THAT(find_config_path("").error().message, HasSubstr("correct MUSTER_CONFIG"));
  ASSERT_EQ(::unsetenv("MUSTER_CONFIG"), 0);
}

TEST(Config, WhatIsShownCanBeWrittenAndReadBack) {
  const auto config =
      parse("[cluster]\nname = \"x\"\n[queue.a]\npriority = 3\n[job]\ndefault_queue = \"a\"\n", "m.toml", "/etc");
  ASSERT_TRUE(config.ok());
  std::vector<std::pair<std::string, std::string>> values;
  for (const ShownKey& key : show(*config)) {
    values.emplace_back(key.name, key.value);
    EXPECT_EQ(key.is_default,
              key.name != "cluster.name" && key.name != "queue.a.priority" && key.name != "job.default_queue");
  }
  const auto text = format_config(values);
  ASSERT_TRUE(text.ok()) << text.error().message;
  const auto again = parse(*text, "n.toml", "/elsewhere");
  ASSERT_TRUE(again.ok()) << again.error().message << "\n" << *text;
  const auto shown = show(*again);
  ASSERT_EQ(shown.size(), values.size());
  for (std::size_t i = 0; i < shown.size(); ++i) {
    EXPECT_EQ(shown[i].name, values[i].first);
    EXPECT_EQ(shown[i].value, values[i].second) << shown[i].name;
  }
}

TEST(Config, WritingQuotesAndChecks) {
  const auto text = format_config({{"node.name", "n1"},
                                   {"cluster.controller", "tcp://a:1,tcp://b:2"},
                                   {"node.topology", "/a \"b\"\\c.xml"},
                                   {"queue.x.y.priority", "4"},
                                   {"node.enforce_memory", "true"}});
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_EQ(*text,
            "[node]\nname = \"n1\"\ntopology = \"/a \\\"b\\\"\\\\c.xml\"\nenforce_memory = true\n\n"
            "[cluster]\ncontroller = [\"tcp://a:1\", \"tcp://b:2\"]\n\n[queue.\"x.y\"]\npriority = 4\n");
  EXPECT_FALSE(format_config({{"node.nam", "n1"}}).ok());
  EXPECT_FALSE(format_config({{"node.name", "n 1"}}).ok());
  EXPECT_FALSE(format_config({{"node.name", "n1"}, {"node.name", "n2"}}).ok());
}

std::string refused(const std::string& text) {
  const auto config = parse(text, "m.toml", "/");
  return config.ok() ? "" : config.error().message;
}

TEST(Config, FeaturesAndTheNetworkAreReadInTheOrderOfTheFile) {
  const auto config = parse(
      "[feature.a100]\nnodes = \"n[1-2]\"\n[topology]\nkind = \"block\"\n[block.z]\nnodes = "
      "\"n[1-4]\"\n[block.a]\nnodes "
      "= \"n[5-8]\"\n[node]\nfeatures = \"big, fast\"\n[queue.main]\nplacement = \"spread\"\n",
      "m.toml", "/");
  ASSERT_TRUE(config.ok()) << config.error().message;
  const auto topology = topology_of(*config);
  ASSERT_TRUE(topology.ok());
  ASSERT_EQ(topology->blocks.size(), 2U);
  EXPECT_EQ(topology->blocks[0].name, "z");
  EXPECT_EQ(topology->blocks[1].nodes.size(), 4U);
  EXPECT_THAT(topology->block_sizes, ElementsAre(4, 8));
  EXPECT_THAT(features_of(*config)->at("a100"), ElementsAre("n1", "n2"));
  EXPECT_THAT(*node_features_of(*config), ElementsAre("big", "fast"));
  EXPECT_EQ(config->queues.at("main").placement, "spread");
}

// `muster local start --set topology.kind=block --set block.a.nodes=n1`: the kind alone would be refused.
TEST(Config, OverridesOfANetworkAreCheckedTogether) {
  Config config = defaults();
  EXPECT_FALSE(set_override(config, "topology.kind=block").ok());
  ASSERT_TRUE(set_overrides(config, {"topology.kind=block", "block.a.nodes=n[1-2]"}).ok());
  EXPECT_EQ(topology_of(config)->blocks.size(), 1U);
  EXPECT_FALSE(set_overrides(config, {"node.kill_grace=5s", "block.b.nodes=n2"}).ok());
  EXPECT_EQ(config.node.kill_grace, Duration::from_s(30));  // a refused one changes nothing
}

TEST(Config, ABadNetworkIsRefusedWithFileAndLine) {
  EXPECT_THAT(refused("[topology]\nkind = \"tree\"\n[switch.a]\nswitches = \"b\"\n[switch.b]\nswitches = \"a\"\n"),
              AllOf(HasSubstr("m.toml:"), HasSubstr("below itself")));
  EXPECT_THAT(refused("[topology]\nkind = \"block\"\n[block.a]\nnodes = \"n1\"\n[block.b]\nnodes = \"n1\"\n"),
              AllOf(HasSubstr("[block.b] at m.toml:5:"), HasSubstr("node n1 is in block a already")));
  EXPECT_THAT(refused("[topology]\nkind = \"tree\"\n[switch.a]\nswitches = \"leaf\"\n"),
              AllOf(HasSubstr("[switch.a] at m.toml:3:"), HasSubstr("unknown switch leaf")));
  EXPECT_THAT(refused("[topology]\nblock_sizes = \"4,x\"\nkind = \"block\"\n[block.a]\nnodes = \"n1\"\n"),
              HasSubstr("block_sizes in [topology]"));
  EXPECT_THAT(refused("[node]\nfeatures = \"a b\"\n"), HasSubstr("features in [node]"));
  EXPECT_THAT(refused("[switch]\nnodes = \"n1\"\n"), HasSubstr("belongs to no switch"));
  EXPECT_THAT(refused("[switch.a]\nnode = \"n1\"\n"), HasSubstr("did you mean \"nodes\"?"));
}

TEST(Config, EveryKeyIsDocumented) {
  const std::string page = reference_markdown();
  for (const KeyInfo& key : keys()) {
    EXPECT_FALSE(key.meaning.empty()) << key.key;
    EXPECT_FALSE(key.used_by.empty()) << key.key;
    EXPECT_THAT(page, HasSubstr("| `" + std::string(key.key) + "` |"));
  }
  EXPECT_THAT(page, HasSubstr("## [queue.NAME]"));
}

TEST(Config, SettingsOfTheRunTimeWinAndAreCheckedAsAFileIs) {
  const auto file = parse("[queue.main]\npriority = 1\nallow_users = [\"ann\", \"bob\"]\n", "m.toml", "/");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_THAT(file->queues.at("main").allow_users, ElementsAre("ann", "bob"));
  const auto changed = with_settings(*file, {{"queue.main.priority", "7"},
                                             {"queue.main.allow_users", ""},
                                             {"queue.new", kQueueMade},
                                             {"queue.new.max_time", "2h"},
                                             {"scheduling.promises", "3"}});
  ASSERT_TRUE(changed.ok()) << changed.error().message;
  EXPECT_EQ(changed->queues.at("main").priority, 7);
  EXPECT_THAT(changed->queues.at("main").allow_users, IsEmpty());
  EXPECT_EQ(changed->queues.at("new").max_time, Duration::from_s(7200));
  EXPECT_EQ(changed->scheduling.promises, 3U);
  const auto refused = [&](const Settings& settings, const char* why) {
    const auto result = with_settings(*file, settings);
    ASSERT_FALSE(result.ok());
    EXPECT_THAT(result.error().message, HasSubstr(why));
  };
  refused({{"queue.mian.priority", "1"}}, "did you mean \"main\"?");
  refused({{"queue.main.priorty", "1"}}, "did you mean \"priority\"?");
  refused({{"queue.main.priority", "x"}}, "is no whole number");
  refused({{"scheduling.promises", "0"}}, "is out of bounds");
  refused({{"controller.node_timeout", "5s"}}, "cannot be changed at run time");
  refused({{"node.kill_grace", "5s"}}, "cannot be changed at run time");
  refused({{"queue.main.default_time", "2h"}, {"queue.main.max_time", "1h"}}, "is longer than max_time");
  refused({{"queue.main.min_nodes", "5"}, {"queue.main.max_nodes", "2"}}, "is above max_nodes");
}

TEST(Config, SettingsThatTheFileHasOutgrownAreLeftOut) {
  const auto file = parse("[queue.main]\nmax_time = \"1h\"\n", "m.toml", "/");
  ASSERT_TRUE(file.ok());
  std::vector<std::string> problems;
  const Config config = with_usable_settings(
      *file, {{"queue.gone.priority", "3"}, {"queue.main.priority", "4"}, {"queue.main.default_time", "2h"}}, problems);
  EXPECT_EQ(config.queues.at("main").priority, 4);
  EXPECT_EQ(config.queues.size(), 1U);
  EXPECT_THAT(problems, ElementsAre(HasSubstr("queue.gone.priority=3: unknown queue"),
                                    HasSubstr("queue.main.default_time=2h: default_time in [queue.main]")));
}

// The page in docs/ is what the table says. MUSTER_UPDATE_DOCS=1 writes it anew.
TEST(Config, TheReferencePageIsUpToDate) {
  const char* source_dir = std::getenv("MUSTER_SOURCE_DIR");
  if (source_dir == nullptr) GTEST_SKIP() << "MUSTER_SOURCE_DIR is not set: run it by ctest";
  const std::string path = std::string(source_dir) + "/docs/configuration.md";
  if (std::getenv("MUSTER_UPDATE_DOCS") != nullptr) std::ofstream(path) << reference_markdown();
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(text, reference_markdown()) << "run it again with MUSTER_UPDATE_DOCS=1 and commit docs/configuration.md";
}

}  // namespace
}  // namespace muster::config

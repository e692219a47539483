#include "lib/wire/codec.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "lib/base/text.h"
#include "lib/wire/muster.pb.h"

namespace muster::wire {
namespace {

// ---------------------------------------------------------------- golden bytes

std::string to_hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (i > 0) text += i % 24 == 0 ? '\n' : ' ';
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string from_hex(const std::string& text) {
  std::istringstream in(text);
  std::string bytes;
  for (int value = 0; in >> std::hex >> value;) bytes += static_cast<char>(value);
  return bytes;
}

// The fenced blocks of docs/spec/journal.md that begin with a line "golden NAME": NAME -> hex.
std::map<std::string, std::string> golden_of_the_specification() {
  const char* root = std::getenv("MUSTER_SOURCE_DIR");
  std::ifstream in(std::string(root != nullptr ? root : ".") + "/docs/spec/journal.md");
  std::map<std::string, std::string> blocks;
  std::string* block = nullptr;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("golden ")) {
      block = &blocks[line.substr(7)];
    } else if (line.starts_with("```")) {
      block = nullptr;
    } else if (block != nullptr) {
      *block += (block->empty() ? "" : "\n") + line;
    }
  }
  return blocks;
}

JobSpec golden_spec() {
  JobSpec spec;
  spec.name = "heat";
  spec.user = "ann";
  spec.uid = 1000;
  spec.gid = 100;
  spec.queue = "main";
  spec.nodes_min = 4;
  spec.ntasks = 8;
  spec.cpus_per_task = 2;
  spec.mem_per_node_mib = 2048;
  spec.gpus_per_node = 1;
  spec.nodelist = {"n1"};
  spec.time_limit = Duration::from_s(3600);
  spec.nice = -5;
  spec.array = ArraySpec{{{0, 9, 1}, {20, 30, 5}}, 4};
  spec.work_dir = "/home/ann";
  spec.stdout_path = "muster-%A_%a.out";
  spec.open_mode = OpenMode::kAppend;
  spec.script_name = "heat.sh";
  spec.args = {"a b", ""};
  spec.script.bytes.fill(0xab);
  spec.export_mode = "ALL";
  return spec;
}

Reservation golden_reservation() {
  Reservation r;
  r.name = "nightly";
  r.start = Instant::from_s(1'700'003'600);
  r.duration = Duration::from_s(7'200);
  r.every = Duration::from_s(86'400);
  r.nodes = {"n1", "n2"};
  r.users = {"ann"};
  r.accounts = {"physics"};
  r.ignore_jobs = true;
  r.created_by = "root";
  r.created = Instant::from_s(1'700'000'000);
  return r;
}

NodeHardware golden_hardware() {
  NodeHardware hardware;
  hardware.packages = 1;
  hardware.numa_nodes = 1;
  hardware.cores = {{0, 0, *IndexSet::parse("0,64")}, {0, 0, *IndexSet::parse("1,65")}};
  hardware.gpus = {{"0000:17:00.0", "", "pretended", 0, 0}};
  hardware.mem_mib = 65536;
  hardware.pretended = true;
  return hardware;
}

Account golden_account() {
  Account account;
  account.name = "physics";
  account.parent = "science";
  account.shares = 40;
  account.all.cpus = 128;
  account.per_user.jobs = 0;
  account.job.time = Duration::from_s(86'400);
  account.allowed_qos = {"long", "normal"};
  account.default_qos = "normal";
  return account;
}

Qos golden_qos() {
  Qos qos;
  qos.name = "urgent";
  qos.priority = -3;
  qos.usage_factor = 200;
  qos.all.cpu_minutes = 100'000;
  qos.per_user.gpus = 8;
  qos.per_account.nodes = 4;
  qos.job.cpus = 64;
  qos.preempts = {"normal"};
  qos.preempt_mode = QosPreempt::kRequeue;
  qos.preempt_grace = Duration::from_s(60);
  return qos;
}

PlacementProof golden_proof() {
  TaskProof script;
  script.cpus = IndexSet::range(0, 4);
  script.memory = IndexSet::range(0, 2);
  script.memory_local = true;
  TaskProof task = script;
  task.step = 0;
  task.rank = 1;
  task.cpus = IndexSet::range(2, 1);
  task.own_group = true;
  task.gpus = IndexSet::range(1, 1);
  task.local_device = false;
  task.as_decided = false;
  return {
      .pretended = false, .tasks = 3, .faults = 1, .fault = "task 1: CPUs 2 in place of 2-3", .list = {script, task}};
}

User golden_user() {
  Association place{.account = "physics", .shares = 2, .all = {}, .job = {}};
  place.all.pending = 10;
  return User{.name = "ann", .default_account = "physics", .associations = {place}, .allowed_qos = {"normal"}};
}

NodeTopology golden_topology() {
  NodeTopology t;
  t.numa = {{.os_nodes = IndexSet::range(0, 1), .mem_mib = 0}};
  t.cores = {{.package = 0, .numa = 0, .l3 = 0, .threads = *IndexSet::parse("0,2")},
             {.package = 0, .numa = 0, .l3 = 1, .threads = *IndexSet::parse("1,3")}};
  for (const char* address : {"0", "1"}) {
    TopologyGpu gpu;
    gpu.pci_address = address;
    gpu.cores = IndexSet::range(0, 2);
    t.gpus.push_back(gpu);
  }
  const GpuLink self{.bandwidth_mbps = 0, .tier = PcieTier::kSameDevice};
  const GpuLink link{.bandwidth_mbps = 50'000, .tier = PcieTier::kSwitch};
  t.links = {self, link, link, self};
  t.nics = {{.pci_address = "0",
             .names = {},
             .fabric = true,
             .speed_mbps = 25'000,
             .cores = IndexSet::range(0, 2),
             .to_gpu = {PcieTier::kSwitch, PcieTier::kHostBridge}}};
  return t;
}

// One value of each kind of fact, in the order of FactBody.
std::vector<std::pair<std::string, FactBody>> golden_facts() {
  const AttemptKey key{JobId(42), Attempt(1)};
  NodeShare share;
  share.node = NodeIndex(1);
  share.cores = *IndexSet::parse("0-3,64");
  share.gpus = *IndexSet::parse("0");
  share.mem_mib = 2048;
  share.tasks = 2;
  Outcome outcome;
  outcome.cause = EndCause::kSignalled;
  outcome.signal = 11;
  outcome.detail = "core dumped";
  outcome.ran = Duration::from_ms(1500);
  return {
      {"TermStarted", TermStarted{Term(3)}},
      {"NodeRegistered", NodeRegistered{NodeIndex(1), "n1", golden_hardware(), "b0a7", "tcp://10.0.0.1:4712", "Yk", 0}},
      {"NodeBecameUnreachable", NodeBecameUnreachable{NodeIndex(1)}},
      {"NodeDrained", NodeDrained{NodeIndex(1), "fan"}},
      {"NodeResumed", NodeResumed{NodeIndex(1)}},
      {"JobSubmitted", JobSubmitted{JobId(42), {0x0123456789abcdef, 2}, std::make_shared<JobSpec>(golden_spec()), -1}},
      {"RequestsForgotten", RequestsForgotten{Instant::from_s(1'700'000'000)}},
      {"JobHeld", JobHeld{JobId(42)}},
      {"JobReleased", JobReleased{JobId(42)}},
      {"AttemptStarted", AttemptStarted{JobId(42), Attempt(1), {share}}},
      {"AttemptConfirmed", AttemptConfirmed{key, NodeIndex(1)}},
      {"AttemptEndedOnNode", AttemptEndedOnNode{key, NodeIndex(1), outcome}},
      {"StopRequested", StopRequested{key, StopCause::kCancelled, 0, "ann"}},
      {"JobEnded", JobEnded{JobId(42), JobState::kFailed, "exit code 7", 7, 0}},
      {"ArrayTasksEnded", ArrayTasksEnded{JobId(100), {3, 10}, JobState::kCancelled, "cancelled by ann"}},
      {"StartPromised", StartPromised{JobId(42), Instant::from_s(1'700'003'600), {{NodeIndex(1), 2, 8, 2, 4'096}}}},
      {"DependencySet", DependencySet{JobId(42),
                                      {{DependencyKind::kAfter, JobId(41), false, Duration::from_s(600), false},
                                       {DependencyKind::kAfterOk, JobId(30), true, {}, true}}}},
      {"SettingChanged", SettingChanged{"queue.main.priority", "7"}},
      {"JobUpdated", JobUpdated{JobId(42), {}, std::make_shared<JobSpec>(golden_spec()), 3}},
      {"AttemptTimeLimitChanged", AttemptTimeLimitChanged{key, Duration::from_s(600)}},
      {"ArrayTasksHeld", ArrayTasksHeld{JobId(100), {{3, 10}, {12, 13}}}},
      {"ArrayTasksReleased", ArrayTasksReleased{JobId(100), {{3, 10}}}},
      {"AccountSet", AccountSet{golden_account()}},
      {"AccountRemoved", AccountRemoved{"physics"}},
      {"UserSet", UserSet{golden_user()}},
      {"UserRemoved", UserRemoved{"ann"}},
      {"QosSet", QosSet{golden_qos()}},
      {"QosRemoved", QosRemoved{"urgent"}},
      {"BillingConfigured", BillingConfigured{{50, 1600, 25, Duration::from_s(86'400)}}},
      {"ReservationMade", ReservationMade{golden_reservation()}},
      {"ReservationRemoved", ReservationRemoved{"nightly"}},
      {"JobRequeued", JobRequeued{JobId(42), JobState::kPreempted, "Preempted: to make room for job 50"}},
      {"AttemptSuspended", AttemptSuspended{key, "ann"}},
      {"AttemptResumed", AttemptResumed{key, "ann"}},
      {"NodeClassAdded", NodeClassAdded{{0x0123456789abcdef, 2}, golden_topology()}},
      {"AttemptStoodStill", AttemptStoodStill{key, NodeIndex(7)}},
      {"AttemptProven", AttemptProven{key, NodeIndex(7), golden_proof()}},
      {"NodeHealthChanged", NodeHealthChanged{NodeIndex(1), {{"disk", "full"}, {"gpu", "gone"}}}},
      {"NodeFaulted", NodeFaulted{NodeIndex(1), NodeFault::kProlog, "exit code 3"}},
      {"NodeDoubted",
       NodeDoubted{NodeIndex(1), {key, Instant::from_s(1'700'000'000), JobId(40), "ann", {}, 5, "exit code 1"}}},
      {"NodeBlamed", NodeBlamed{NodeIndex(1), {key, Instant::from_s(1'700'000'000), "exit code 1"}, {}}},
      {"NodeTrusted", NodeTrusted{NodeIndex(1), true, 2, 3}},
  };
}

TEST(Codec, FactsHaveTheBytesOfTheSpecification) {
  const auto golden = golden_of_the_specification();
  const auto facts = golden_facts();
  ASSERT_EQ(facts.size(), std::variant_size_v<FactBody>) << "a new kind of fact needs golden bytes";
  EXPECT_EQ(golden.size(), facts.size());
  for (std::size_t kind = 0; kind < facts.size(); ++kind) {
    const auto& [name, body] = facts[kind];
    ASSERT_EQ(body.index(), kind) << name;
    const Facts batch = {{Instant::from_us(1'700'000'000'123'456), body}};
    const std::string bytes = encode_facts(batch);
    const auto written = golden.find(name);
    if (written == golden.end()) {
      ADD_FAILURE() << "docs/spec/journal.md has no golden bytes: add\ngolden " << name << "\n" << to_hex(bytes);
      continue;
    }
    EXPECT_EQ(to_hex(bytes), written->second) << "the encoding of " << name << " has changed";
    const auto decoded = decode_facts(from_hex(written->second));
    ASSERT_TRUE(decoded.ok()) << name << ": " << decoded.error().message;
    EXPECT_TRUE(*decoded == batch) << name;
  }
}

// As the first journals have it.
TEST(Codec, APromiseWithoutAPlaceIsRead) {
  const auto facts =
      decode_facts(from_hex("0a 17 08 c0 c4 80 c1 c1 c4 82 03 8a 01 0b 08 2a 10 80 c8 c7 f5 ce c4 82 03"));
  ASSERT_TRUE(facts.ok()) << facts.error().message;
  EXPECT_EQ(
      *facts,
      (Facts{{Instant::from_us(1'700'000'000'123'456), StartPromised{JobId(42), Instant::from_s(1'700'003'600), {}}}}));
}

// ---------------------------------------------------------------- what must be refused

template <typename T>
void expect_corrupt(const Result<T>& result, std::string_view field) {
  ASSERT_FALSE(result.ok()) << field;
  EXPECT_EQ(result.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(result.error().message.find(field), std::string::npos) << result.error().message;
}

pb::JobSpec spec_message() {
  pb::JobSpec message;
  to_pb(golden_spec(), message);
  return message;
}

// Reads the message after one change to it.
template <typename Message, typename Change>
auto changed(Message message, Change change) {
  change(message);
  return from_pb(message);
}

TEST(Codec, SpecsWithImpossiblePartsAreRefusedByName) {
  using M = pb::JobSpec;
  EXPECT_TRUE(from_pb(spec_message()).ok());
  expect_corrupt(changed(spec_message(), [](M& m) { m.set_kind(4); }), "JobSpec.kind");
  expect_corrupt(changed(spec_message(), [](M& m) { m.set_open_mode(2); }), "JobSpec.open_mode");
  expect_corrupt(changed(spec_message(), [](M& m) { m.set_time_limit_us(-1); }), "JobSpec.time_limit_us");
  expect_corrupt(changed(spec_message(), [](M& m) { m.set_time_limit_us(INT64_MAX); }), "JobSpec.time_limit_us");
  expect_corrupt(changed(spec_message(), [](M& m) { m.set_begin_us(INT64_MIN); }), "JobSpec.begin_us");
  expect_corrupt(changed(spec_message(), [](M& m) { m.set_begin_us(INT64_MAX); }), "JobSpec.begin_us");
  expect_corrupt(changed(spec_message(), [](M& m) { m.set_script("short"); }), "JobSpec.script");
  expect_corrupt(changed(spec_message(), [](M& m) { m.set_environment(std::string(33, 'x')); }), "JobSpec.environment");
  expect_corrupt(changed(spec_message(), [](M& m) { m.mutable_array()->clear_ranges(); }), "no index");
  expect_corrupt(changed(spec_message(), [](M& m) { m.mutable_array()->mutable_ranges(0)->set_step(0); }),
                 "ArrayRange");
  expect_corrupt(changed(spec_message(), [](M& m) { m.mutable_array()->mutable_ranges(0)->set_last(25); }), "overlap");
  expect_corrupt(changed(spec_message(), [](M& m) { m.mutable_array()->mutable_ranges(0)->set_last(UINT64_MAX); }),
                 "ArrayRange");
  expect_corrupt(changed(spec_message(),
                         [](M& m) {
                           for (std::size_t i = 0; i <= kArgumentsMax; ++i) m.add_args();
                         }),
                 "JobSpec.args");
  expect_corrupt(changed(spec_message(),
                         [](M& m) {
                           for (std::size_t i = 0; i <= kNodeListMax; ++i) m.add_exclude();
                         }),
                 "JobSpec.exclude");
}

TEST(Codec, IndexSetsBeyondTheirLimitAreRefused) {
  pb::NodeShare share;
  for (int i = 0; i < 1024; ++i) share.add_cores(~std::uint64_t{0});
  const auto full = from_pb(share);
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->cores.count(), IndexSet::kIndexMax + 1);
  share.add_cores(0);
  expect_corrupt(from_pb(share), "NodeShare.cores");
}

TEST(Codec, MissingPartsAreRefusedByName) {
  expect_corrupt(from_pb(pb::LaunchOrder()), "LaunchOrder.key");
  expect_corrupt(from_pb(pb::StopOrder()), "StopOrder.key");
  expect_corrupt(from_pb(pb::AttemptReport()), "AttemptReport.key");
  expect_corrupt(from_pb(pb::NodeRegistration()), "NodeRegistration.hardware");
  expect_corrupt(from_pb(pb::Node()), "Node.hardware");
  expect_corrupt(from_pb(pb::JobSummary()), "JobSummary.spec");
  expect_corrupt(from_pb(pb::Job(), nullptr), "Job.spec");
  expect_corrupt(from_pb(pb::Fact()), "Fact.body");
  pb::AttemptReport report;
  report.mutable_key();
  EXPECT_TRUE(from_pb(report).ok());
  report.set_ended(true);
  expect_corrupt(from_pb(report), "AttemptReport.outcome");
  pb::LaunchOrder launch;
  launch.mutable_key();
  launch.mutable_share();
  expect_corrupt(from_pb(launch), "LaunchOrder.spec");
  pb::Job task;
  task.set_spec_of_array(true);
  expect_corrupt(from_pb(task, nullptr), "Job.spec");
}

TEST(Codec, FactsWithImpossiblePartsAreRefused) {
  const auto fact = [](auto change) {
    pb::Fact message;
    change(message);
    return from_pb(message);
  };
  using F = pb::Fact;
  expect_corrupt(fact([](F& f) { f.mutable_job_submitted(); }), "JobSubmitted.spec");
  expect_corrupt(fact([](F& f) { f.mutable_node_registered(); }), "NodeRegistered.hardware");
  expect_corrupt(fact([](F& f) { f.mutable_attempt_confirmed(); }), "AttemptConfirmed.key");
  expect_corrupt(fact([](F& f) { f.mutable_attempt_ended_on_node()->mutable_key(); }), "AttemptEndedOnNode.outcome");
  expect_corrupt(
      fact([](F& f) { f.mutable_stop_requested()->mutable_key(), f.mutable_stop_requested()->set_cause(9); }),
      "StopRequested.cause");
  expect_corrupt(fact([](F& f) { f.mutable_job_ended()->set_state(13); }), "JobEnded.state");
  expect_corrupt(fact([](F& f) { f.mutable_array_tasks_ended(); }), "ArrayTasksEnded.positions");
  expect_corrupt(fact([](F& f) { f.mutable_array_tasks_ended()->mutable_positions()->set_begin(1); }), "PositionRange");
  expect_corrupt(fact([](F& f) { f.mutable_job_held(), f.set_at_us(-1); }), "Fact.at_us");
}

TEST(Codec, ABatchWithOneWrongFactIsRefusedAsAWhole) {
  pb::FactBatch batch;
  batch.add_facts()->mutable_job_held()->set_job(1);
  EXPECT_EQ(decode_facts(batch.SerializeAsString())->size(), 1U);
  batch.add_facts();
  expect_corrupt(decode_facts(batch.SerializeAsString()), "Fact.body");
  expect_corrupt(decode_facts("\xff\xff\xff"), "FactBatch");
  EXPECT_TRUE(decode_facts("")->empty());
}

TEST(Codec, FieldsOfALaterReleaseAreIgnored) {
  pb::Fact fact;
  fact.mutable_job_held()->set_job(7);
  // Field 77 with the number 1, inside; field 900 with a text, outside.
  const std::string inner = fact.job_held().SerializeAsString() + "\xe8\x04\x01";
  ASSERT_TRUE(fact.mutable_job_held()->ParseFromString(inner));
  ASSERT_EQ(fact.job_held().SerializeAsString(), inner);
  pb::Fact parsed;
  ASSERT_TRUE(parsed.ParseFromString(fact.SerializeAsString() + "\xa2\x38\x05later"));
  const auto read = from_pb(parsed);
  ASSERT_TRUE(read.ok());
  EXPECT_TRUE(*read == (Fact{{}, JobHeld{JobId(7)}}));
}

TEST(Codec, TextNeedsNotBeUtf8) {
  LaunchOrder order;
  order.spec = std::make_shared<const JobSpec>();
  order.node = "\xff\xfe";
  order.peers = {{"\xc3", std::string("\0\x80", 2), "\xff", 1, 1}};
  pb::LaunchOrder message;
  to_pb(order, message);
  pb::LaunchOrder parsed;
  ASSERT_TRUE(parsed.ParseFromString(message.SerializeAsString()));
  const auto read = from_pb(parsed);
  ASSERT_TRUE(read.ok());
  EXPECT_TRUE(*read == order);
}

// A message that is used again holds nothing of its former value.
TEST(Codec, WritingReplacesWhatTheMessageHeld) {
  pb::JobSpec message = spec_message();
  to_pb(JobSpec{}, message);
  EXPECT_TRUE(*from_pb(message) == JobSpec{});
  pb::LaunchOrder launch;
  LaunchOrder order;
  order.spec = std::make_shared<const JobSpec>(golden_spec());
  order.peers.resize(3);
  to_pb(order, launch);
  order.peers.resize(1);
  order.spec = std::make_shared<const JobSpec>();
  to_pb(order, launch);
  EXPECT_TRUE(*from_pb(launch) == order);
}

// ---------------------------------------------------------------- framing

TEST(Header, EveryKindIsReadAsWritten) {
  for (const char letter : {'q', 'r', 'n', 'c', 's', 't'}) {
    const auto kind = static_cast<MessageKind>(letter);
    EXPECT_EQ(header(kind), std::string("MUS1") + letter);
    const auto read = parse_header(header(kind));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(*read, kind);
  }
}

TEST(Header, WhatIsNotMustersIsRefused) {
  for (const std::string& frame : {std::string(), std::string("MUS1"), std::string("MUS1qq"), std::string("HTTP/"),
                                   std::string("\0\0\0\0\0", 5), std::string(100'000, 'M')}) {
    expect_corrupt(parse_header(frame), "not one of Muster's");
  }
  expect_corrupt(parse_header("MUS2q"), "version \"2\"");
  expect_corrupt(parse_header("MUS1x"), "unknown kind \"x\"");
  expect_corrupt(parse_header(std::string("MUS1\0", 5)), "unknown kind");
}

}  // namespace
}  // namespace muster::wire

// The option table, its reading, and what submit and run make of it.
#include "cli/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "cli/commands.h"
#include "cli/job_ids.h"
#include "cli/job_options.h"

namespace muster::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::string error_of(Command command, const std::vector<std::string>& words) {
  const auto parsed = parse_command_line(command, words);
  return parsed.ok() ? "" : parsed.error().message;
}

std::vector<Given> variables(Command command, const std::map<std::string, std::string>& environment) {
  auto given = parse_variables(command, [&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
  EXPECT_TRUE(given.ok()) << (given.ok() ? "" : given.error().message);
  return given.ok() ? *given : std::vector<Given>{};
}

Surroundings surroundings() {
  Surroundings around;
  around.work_dir = "/home/ann/work";
  around.host = "login";
  around.environment = {"HOME=/home/ann", "PATH=/bin", "SECRET=x"};
  around.now = Instant::from_s(1'800'000'000);
  return around;
}

Result<SubmitOptions> submit(const std::vector<std::string>& words, const std::string& script = "#!/bin/sh\ntrue\n",
                             const std::map<std::string, std::string>& environment = {},
                             const Surroundings& around = surroundings()) {
  const auto parsed = parse_command_line(kSubmit, words);
  if (!parsed.ok()) return parsed.error();
  const std::string name = parsed->has(OptionId::kWrap) ? "" : parsed->operands.at(0);
  return build_submit(*parsed, variables(kSubmit, environment), name, script, around);
}

JobSpec spec(const std::vector<std::string>& words, const std::string& script = "#!/bin/sh\ntrue\n",
             const std::map<std::string, std::string>& environment = {}) {
  auto options = submit(words, script, environment);
  EXPECT_TRUE(options.ok()) << (options.ok() ? "" : options.error().message);
  return options.ok() ? options->spec : JobSpec{};
}

TEST(OptionTable, HasNoTwoMeaningsForOneNameInOneCommand) {
  for (const CommandInfo& command : command_table()) {
    std::set<std::string> names;
    std::map<char, OptionId> letters;
    for (const OptionInfo& row : option_table()) {
      if ((row.commands & command.command) == 0) continue;
      EXPECT_TRUE(names.insert(row.name).second) << command.name << " --" << row.name;
      if (row.letter != 0) {
        const auto [at, fresh] = letters.emplace(row.letter, row.id);
        EXPECT_TRUE(fresh || at->second == row.id) << command.name << " -" << row.letter;
      }
      EXPECT_EQ(row.arg == ArgKind::kNone, row.kind == ValueKind::kFlag) << row.name;
      EXPECT_EQ(row.arg == ArgKind::kNone, std::string(row.value_name).empty()) << row.name;
      EXPECT_NE(row.meaning[0], '\0') << row.name;
    }
  }
}

TEST(OptionTable, NamesEveryOptionOfSubmitThatTheContractNames) {
  for (const char* name : {"job-name",
                           "nodes",
                           "ntasks",
                           "ntasks-per-node",
                           "cpus-per-task",
                           "mem",
                           "mem-per-cpu",
                           "mem-per-gpu",
                           "gpus",
                           "gpus-per-node",
                           "gpus-per-task",
                           "time",
                           "time-min",
                           "queue",
                           "partition",
                           "qos",
                           "account",
                           "nice",
                           "array",
                           "dependency",
                           "hold",
                           "begin",
                           "deadline",
                           "nodelist",
                           "exclude",
                           "constraint",
                           "exclusive",
                           "switches",
                           "licenses",
                           "chdir",
                           "output",
                           "error",
                           "input",
                           "open-mode",
                           "export",
                           "signal",
                           "requeue",
                           "no-requeue",
                           "restart-on-node-loss",
                           "checkpoint",
                           "checkpoint-interval",
                           "recover",
                           "spares",
                           "threads-per-core",
                           "image",
                           "comment",
                           "mail-user",
                           "mail-type",
                           "wait",
                           "test-only",
                           "locality",
                           "cpu-bind",
                           "gpu-bind",
                           "distribution",
                           "wrap",
                           "parsable",
                           "json"}) {
    const bool found = std::any_of(option_table().begin(), option_table().end(), [&](const OptionInfo& row) {
      return (row.commands & kSubmit) != 0 && std::string(row.name) == name;
    });
    EXPECT_TRUE(found) << name;
  }
}

TEST(OptionTable, HelpNamesEveryOptionThatIsAccepted) {
  for (const CommandInfo& command : command_table()) {
    const std::string help = help_text(command.command);
    for (const OptionInfo& row : option_table()) {
      if ((row.commands & command.command) == 0 || (row.flags & (kAlias | kElsewhere)) != 0) continue;
      EXPECT_THAT(help, HasSubstr(std::string("--") + row.name)) << command.name;
    }
    EXPECT_FALSE(man_page(command.name).empty());
  }
}

TEST(CommandLine, StopsAtTheFirstOperandOfSubmit) {
  const auto parsed = parse_command_line(kSubmit, {"-N2", "job.sh", "--nodes", "7"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->value(OptionId::kNodes), "2");
  EXPECT_THAT(parsed->operands, ElementsAre("job.sh", "--nodes", "7"));
}

TEST(CommandLine, TakesOptionsAfterOperandsElsewhere) {
  const auto parsed = parse_command_line(kCancel, {"42", "-s", "TERM", "43"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_TRUE(parsed->has(OptionId::kSignal));
  EXPECT_THAT(parsed->operands, ElementsAre("42", "43"));
}

TEST(CommandLine, TakesUnambiguousAbbreviationsAndAttachedValues) {
  const auto parsed =
      parse_command_line(kSubmit, {"--ntasks-p=3", "--part", "debug", "-n4", "-N1-3", "--nice", "--nice=5", "job.sh"});
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed->value(OptionId::kNtasksPerNode), "3");
  EXPECT_EQ(parsed->value(OptionId::kQueue), "debug");
  EXPECT_EQ(parsed->value(OptionId::kNtasks), "4");
  EXPECT_EQ(parsed->value(OptionId::kNodes), "1-3");
  EXPECT_EQ(parsed->value(OptionId::kNice), "5");
}

TEST(CommandLine, NamesWhatIsWrong) {
  EXPECT_THAT(error_of(kSubmit, {"--nods", "2", "x"}), AllOf(HasSubstr("--nods"), HasSubstr("did you mean --nodes?")));
  EXPECT_THAT(error_of(kSubmit, {"--frobnicate", "x"}),
              AllOf(HasSubstr("unknown option --frobnicate"), HasSubstr("muster submit --help")));
  EXPECT_THAT(error_of(kSubmit, {"--mem-per", "1G", "x"}),
              AllOf(HasSubstr("ambiguous"), HasSubstr("--mem-per-cpu"), HasSubstr("--mem-per-gpu")));
  EXPECT_THAT(error_of(kSubmit, {"-Z", "x"}), HasSubstr("unknown option -Z"));
  EXPECT_THAT(error_of(kSubmit, {"--hold=yes", "x"}), AllOf(HasSubstr("--hold"), HasSubstr("takes no value")));
  EXPECT_THAT(error_of(kSubmit, {"--time"}), AllOf(HasSubstr("--time"), HasSubstr("needs a value")));
  EXPECT_THAT(error_of(kSubmit, {"-t"}), AllOf(HasSubstr("-t"), HasSubstr("needs a value")));
  EXPECT_THAT(error_of(kQueue, {"-t", "runing"}), AllOf(HasSubstr("runing"), HasSubstr("did you mean running?")));
}

TEST(CommandLine, ReadsBindings) {
  const auto given = submit({"--cpu-bind", "verbose,map_cpu:0,4", "--gpu-bind", "closest", "-m", "block:cyclic",
                             "--threads-per-core", "1", "--locality", "none", "job.sh"});
  ASSERT_TRUE(given.ok()) << given.error().message;
  EXPECT_EQ(given->spec.cpu_bind, "verbose,map_cpu:0,4");
  EXPECT_EQ(given->spec.gpu_bind, "closest");
  EXPECT_EQ(given->spec.distribution, "block:cyclic");
  EXPECT_EQ(given->spec.threads_per_core, 1U);
  EXPECT_EQ(given->spec.locality, Locality::kNone);
  for (const auto& [option, value] : std::vector<std::pair<std::string, std::string>>{{"--cpu-bind", "core"},
                                                                                      {"--gpu-bind", "near"},
                                                                                      {"--distribution", "round"},
                                                                                      {"--locality", "some"},
                                                                                      {"--threads-per-core", "0"}}) {
    EXPECT_THAT(submit({option, value, "job.sh"}).error().message, HasSubstr(option));
  }
}

TEST(CommandLine, RefusesWhatIsNotThereYet) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--spares", "1"}, {"--checkpoint", "app"}, {"--image", "x"}}) {
    std::vector<std::string> all = words;
    all.emplace_back("job.sh");
    EXPECT_THAT(error_of(kSubmit, all), AllOf(HasSubstr(words[0]), HasSubstr("not supported yet"))) << words[0];
  }
  EXPECT_THAT(error_of(kSubmit, {"--gres", "fpga:1", "x"}), HasSubstr("not supported yet"));
  EXPECT_THAT(error_of(kSubmit, {"--gpus", "a100:2", "x"}), HasSubstr("not supported yet"));
}

TEST(CommandLine, FeaturesAndTheNetworkAreRead) {
  const auto made = submit({"-C", "a&[b|c]", "--switches", "2@1:00:00", "--segment", "4", "job.sh"});
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_EQ(made->spec.constraint, "a&[b|c]");
  EXPECT_EQ(made->spec.switches, 2U);
  EXPECT_EQ(made->spec.switches_wait, Duration::from_s(3600));
  EXPECT_EQ(made->spec.segment, 4U);
  EXPECT_TRUE(submit({"--switches", "1", "job.sh"})->spec.switches_wait.is_infinite());
  EXPECT_THAT(submit({"-C", "a&", "job.sh"}).error().message,
              AllOf(HasSubstr("--constraint"), HasSubstr("position 3")));
  EXPECT_THAT(submit({"--switches", "0", "job.sh"}).error().message, HasSubstr("--switches"));
  EXPECT_THAT(submit({"--switches", "1@x", "job.sh"}).error().message, HasSubstr("bad time"));
  EXPECT_THAT(error_of(kSubmit, {"--segment", "0", "job.sh"}), HasSubstr("--segment"));
}

TEST(CommandLine, NoneTakesBackWhatAWeakerSourceAsked) {
  const std::pair<const char*, const char*> kOptions[] = {
      {"--time-min", "1m"},        {"--deadline", "now+1h"}, {"--begin", "now+1h"}, {"--dependency", "afterok:1"},
      {"--nodelist", "n1"},        {"--exclude", "n2"},      {"--constraint", "a"}, {"--switches", "2@1h"},
      {"--segment", "2"},          {"--account", "physics"}, {"--qos", "high"},     {"--licenses", "matlab:2"},
      {"--reservation", "course"},
  };
  std::vector<std::string> asked;
  std::vector<std::string> taken_back;
  for (const auto& [option, value] : kOptions) {
    asked.insert(asked.end(), {option, value});
    taken_back.insert(taken_back.end(), {option, "none"});
  }
  asked.emplace_back("--exclusive");
  taken_back.emplace_back("--exclusive=no");
  std::vector<std::string> words = asked;
  words.emplace_back("job.sh");
  const auto plain = submit({"job.sh"});
  const auto given = submit(words);
  ASSERT_TRUE(given.ok()) << given.error().message;
  EXPECT_NE(given->spec, plain->spec);
  words = asked;
  words.insert(words.end(), taken_back.begin(), taken_back.end());
  words.emplace_back("job.sh");
  const auto back = submit(words);
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(back->spec, plain->spec);
  EXPECT_THAT(error_of(kSubmit, {"--time", "none", "x"}), HasSubstr("--time"));
}

TEST(CommandLine, TypesOfMailAreChecked) {
  EXPECT_TRUE(submit({"--mail-type", "END,fail", "job.sh"}).ok());
  EXPECT_THAT(error_of(kSubmit, {"--mail-type", "END,BOGUS", "x"}),
              AllOf(HasSubstr("--mail-type"), HasSubstr("BOGUS")));
}

TEST(CommandLine, BadValuesNameTheOption) {
  const std::vector<std::pair<std::string, std::string>> bad = {{"--nodes", "0"},
                                                                {"--nodes", "-1"},
                                                                {"--nodes", "4-2"},
                                                                {"--nodes", "1-"},
                                                                {"--nodes", "x"},
                                                                {"--nodes", "99999999999999999999999"},
                                                                {"--nodes", ""},
                                                                {"--ntasks", "-5"},
                                                                {"--ntasks", "0"},
                                                                {"--ntasks", "18446744073709551616"},
                                                                {"--ntasks", "1e3"},
                                                                {"--cpus-per-task", "1.5"},
                                                                {"--gpus", "-1"},
                                                                {"--time", "never"},
                                                                {"--time", "-5"},
                                                                {"--time", "0"},
                                                                {"--time", "1:2:3:4"},
                                                                {"--mem", "4X"},
                                                                {"--mem", "-1G"},
                                                                {"--mem", "0"},
                                                                {"--mem", "99999999999T"},
                                                                {"--array", "5-1"},
                                                                {"--array", "1-3,2"},
                                                                {"--array", ""},
                                                                {"--nodelist", "n[1-"},
                                                                {"--nodelist", "n[3-1]"},
                                                                {"--exclude", "a b"},
                                                                {"--begin", "25:00"},
                                                                {"--begin", "2030-02-31"},
                                                                {"--open-mode", "w"},
                                                                {"--export", ""},
                                                                {"--export", "A,,B"},
                                                                {"--nice", "x"},
                                                                {"--job-name", ""},
                                                                {"--array", "0-99999999999"},
                                                                {"--output", ""},
                                                                {"--job-name", std::string(300, 'x')}};
  for (const auto& [option, value] : bad) {
    const std::string word = option + "=" + value;
    const std::string message = error_of(kSubmit, {word, "job.sh"});
    EXPECT_THAT(message, HasSubstr(option)) << word;
    EXPECT_THAT(message, HasSubstr(": ")) << word;
    EXPECT_EQ(message.find('\n'), std::string::npos) << word;
  }
}

TEST(Submit, FillsTheJob) {
  const JobSpec job = spec({"-J",
                            "name",
                            "-N2-4",
                            "-n8",
                            "--ntasks-per-node=4",
                            "-c2",
                            "--mem",
                            "4G",
                            "--gpus-per-node",
                            "1",
                            "-t",
                            "1:30:00",
                            "-p",
                            "debug",
                            "--nice",
                            "-H",
                            "-w",
                            "n[1-2]",
                            "-x",
                            "n9",
                            "--exclusive",
                            "-D",
                            "sub",
                            "-o",
                            "out-%j",
                            "-e",
                            "err",
                            "-i",
                            "in",
                            "--open-mode=append",
                            "--requeue",
                            "--signal=B:USR1@90",
                            "--comment",
                            "hello",
                            "-a",
                            "0-9%3",
                            "job.sh",
                            "one",
                            "two words"});
  EXPECT_EQ(job.name, "name");
  EXPECT_EQ(job.nodes_min, 2U);
  EXPECT_EQ(job.nodes_max, 4U);
  EXPECT_EQ(job.ntasks, 8U);
  EXPECT_EQ(job.ntasks_per_node, 4U);
  EXPECT_EQ(job.cpus_per_task, 2U);
  EXPECT_EQ(job.mem_per_node_mib, 4096U);
  EXPECT_EQ(job.gpus_per_node, 1U);
  EXPECT_EQ(job.time_limit, Duration::from_s(5400));
  EXPECT_EQ(job.queue, "debug");
  EXPECT_EQ(job.nice, 100);
  EXPECT_TRUE(job.hold);
  EXPECT_THAT(job.nodelist, ElementsAre("n1", "n2"));
  EXPECT_THAT(job.exclude, ElementsAre("n9"));
  EXPECT_TRUE(job.exclusive);
  EXPECT_EQ(job.work_dir, "/home/ann/work/sub");
  EXPECT_EQ(job.stdout_path, "out-%j");
  EXPECT_EQ(job.stderr_path, "err");
  EXPECT_EQ(job.stdin_path, "in");
  EXPECT_EQ(job.open_mode, OpenMode::kAppend);
  EXPECT_TRUE(job.requeue);
  EXPECT_TRUE(job.requeue_given);
  EXPECT_TRUE(job.open_mode_given);
  EXPECT_EQ(job.warn_signal, 10);
  EXPECT_EQ(job.warn_before, Duration::from_s(90));
  EXPECT_TRUE(job.warn_batch_only);
  EXPECT_EQ(job.comment, "hello");
  ASSERT_TRUE(job.array);
  EXPECT_EQ(job.array->max_running, 3U);
  EXPECT_EQ(job.script_name, "job.sh");
  EXPECT_THAT(job.args, ElementsAre("one", "two words"));
}

TEST(Submit, DefaultsComeFromWhereItIsSubmitted) {
  const JobSpec job = spec({"dir/job.sh"});
  EXPECT_EQ(job.name, "job.sh");
  EXPECT_EQ(job.work_dir, "/home/ann/work");
  EXPECT_EQ(job.stdout_path, "muster-%j.out");
  EXPECT_EQ(job.submit_host, "login");
  EXPECT_EQ(spec({"-a", "1-2", "job.sh"}).stdout_path, "muster-%A_%a.out");
  EXPECT_EQ(spec({"--wrap", "date"}).name, "wrap");
  EXPECT_EQ(submit({"--wrap", "date"})->script, "#!/bin/sh\ndate\n");
  EXPECT_THAT(spec({"--wrap", "date", "a", "b"}).args, ElementsAre("a", "b"));
}

TEST(Submit, CommandLineWinsOverVariablesOverScript) {
  const std::string script = "#!/bin/sh\n#MUSTER --nodes=1 --ntasks 1\n#SBATCH -J script --mem=1G\ntrue\n";
  const std::map<std::string, std::string> environment = {
      {"MUSTER_JOB_NAME", "variable"}, {"MUSTER_NTASKS", "2"}, {"MUSTER_HOLD", "yes"}};
  const JobSpec job = spec({"--ntasks=3", "--mem-per-cpu=2G", "job.sh"}, script, environment);
  EXPECT_EQ(job.nodes_min, 1U);
  EXPECT_EQ(job.name, "variable");
  EXPECT_EQ(job.ntasks, 3U);
  EXPECT_TRUE(job.hold);
  EXPECT_EQ(job.mem_per_node_mib, 0U);  // replaced by the other way to say it
  EXPECT_EQ(job.mem_per_cpu_mib, 2048U);
}

TEST(Submit, VariablesOfTheJobAroundAreNoOptions) {
  const std::map<std::string, std::string> environment = {
      {"MUSTER_JOB_ID", "7"}, {"MUSTER_JOB_NAME", "outer"}, {"MUSTER_NTASKS", "64"}, {"MUSTER_QUEUE", "debug"}};
  const JobSpec job = spec({"job.sh"}, "#!/bin/sh\n", environment);
  EXPECT_EQ(job.name, "job.sh");
  EXPECT_EQ(job.ntasks, 0U);
  EXPECT_EQ(job.queue, "debug");
}

TEST(Submit, ErrorsInScriptsNameFileLineAndOption) {
  const std::string head = "#!/bin/sh\n\n#MUSTER --nodes=2\n";
  const auto message = [&](const std::string& line) {
    return submit({"job.sh"}, head + line + "\ntrue\n").error().message;
  };
  EXPECT_THAT(message("#MUSTER --nodes=x"), HasSubstr("job.sh:4: --nodes"));
  EXPECT_THAT(message("#SBATCH --tim=5 --nods=3"), HasSubstr("job.sh:4: "));
  EXPECT_THAT(message("#MUSTER --wrap=ls"), AllOf(HasSubstr("job.sh:4: "), HasSubstr("--wrap")));
  EXPECT_THAT(message("#MUSTER nodes=3"), AllOf(HasSubstr("job.sh:4: "), HasSubstr("nodes=3")));
  EXPECT_THAT(message("#MUSTER --licenses=x:0"), AllOf(HasSubstr("job.sh:4: --licenses"), HasSubstr("x")));
  EXPECT_THAT(message("#MUSTER --image=x"), AllOf(HasSubstr("job.sh:4: --image"), HasSubstr("not supported yet")));
  EXPECT_THAT(message("#MUSTER --dependency=afterok"),
              AllOf(HasSubstr("job.sh:4: --dependency"), HasSubstr("afterok names no job")));
  EXPECT_THAT(message("#MUSTER --mem=1G --mem-per-cpu=1G"), HasSubstr("job.sh:4: --mem-per-cpu and job.sh:4: --mem"));
}

TEST(Submit, WarnsOfOptionLinesBelowTheHead) {
  const auto options = submit({"job.sh"}, "#!/bin/sh\ntrue\n#MUSTER --nodes=2\n");
  ASSERT_TRUE(options.ok());
  EXPECT_THAT(options->warnings, ElementsAre(HasSubstr("job.sh:3:")));
  EXPECT_EQ(options->spec.nodes_min, 0U);
}

TEST(Submit, RefusesContradictions) {
  EXPECT_FALSE(submit({"-N4", "-n2", "job.sh"}).ok());
  EXPECT_FALSE(submit({"-w", "n1,n2", "-x", "n2", "job.sh"}).ok());
  EXPECT_FALSE(submit({"-w", "n[1-3]", "-N2", "job.sh"}).ok());
}

TEST(Submit, ExportsWhatWasAskedFor) {
  const auto environment = [](const std::string& list) {
    auto text = submit({"--export=" + list, "job.sh"})->environment;
    std::replace(text.begin(), text.end(), '\0', ';');
    return text;
  };
  EXPECT_EQ(environment("ALL"), "HOME=/home/ann;PATH=/bin;SECRET=x;");
  EXPECT_EQ(environment("NONE"), "");
  EXPECT_EQ(environment("PATH,X=1"), "PATH=/bin;X=1;");
  EXPECT_EQ(environment("ALL,SECRET=y"), "HOME=/home/ann;PATH=/bin;SECRET=y;");
  EXPECT_EQ(environment("NONE,A='x,y',B=\"2\""), "A=x,y;B=2;");
  EXPECT_EQ(environment("MISSING"), "");
}

TEST(Submit, AJobSubmittedByAJobDoesNotTakeItsVariables) {
  Surroundings around = surroundings();
  around.environment = {"MUSTER_JOB_ID=1", "MUSTER_ARRAY_TASK_ID=3", "SLURM_JOB_ID=1", "MUSTER_CONFIG=/c",
                        "HOME=/h",         "CUDA_VISIBLE_DEVICES=0"};
  const auto options = submit({"job.sh"}, "#!/bin/sh\n", {}, around);
  EXPECT_EQ(options->environment, std::string("MUSTER_CONFIG=/c\0HOME=/h\0", 25));
}

TEST(Run, IsWhatOpenMpiAsksOfSrun) {
  const std::vector<std::string> words = {"--ntasks-per-node=1",
                                          "--kill-on-bad-exit",
                                          "--mpi=none",
                                          "--nodes=2",
                                          "--nodelist=n1,n2",
                                          "--ntasks=2",
                                          "orted",
                                          "-mca",
                                          "ess",
                                          "\"slurm\"",
                                          "-mca",
                                          "orte_node_regex",
                                          "\"n[1:1-4]@0(2)\""};
  const auto parsed = parse_command_line(kSrun, words);
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  const auto options = build_run(kSrun, *parsed, {}, 42, surroundings());
  ASSERT_TRUE(options.ok()) << options.error().message;
  EXPECT_EQ(options->job_id, 42U);
  EXPECT_EQ(options->nodes, 2U);
  EXPECT_EQ(options->ntasks, 2U);
  EXPECT_EQ(options->ntasks_per_node, 1U);
  EXPECT_TRUE(options->kill_on_bad_exit);
  EXPECT_TRUE(options->srun_style);
  EXPECT_THAT(options->nodelist, ElementsAre("n1", "n2"));
  EXPECT_THAT(options->argv,
              ElementsAre("orted", "-mca", "ess", "\"slurm\"", "-mca", "orte_node_regex", "\"n[1:1-4]@0(2)\""));
}

TEST(Run, TakesTheLaunchLinesOfOtherLaunchers) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"-N", "2", "-n", "2", "--input", "none", "/usr/bin/hydra_pmi_proxy", "--control-port", "h:1"},
           {"--external-launcher", "--ntasks-per-node=1", "--kill-on-bad-exit", "--mpi=none", "--cpu-bind=none",
            "--jobid=7", "--nodes=2", "--ntasks=2", "prted"},
           {"--no-kill", "--kill-on-bad-exit=0", "-u", "--overlap", "--exact", "-l", "--err=foo", "true"},
           {"--tasks-per-node=2", "--out", "x", "true"}}) {
    const auto parsed = parse_command_line(kSrun, words);
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_TRUE(build_run(kSrun, *parsed, {}, 1, surroundings()).ok());
  }
  EXPECT_THAT(error_of(kSrun, {"--mpi=pmix", "true"}), HasSubstr("not supported yet"));
  EXPECT_THAT(error_of(kSrun, {"--include", "x", "true"}), HasSubstr("--include"));
}

TEST(Run, InputAndOutput) {
  const auto run = [](Command command, std::vector<std::string> words) {
    words.emplace_back("cat");
    const auto parsed = parse_command_line(command, words);
    return build_run(command, *parsed, {}, 1, surroundings()).value();
  };
  EXPECT_EQ(run(kRun, {}).input, InputMode::kOneRank);
  EXPECT_EQ(run(kSrun, {}).input, InputMode::kAll);
  EXPECT_EQ(run(kRun, {"--input", "none"}).input, InputMode::kNone);
  EXPECT_EQ(run(kRun, {"-i", "data"}).input_path, "/home/ann/work/data");
  EXPECT_EQ(run(kRun, {"-o", "out-%t"}).output_path, "/home/ann/work/out-%t");
  EXPECT_EQ(run(kSrun, {"-o", "none"}).output_path, "/dev/null");
  EXPECT_EQ(run(kSrun, {"-o", "all"}).output_path, "");
  EXPECT_EQ(run(kRun, {"-N2", "-n4"}).job.kind, JobKind::kRun);
  EXPECT_EQ(run(kRun, {"-N2", "-n4"}).job.ntasks, 4U);
}

TEST(Submit, PatternLettersThatStandForNothingAreNamed) {
  for (const char* option : {"-o", "-e"}) {
    const auto refused = submit({option, "x%q.out", "job.sh"});
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error().message, AllOf(HasSubstr("%q stands for nothing"), HasSubstr("%j")));
  }
  EXPECT_THAT(submit({"-o", "x%04", "job.sh"}).error().message, HasSubstr("%04 stands"));
  EXPECT_THAT(submit({"job.sh"}, "#!/bin/sh\n#SBATCH -o a%z\n").error().message,
              AllOf(HasSubstr("job.sh:2"), HasSubstr("%z")));
  EXPECT_FALSE(submit({"-o", "%s", "job.sh"}).ok());
  EXPECT_TRUE(submit({"-o", "%j%A%a%x%u%N%n%t%%%4j", "job.sh"}).ok());
  const auto run = parse_command_line(kRun, {"-o", "%s-%J-%t", "true"});
  ASSERT_TRUE(run.ok());
  EXPECT_TRUE(build_run(kRun, *run, {}, 0, surroundings()).ok());
}

TEST(Run, JsonAfterTheCommandIsTheCommands) {
  EXPECT_TRUE(parse_command_line(kRun, {"--json", "true"})->has(OptionId::kJson));
  EXPECT_FALSE(parse_command_line(kRun, {"true", "--json"})->has(OptionId::kJson));
  EXPECT_EQ(parse_command_line(kRun, {"true", "--json"})->operands, (std::vector<std::string>{"true", "--json"}));
}

TEST(Alloc, TheCommandIsTheShellWhenNoneIsGiven) {
  const auto alloc = [](const std::vector<std::string>& words, Surroundings around = surroundings()) {
    const auto parsed = parse_command_line(kAlloc, words);
    return parsed.ok() ? build_alloc(*parsed, {}, around) : Result<AllocOptions>(parsed.error());
  };
  const auto plain = alloc({"-N2"});
  ASSERT_TRUE(plain.ok()) << plain.error().message;
  EXPECT_EQ(plain->argv, std::vector<std::string>{"/bin/sh"});
  EXPECT_EQ(plain->job.name, "interactive");
  EXPECT_EQ(plain->job.kind, JobKind::kAlloc);
  EXPECT_EQ(plain->job.nodes_min, 2U);
  EXPECT_EQ(plain->work_dir, "/home/ann/work");
  Surroundings with_shell = surroundings();
  with_shell.environment.emplace_back("SHELL=/bin/zsh");
  EXPECT_EQ(alloc({}, with_shell)->argv, std::vector<std::string>{"/bin/zsh"});
  EXPECT_EQ(alloc({"make", "-n", "3"})->argv, (std::vector<std::string>{"make", "-n", "3"}));
  EXPECT_EQ(alloc({"--no-shell"})->job.kind, JobKind::kAllocDetached);
  EXPECT_EQ(alloc({"--config", "c.toml"})->connect.config_path, "/home/ann/work/c.toml");
  EXPECT_THAT(alloc({"--no-shell", "true"}).error().message, HasSubstr("--no-shell beside the command true"));
  EXPECT_THAT(alloc({"--json", "true"}).error().message, HasSubstr("--no-shell"));
  EXPECT_THAT(alloc({"-o", "x"}).error().message, HasSubstr("-o"));
  EXPECT_THAT(alloc({"--array", "1-2"}).error().message, HasSubstr("--array"));
}

TEST(Run, NeedsACommand) {
  const auto parsed = parse_command_line(kRun, {"-n2"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_FALSE(build_run(kRun, *parsed, {}, 0, surroundings()).ok());
}

TEST(JobIds, ReadsAllForms) {
  EXPECT_EQ(parse_job_ref("42")->item.id.value, 42U);
  EXPECT_FALSE(parse_job_ref("42")->item.has_indices);
  EXPECT_THAT(parse_job_ref("42_7")->item.indices, ElementsAre(ArrayRange{7, 7, 1}));
  EXPECT_EQ(parse_job_ref("42_[1-3,9]")->item.indices.size(), 2U);
  EXPECT_EQ(parse_job_ref("42.3")->step, 3U);
  EXPECT_EQ(parse_job_list("1,2_[3,4],5")->size(), 3U);
  for (const char* bad : {"", "0", "-1", "x", "42_", "42_[", "42_[1-3", "42_1-3", "42_[3-1]", "42_[1%2]", "42.x", "4 2",
                          "18446744073709551616", "42_x", "1,,2"}) {
    const auto list = parse_job_list(bad);
    ASSERT_FALSE(list.ok()) << bad;
    EXPECT_THAT(list.error().message, HasSubstr("job ")) << bad;
  }
}

TEST(Values, SignalsBeforeTheTimeLimit) {
  const auto plain = parse_signal_before("USR2", "--signal");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->signal, 12);
  EXPECT_EQ(plain->before, Duration::from_s(60));
  EXPECT_FALSE(plain->batch_only);
  EXPECT_EQ(parse_signal_before("b:15@120", "--signal")->before, Duration::from_s(120));
  EXPECT_TRUE(parse_signal_before("b:15@120", "--signal")->batch_only);
  EXPECT_EQ(parse_signal_before("TERM@2m", "--signal")->before, Duration::from_s(120));
  EXPECT_EQ(parse_signal_before("TERM@0", "--signal")->before, Duration{});
  for (const char* bad : {"", "B:", "@60", "R:USR1", "USR1@", "USR1@-5", "USR1@soon", "USR1@UNLIMITED"}) {
    const auto value = parse_signal_before(bad, "--signal");
    ASSERT_FALSE(value.ok()) << bad;
    EXPECT_THAT(value.error().message, HasSubstr("--signal")) << bad;
  }
}

TEST(Values, Signals) {
  EXPECT_EQ(*parse_signal("TERM", "-s"), 15);
  EXPECT_EQ(*parse_signal("SIGKILL", "-s"), 9);
  EXPECT_EQ(*parse_signal("usr1", "-s"), 10);
  EXPECT_EQ(*parse_signal("9", "-s"), 9);
  for (const char* bad : {"", "0", "65", "TREM", "-9"}) EXPECT_FALSE(parse_signal(bad, "-s").ok()) << bad;
}

TEST(Values, Times) {
  setenv("TZ", "UTC", 1);
  tzset();
  const Instant now = Instant::from_s(1'800'000'000);  // 2027-01-15T08:00:00Z
  EXPECT_EQ(*parse_time("now", "-S", now), now);
  EXPECT_EQ(parse_time("now+1h", "-S", now)->seconds(), 1'800'003'600);
  EXPECT_EQ(parse_time("now-1h", "-S", now)->seconds(), 1'799'996'400);
  EXPECT_EQ(parse_time("now+2hours", "-S", now)->seconds(), 1'800'007'200);
  EXPECT_EQ(parse_time("now+60", "-S", now)->seconds(), 1'800'000'060);
  EXPECT_EQ(parse_time("09:30", "-S", now)->seconds(), 1'800'005'400);
  EXPECT_EQ(parse_time("07:00", "-S", now)->seconds(), 1'800'000'000 + 23 * 3600);
  EXPECT_EQ(parse_time("2027-01-15", "-S", now)->seconds(), 1'800'000'000 - 8 * 3600);
  EXPECT_EQ(parse_time("2027-01-15T08:00:01", "-S", now)->seconds(), 1'800'000'001);
  EXPECT_EQ(parse_time("@5", "-S", now)->seconds(), 5);
  for (const char* bad : {"", "8", "24:00", "08:60", "2027-13-01", "2027-02-30", "2027-1", "T", "2027-01-15T", "@",
                          "now-", "now+", "99999-01-01"}) {
    EXPECT_FALSE(parse_time(bad, "-S", now).ok()) << bad;
  }
}

}  // namespace
}  // namespace muster::cli

#include "sim/replay/command.h"

#include <getopt.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "lib/base/text.h"
#include "sim/replay/bench.h"
#include "sim/replay/dump.h"
#include "sim/replay/measures.h"
#include "sim/replay/policies.h"
#include "sim/replay/replay.h"
#include "sim/replay/swf.h"

namespace muster::sim {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

constexpr auto kProgressAfter = std::chrono::seconds(2);
constexpr auto kProgressEvery = std::chrono::milliseconds(200);

// The option table of `muster` explains them all: cli/option_table.cc.
constexpr const char* kUsage =
    "Usage: muster-sim replay --swf FILE [--policy NAME] [--backfill NAME] [--events batch|seq] [--estimates "
    "user|run]\n"
    "                         [--procs req|alloc|max] [--filter strict|none] [--machine CORES] [--jobs N]\n"
    "                         [--dump FILE] [--json] [--bench]\n"
    "       muster-sim replay --bench [--nodes N] [--cores N] [--gpus N] [--pending N] [--shapes N] [--json]\n"
    "\n"
    "Replays a workload log through the scheduler; `muster simulate --help` explains the options.\n";

struct Arguments {
  std::string swf;
  std::string policy = "default";
  std::string backfill;
  std::string events = "batch";
  std::string dump;
  TraceOptions trace;
  bool json = false;
  bool bench = false;
  bool help = false;
  FullClusterOptions cluster;
  std::string cluster_option;  // the last one that was given
};

template <typename Value>
struct Choice {
  const char* name;
  Value value;
};
template <typename Value, std::size_t N>
Result<Value> choose(const Choice<Value> (&choices)[N], std::string_view word, const std::string& option) {
  std::string all;
  for (const auto& choice : choices) {
    if (word == choice.name) return choice.value;
    all += (all.empty() ? "" : " or ") + std::string(choice.name);
  }
  return invalid_argument(option + ": \"" + printable(word.substr(0, 40)) + "\" is unknown: use " + all);
}

constexpr Choice<TraceFilter> kFilters[] = {{"strict", TraceFilter::kStrict}, {"none", TraceFilter::kNone}};
constexpr Choice<TraceWidth> kWidths[] = {
    {"req", TraceWidth::kRequested}, {"alloc", TraceWidth::kAllocated}, {"max", TraceWidth::kLargest}};
constexpr Choice<bool> kEstimates[] = {{"user", false}, {"run", true}};
constexpr Choice<ReplayEvents> kEvents[] = {{"batch", ReplayEvents::kBatch}, {"seq", ReplayEvents::kSeq}};

enum Option {
  kSwf = 1,
  kPolicy,
  kBackfill,
  kEventsOption,
  kEstimatesOption,
  kProcs,
  kFilter,
  kMachine,
  kJobs,
  kDump,
  kJson,
  kBench,
  kNodes,
  kCores,
  kGpus,
  kPending,
  kShapes,
  kHelp,
};

// More than these no cluster has, and the memory of the measurement stays bearable.
constexpr std::uint64_t kBenchNodesMax = 100'000;
constexpr std::uint64_t kBenchCoresMax = 1'024;
constexpr std::uint64_t kBenchGpusMax = 64;
constexpr std::uint64_t kBenchPendingMax = 2'000'000;
constexpr std::uint64_t kBenchShapesMax = 100'000;

template <typename Count>
Status read_count(const char* value, const char* option, CountRange range, Count& out, Arguments& arguments) {
  MUSTER_ASSIGN(const std::uint64_t count, parse_count(value, option, range));
  out = static_cast<Count>(count);
  arguments.cluster_option = option;
  return ok_status();
}

Status read_option(int option, const char* value, Arguments& arguments) {
  switch (option) {
    case kSwf:
      arguments.swf = value;
      return ok_status();
    case kPolicy:
      arguments.policy = value;
      return ok_status();
    case kBackfill:
      arguments.backfill = value;
      return *value == '\0' ? Status(invalid_argument("--backfill needs a name")) : ok_status();
    case kEventsOption:
      arguments.events = value;
      return ok_status();
    case kEstimatesOption: {
      MUSTER_ASSIGN(arguments.trace.perfect_estimates, choose(kEstimates, value, "--estimates"));
      return ok_status();
    }
    case kProcs: {
      MUSTER_ASSIGN(arguments.trace.width, choose(kWidths, value, "--procs"));
      return ok_status();
    }
    case kFilter: {
      MUSTER_ASSIGN(arguments.trace.filter, choose(kFilters, value, "--filter"));
      return ok_status();
    }
    case kMachine: {
      const CountRange range{1, static_cast<std::uint64_t>(kReplayMachineMax)};
      MUSTER_ASSIGN(const std::uint64_t cores, parse_count(value, "--machine", range));
      arguments.trace.machine = static_cast<std::int64_t>(cores);
      return ok_status();
    }
    case kJobs: {
      MUSTER_ASSIGN(arguments.trace.jobs_max, parse_count(value, "--jobs", CountRange{1, UINT64_MAX}));
      return ok_status();
    }
    case kDump:
      arguments.dump = value;
      return *value == '\0' ? Status(invalid_argument("--dump needs a file")) : ok_status();
    case kJson:
      arguments.json = true;
      return ok_status();
    case kBench:
      arguments.bench = true;
      return ok_status();
    case kNodes:
      return read_count(value, "--nodes", {1, kBenchNodesMax}, arguments.cluster.nodes, arguments);
    case kCores:
      return read_count(value, "--cores", {1, kBenchCoresMax}, arguments.cluster.cores, arguments);
    case kGpus:
      return read_count(value, "--gpus", {0, kBenchGpusMax}, arguments.cluster.gpus, arguments);
    case kPending:
      return read_count(value, "--pending", {1, kBenchPendingMax}, arguments.cluster.pending, arguments);
    case kShapes:
      return read_count(value, "--shapes", {1, kBenchShapesMax}, arguments.cluster.shapes, arguments);
    case kHelp:
      arguments.help = true;
      return ok_status();
    default:
      return invalid_argument("unknown option: see muster simulate --help");
  }
}

Result<Arguments> read_arguments(int argc, char** argv) {
  const option options[] = {{"swf", required_argument, nullptr, kSwf},
                            {"policy", required_argument, nullptr, kPolicy},
                            {"backfill", required_argument, nullptr, kBackfill},
                            {"events", required_argument, nullptr, kEventsOption},
                            {"estimates", required_argument, nullptr, kEstimatesOption},
                            {"procs", required_argument, nullptr, kProcs},
                            {"filter", required_argument, nullptr, kFilter},
                            {"machine", required_argument, nullptr, kMachine},
                            {"jobs", required_argument, nullptr, kJobs},
                            {"dump", required_argument, nullptr, kDump},
                            {"json", no_argument, nullptr, kJson},
                            {"bench", no_argument, nullptr, kBench},
                            {"nodes", required_argument, nullptr, kNodes},
                            {"cores", required_argument, nullptr, kCores},
                            {"gpus", required_argument, nullptr, kGpus},
                            {"pending", required_argument, nullptr, kPending},
                            {"shapes", required_argument, nullptr, kShapes},
                            {"help", no_argument, nullptr, kHelp},
                            {nullptr, 0, nullptr, 0}};
  Arguments arguments;
  optind = 1;
  opterr = 0;
  for (;;) {
    const int option = getopt_long(argc, argv, ":", options, nullptr);
    if (option == -1) break;
    if (option == ':') {
      return invalid_argument("option " + printable(argv[optind - 1]) + " needs a value: write it after the option");
    }
    if (option == '?') {
      return invalid_argument("unknown option " + printable(argv[optind - 1]) + ": see muster simulate --help");
    }
    MUSTER_TRY(read_option(option, optarg, arguments));
  }
  if (arguments.help) return arguments;
  if (optind != argc) {
    return invalid_argument("simulate: \"" + printable(argv[optind]) + "\" is no option: name the log with --swf FILE");
  }
  if (arguments.swf.empty() && !arguments.bench) {
    return invalid_argument("--swf is missing: muster simulate --swf FILE, or --bench to measure planning");
  }
  if (!arguments.cluster_option.empty() && (!arguments.bench || !arguments.swf.empty())) {
    return invalid_argument(arguments.cluster_option + " is for --bench without --swf: leave it out, or --swf");
  }
  return arguments;
}

class Reporter {
 public:
  explicit Reporter(const char* program) {
    const std::string_view path = program;
    name_ = path.substr(path.find_last_of('/') + 1);
  }
  void line(const std::string& message) const {
    std::fprintf(stderr, "%s: %s\n", name_.c_str(), printable(message).c_str());
  }

 private:
  std::string name_;
};

// One line on the terminal that is written over, once the replay has lasted a while.
class Progress {
 public:
  explicit Progress(std::size_t jobs) : jobs_(jobs) {}
  ~Progress() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void tell(std::uint64_t ended) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    next_ = now + kProgressEvery;
    shown_ = true;
    std::fprintf(stderr, "\r%llu of %llu jobs", static_cast<unsigned long long>(ended),
                 static_cast<unsigned long long>(jobs_));
    std::fflush(stderr);
  }

 private:
  std::size_t jobs_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now() + kProgressAfter;
};

Status run(const Arguments& arguments, const ReplayPolicy& policy, ReplayEvents events, const Reporter& reporter) {
  if (!arguments.dump.empty()) MUSTER_TRY(check_dump_path(arguments.dump));
  MUSTER_ASSIGN(const SwfLog log, read_swf(arguments.swf));
  for (const std::string& bad : log.first_bad) reporter.line(arguments.swf + ": " + bad + ": left out");
  if (log.bad_lines > log.first_bad.size()) {
    reporter.line(arguments.swf + ": " + std::to_string(log.bad_lines) + " bad lines in all, of " +
                  std::to_string(log.lines));
  }
  auto trace = select_jobs(log, arguments.trace);
  if (!trace.ok()) return make_error(trace.error().code, arguments.swf + ": " + trace.error().message);

  ReplayOptions options;
  options.events = events;
  options.keep_pass_times = arguments.bench;
  std::optional<Progress> progress;
  if (::isatty(STDERR_FILENO) == 1) {
    progress.emplace(trace->jobs.size());
    options.progress = [&](std::uint64_t ended) { progress->tell(ended); };
  }
  auto result = replay(*trace, policy, options);
  progress.reset();
  if (!result.ok()) return make_error(result.error().code, arguments.swf + ": " + result.error().message);
  if (!arguments.dump.empty()) MUSTER_TRY(write_dump(arguments.dump, *trace, *result));

  const ReportFacts facts{.policy = policy.name,
                          .backfill = policy.backfill,
                          .events = arguments.events,
                          .dropped = trace->dropped,
                          .bad_lines = log.bad_lines};
  const std::string report = arguments.json ? report_json(*trace, *result, facts) : report_text(*trace, *result, facts);
  if (std::fputs(report.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
    return make_error(ErrorCode::kIo, "cannot write the report: standard output is closed or full");
  }
  return ok_status();
}

}  // namespace

int replay_command(int argc, char** argv) {
  const Reporter reporter(argv[0]);
  const auto usage_error = [&](const Error& error) {
    reporter.line(error.message);
    return kExitUsage;
  };
  const auto arguments = read_arguments(argc, argv);
  if (!arguments.ok()) return usage_error(arguments.error());
  if (arguments->help) {
    std::fputs(kUsage, stdout);
    return kExitOk;
  }
  if (arguments->swf.empty()) {
    const BenchResult result = run_bench(arguments->cluster);
    const std::string report =
        arguments->json ? bench_json(arguments->cluster, result) : bench_text(arguments->cluster, result);
    if (std::fputs(report.c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
      reporter.line("cannot write the report: standard output is closed or full");
      return kExitFailed;
    }
    return kExitOk;
  }
  const auto policy = find_policy(arguments->policy, arguments->backfill);
  if (!policy.ok()) return usage_error(policy.error());
  const auto events = choose(kEvents, arguments->events, "--events");
  if (!events.ok()) return usage_error(events.error());
  if (const Status status = run(*arguments, *policy, *events, reporter); !status.ok()) {
    reporter.line(status.error().message);
    return kExitFailed;
  }
  return kExitOk;
}

}  // namespace muster::sim

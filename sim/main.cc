// muster-sim: runs the controller's and the nodes' decisions in virtual time against faults drawn from a seed, and with
// `replay` as its first argument a workload log through the scheduler.
#include <getopt.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "lib/base/text.h"
#include "sim/replay/command.h"
#include "sim/world.h"

namespace {

using muster::sim::WorldOptions;
using muster::sim::WorldResult;

constexpr std::uint64_t kStepsMax = 1'000'000'000;
constexpr std::uint64_t kNodesMax = 1'000;

constexpr const char* kUsage =
    "Usage: muster-sim [--seed N | --seeds A-B] [--steps K] [--nodes M] [--verbose]\n"
    "       muster-sim replay --swf FILE [options]\n"
    "\n"
    "Runs the controller's and the nodes' decisions in virtual time, with lost, late and doubled messages, crashes "
    "and\n"
    "power cuts drawn from a seed, and checks the rules of docs/architecture.md after every step. One seed gives one "
    "run.\n"
    "\n"
    "      --seed N      the one run with this seed (default 1)\n"
    "      --seeds A-B   the runs with these seeds; stops at the first that fails\n"
    "      --steps K     events with faults in each run (default 2000); the calm end comes on top\n"
    "      --nodes M     nodes of the cluster (default: 1 to 5, from the seed)\n"
    "      --verbose     tell what happens\n"
    "      --help        this text\n";

// The line that repeats the run, kept ready for a failed MUSTER_CHECK inside it.
char g_repeat[256];

extern "C" void on_abort(int /*signal*/) {
  const ssize_t ignored = write(STDERR_FILENO, g_repeat, std::strlen(g_repeat));
  static_cast<void>(ignored);
}

struct Arguments {
  std::uint64_t first = 1;
  std::uint64_t last = 1;
  WorldOptions world;
  bool verbose = false;
};

muster::Result<std::uint64_t> count(const char* text, const char* option, std::uint64_t min, std::uint64_t max) {
  return muster::parse_count(text, option, muster::CountRange{min, max});
}

muster::Status read_seeds(const std::string& text, Arguments& arguments) {
  const std::size_t dash = text.find('-');
  if (dash == std::string::npos) return muster::invalid_argument("--seeds wants two numbers: give A-B, as in 1-300");
  MUSTER_ASSIGN(arguments.first, count(text.substr(0, dash).c_str(), "--seeds", 0, UINT64_MAX));
  MUSTER_ASSIGN(arguments.last, count(text.substr(dash + 1).c_str(), "--seeds", 0, UINT64_MAX));
  if (arguments.first > arguments.last) {
    return muster::invalid_argument("--seeds " + text + " is empty: give the smaller number first");
  }
  return muster::ok_status();
}

enum Option { kSeed = 1, kSeeds, kSteps, kNodes, kVerbose, kHelp };

muster::Status read_option(int option, const char* value, Arguments& arguments) {
  switch (option) {
    case kSeed: {
      MUSTER_ASSIGN(arguments.first, count(value, "--seed", 0, UINT64_MAX));
      arguments.last = arguments.first;
      return muster::ok_status();
    }
    case kSeeds:
      return read_seeds(value, arguments);
    case kSteps: {
      MUSTER_ASSIGN(arguments.world.steps, count(value, "--steps", 0, kStepsMax));
      return muster::ok_status();
    }
    case kNodes: {
      MUSTER_ASSIGN(const std::uint64_t nodes, count(value, "--nodes", 1, kNodesMax));
      arguments.world.nodes = static_cast<std::uint32_t>(nodes);
      return muster::ok_status();
    }
    case kVerbose:
      arguments.verbose = true;
      return muster::ok_status();
    default:
      return muster::invalid_argument("unknown option: see muster-sim --help");
  }
}

bool run_seed(std::uint64_t seed, const Arguments& arguments) {
  WorldOptions options = arguments.world;
  options.seed = seed;
  if (arguments.verbose) {
    options.log = [](const std::string& line) { std::printf("%s\n", line.c_str()); };
  }
  std::string repeat =
      "repeat with: muster-sim --seed " + std::to_string(seed) + " --steps " + std::to_string(options.steps);
  if (options.nodes != 0) repeat += " --nodes " + std::to_string(options.nodes);
  std::snprintf(g_repeat, sizeof g_repeat, "seed %llu aborted; %s\n", static_cast<unsigned long long>(seed),
                repeat.c_str());
  const WorldResult result = run_world(options);
  if (!result.problem.empty()) {
    std::printf("seed %llu FAILED after %llu steps: %s\n%s\n", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(result.steps), result.problem.c_str(), repeat.c_str());
    return false;
  }
  if (arguments.first == arguments.last) {
    std::printf("seed %llu: %llu steps, %llu jobs, %llu starts, %llu faults, fingerprint %016llx\n",
                static_cast<unsigned long long>(seed), static_cast<unsigned long long>(result.steps),
                static_cast<unsigned long long>(result.jobs), static_cast<unsigned long long>(result.starts),
                static_cast<unsigned long long>(result.faults), static_cast<unsigned long long>(result.fingerprint));
  }
  return true;
}

int run(const Arguments& arguments) {
  for (std::uint64_t seed = arguments.first;; ++seed) {
    if (!run_seed(seed, arguments)) return 1;
    if (seed == arguments.last) break;
  }
  if (arguments.first != arguments.last) {
    std::printf("seeds %llu to %llu: every rule held\n", static_cast<unsigned long long>(arguments.first),
                static_cast<unsigned long long>(arguments.last));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "replay") == 0) {
    argv[1] = argv[0];
    return muster::sim::replay_command(argc - 1, argv + 1);
  }
  const option options[] = {{"seed", required_argument, nullptr, kSeed},
                            {"seeds", required_argument, nullptr, kSeeds},
                            {"steps", required_argument, nullptr, kSteps},
                            {"nodes", required_argument, nullptr, kNodes},
                            {"verbose", no_argument, nullptr, kVerbose},
                            {"help", no_argument, nullptr, kHelp},
                            {nullptr, 0, nullptr, 0}};
  Arguments arguments;
  for (;;) {
    const int option = getopt_long(argc, argv, "", options, nullptr);
    if (option == -1) break;
    if (option == kHelp) {
      std::fputs(kUsage, stdout);
      return 0;
    }
    if (option == '?') {
      std::fputs("muster-sim: see muster-sim --help\n", stderr);
      return 2;
    }
    if (const muster::Status status = read_option(option, optarg, arguments); !status.ok()) {
      std::fprintf(stderr, "muster-sim: %s\n", status.error().message.c_str());
      return 2;
    }
  }
  if (optind != argc) {
    std::fprintf(stderr, "muster-sim: unexpected argument '%s': see muster-sim --help\n", argv[optind]);
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::signal(SIGABRT, on_abort);
  return run(arguments);
}

// muster-ctld: the controller daemon.
#include <getopt.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

#include "ctld/controller.h"
#include "ctld/recovery.h"
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/io/log.h"
#include "lib/io/loop.h"

namespace {

using namespace muster;

constexpr const char* kUsage =
    "usage: muster-ctld [--config FILE] [--set section.key=value]... [--check]\n"
    "\n"
    "The controller of a Muster cluster. Without --config: $MUSTER_CONFIG, or /etc/muster/muster.toml.\n"
    "  --config FILE            the configuration file\n"
    "  --set section.key=value  changes one key of it; may be repeated\n"
    "  --check                  checks configuration and keys, and exits\n"
    "  --make-snapshot DIR --upto SEQ  (used by the daemon itself) writes the snapshot of batch SEQ\n"
    "  --help, --version\n";

struct Arguments {
  std::string config;
  config::Overrides overrides;
  bool check = false;
  std::string snapshot_dir;
  std::string upto;
};

int complain(const std::string& message, int status) {
  std::fprintf(stderr, "muster-ctld: %s\n", message.c_str());
  return status;
}

// The exit status when there is nothing more to do, else -1.
int parse_arguments(int argc, char** argv, Arguments& out) {
  enum Option { kConfig = 1, kSet, kCheck, kMakeSnapshot, kUpto, kHelp, kVersion };
  static const option kOptions[] = {
      {"config", required_argument, nullptr, kConfig}, {"set", required_argument, nullptr, kSet},
      {"check", no_argument, nullptr, kCheck},         {"make-snapshot", required_argument, nullptr, kMakeSnapshot},
      {"upto", required_argument, nullptr, kUpto},     {"help", no_argument, nullptr, kHelp},
      {"version", no_argument, nullptr, kVersion},     {nullptr, 0, nullptr, 0}};
  opterr = 0;
  for (int code = 0; (code = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (code) {
      case kConfig:
        out.config = optarg;
        break;
      case kSet:
        out.overrides.emplace_back(optarg);
        break;
      case kCheck:
        out.check = true;
        break;
      case kMakeSnapshot:
        out.snapshot_dir = optarg;
        break;
      case kUpto:
        out.upto = optarg;
        break;
      case kHelp:
        std::fputs(kUsage, stdout);
        return 0;
      case kVersion:
        std::puts("muster-ctld 0.1.0");
        return 0;
      default:
        return complain(std::string(argv[optind - 1]) + ": unknown option, or its value is missing: see --help", 2);
    }
  }
  return optind < argc ? complain(std::string(argv[optind]) + ": there are no operands: see --help", 2) : -1;
}

int run_snapshot(const Arguments& arguments) {
  const auto seq = parse_count(arguments.upto, "--upto", {1, INT64_MAX});
  if (!seq.ok()) {
    return complain(seq.error().message, 2);
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a daemon that is killed leaves no helper behind
  if (nice(10) == -1) {
    // The daemon goes first where it can; where not, it is only slower.
  }
  const Status status = ctld::make_snapshot(arguments.snapshot_dir, *seq);
  return status.ok() ? 0 : complain(status.error().message, 1);
}

// Each node and each client is a connection.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

int run_daemon(const Arguments& arguments) {
  const auto path = config::find_config_path(arguments.config);
  if (!path.ok()) {
    return complain(path.error().message, 1);
  }
  const auto config = config::load(*path, arguments.overrides);
  if (!config.ok()) {
    return complain(config.error().message, 1);
  }
  if (arguments.check) {
    const Status status = ctld::check_setup(*config);
    return status.ok() ? 0 : complain(status.error().message, 1);
  }
  const auto level = io::parse_log_level(config->log.level);
  if (!level.ok()) {
    return complain(level.error().message, 1);
  }
  if (const Status status = io::log_init(*level, config->log.file); !status.ok()) {
    return complain(status.error().message, 1);
  }
  umask(077);
  raise_descriptor_limit();
  std::signal(SIGPIPE, SIG_IGN);

  int exit_status = 1;
  io::Loop loop;
  {
    auto controller = ctld::Controller::start(loop, *config, [&](int status) {
      exit_status = status;
      loop.stop();
    });
    if (!controller.ok()) {
      io::log_error("muster-ctld cannot start", {{"error", controller.error().message}});
      return complain(controller.error().message, 1);
    }
    const auto stop = [&](int) { (*controller)->stop(); };
    const io::SignalWatcher on_term(loop, SIGTERM, stop);
    const io::SignalWatcher on_int(loop, SIGINT, stop);
    loop.run();
  }
  return exit_status;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (const int status = parse_arguments(argc, argv, arguments); status >= 0) {
    return status;
  }
  return arguments.snapshot_dir.empty() ? run_daemon(arguments) : run_snapshot(arguments);
}

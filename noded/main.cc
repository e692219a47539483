// muster-noded: the daemon of a node. It launches, stops and reports what the controller orders, and serves steps and
// logs to clients and peers. It never runs user code itself: each attempt has a shepherd, which outlives it.
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/topo/node_class.h"
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/keys.h"
#include "lib/io/log.h"
#include "lib/io/loop.h"
#include "lib/io/process.h"
#include "lib/io/zap.h"
#include "lib/io/zmq_socket.h"
#include "lib/model/node_topology_text.h"
#include "lib/wire/codec.h"
#include "noded/attempt_table.h"
#include "noded/controller_link.h"
#include "noded/discover/site_choices.h"
#include "noded/discover/topology.h"
#include "noded/enforcement.h"
#include "noded/gpu_devices.h"
#include "noded/health_monitor.h"
#include "noded/spool.h"
#include "noded/step_service.h"

namespace muster::noded {
namespace {

constexpr const char* kUsage =
    "usage: muster-noded [--config FILE] [--name NAME] [--set SECTION.KEY=VALUE]... [--boot-id ID]\n"
    "  --config FILE   configuration; without it $MUSTER_CONFIG, then /etc/muster/muster.toml\n"
    "  --name NAME     name of this node; without it [node] name, then the host name\n"
    "  --set KEY=VALUE replaces one value of the configuration\n"
    "  --boot-id ID    in place of the kernel's: a change of it means that the node was restarted\n"
    "  --show-topology SPEC  print what is seen of a machine and how its GPUs are connected, and end; SPEC as [node]\n"
    "                  topology, '' for this machine\n"
    "  --version, --help\n";

constexpr std::size_t kGroupsFileBytesMax = 64U << 10U;

struct CommandLine {
  std::string config;
  std::string name;
  std::string boot_id;
  config::Overrides overrides;
  std::optional<std::string> show_topology;
  bool run_checks = false;  // the daemon starts itself so
  std::vector<std::string> arguments;
  bool help = false;
  bool version = false;
};

Result<CommandLine> parse_command_line(int argc, char** argv) {
  CommandLine out;
  const option options[] = {{"config", required_argument, nullptr, 'c'},
                            {"name", required_argument, nullptr, 'n'},
                            {"set", required_argument, nullptr, 's'},
                            {"boot-id", required_argument, nullptr, 'b'},
                            {"show-topology", required_argument, nullptr, 't'},
                            {kRunChecksOption, no_argument, nullptr, 'r'},
                            {"help", no_argument, nullptr, 'h'},
                            {"version", no_argument, nullptr, 'v'},
                            {nullptr, 0, nullptr, 0}};
  opterr = 0;
  for (int c = 0; (c = getopt_long(argc, argv, "+h", options, nullptr)) != -1;) {
    switch (c) {
      case 'c':
        out.config = optarg;
        break;
      case 'n':
        out.name = optarg;
        break;
      case 's':
        out.overrides.emplace_back(optarg);
        break;
      case 'b':
        out.boot_id = optarg;
        break;
      case 't':
        out.show_topology = optarg;
        break;
      case 'r':
        out.run_checks = true;
        out.arguments.assign(argv + optind, argv + argc);
        return out;
      case 'h':
        out.help = true;
        break;
      case 'v':
        out.version = true;
        break;
      default:
        return invalid_argument("unknown option, or one without its value: " + printable(argv[optind - 1]) +
                                ": see --help");
    }
  }
  if (optind < argc) {
    return invalid_argument("unexpected argument " + printable(argv[optind]) + ": see --help");
  }
  return out;
}

Result<std::string> host_name() {
  char buffer[256] = {};
  if (::gethostname(buffer, sizeof(buffer) - 1) != 0) {
    return make_error(ErrorCode::kIo, "the host has no name: set [node] name, or give --name");
  }
  return std::string(buffer);
}

// "tcp://*:7000" is no address that others reach: the host's name takes the place of the wildcard.
Result<std::string> reachable(const std::string& bound, const std::string& advertise) {
  if (!advertise.empty()) {
    // A port of 0 or * stands for the one really bound.
    const auto colon = advertise.rfind(':');
    const std::string port = advertise.substr(colon + 1);
    return port == "0" || port == "*" ? advertise.substr(0, colon) + bound.substr(bound.rfind(':')) : advertise;
  }
  for (const std::string_view any : {"tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:"}) {
    if (bound.starts_with(any)) {
      MUSTER_ASSIGN(const std::string host, host_name());
      return "tcp://" + host + bound.substr(bound.rfind(':'));
    }
  }
  return bound;
}

std::string resolved(const std::string& path) {
  char buffer[PATH_MAX];
  return ::realpath(path.c_str(), buffer) != nullptr ? std::string(buffer) : std::string();
}

Result<NodeIdentity> identity_of(const config::Config& config, const std::string& name) {
  NodeIdentity identity;
  identity.name = name;
  identity.cluster = config.cluster.name;
  identity.bin_dir = io::program_dir();
  if (config.slurm.names) {
    identity.slurm_dir = resolved(identity.bin_dir + "/../libexec/muster/slurm");
    if (identity.slurm_dir.empty()) {
      io::log_warning("no Slurm-named commands for jobs: mpirun will not find srun",
                      {{"folder", identity.bin_dir + "/../libexec/muster/slurm"}});
    }
  }
  MUSTER_ASSIGN(NodeTopology found, discover_topology(config.node.topology, config.node.memory_mib));
  MUSTER_ASSIGN(NodeTopology topology,
                with_site_choices(std::move(found), {.system_cores = config.node.system_cores,
                                                     .leave_siblings = config.node.smt == "leave",
                                                     .gpu_partitions = config.node.gpu_partitions,
                                                     .gpu_partition_uuids = config.node.gpu_partition_uuids}));
  identity.hardware = hardware_of(topology);
  identity.topology = std::make_shared<const NodeTopology>(std::move(topology));
  identity.node_class = std::make_shared<const topo::NodeClass>(*identity.topology);
  MUSTER_ASSIGN(identity.features, config::node_features_of(config));
  identity.has_prolog = !config.node.prolog.empty();
  return identity;
}

HealthMonitorOptions health_options_of(const config::Config& config, const NodeIdentity& identity,
                                       const std::string& spool_dir) {
  HealthMonitorOptions out;
  out.program = identity.bin_dir + "/muster-noded";
  out.interval = config.node.health_interval;
  out.clock_max = config.node.health_clock_max;
  HealthChecks& checks = out.checks;
  checks.dirs = {spool_dir};
  checks.dirs.insert(checks.dirs.end(), config.node.health_dirs.begin(), config.node.health_dirs.end());
  checks.disk_min_mib = config.node.health_disk_min_mib;
  checks.inodes_min = config.node.health_inodes_min;
  checks.gpu_devices = gpu_device_paths(config.node.gpu_devices);
  checks.timeout_s = config.node.health_timeout.seconds();
  checks.program = config.node.health_program;
  if (!checks.program.empty()) {
    checks.program_environment = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                  "MUSTER_NODE_NAME=" + identity.name, "MUSTER_CLUSTER=" + identity.cluster};
  }
  watch_hardware(identity.hardware, config.node.topology, config.node.memory_mib, checks);
  return out;
}

void write_groups_file(const std::string& path, const std::vector<std::string>& groups) {
  std::string text;
  for (const std::string& group : groups) {
    text += group.empty() ? "" : group + "\n";
  }
  if (text.empty()) {
    ::unlink(path.c_str());
  } else if (const Status status = io::write_file_atomic(path, text, 0644); !status.ok()) {
    io::log_warning("cannot write", {{"error", status.error().message}});
  }
}

// The groups of cgroup v1 that an earlier life used, by a configuration that may have been another.
std::vector<std::string> earlier_groups(const std::string& path) {
  std::vector<std::string> out;
  if (const auto text = io::read_file(path, kGroupsFileBytesMax); text.ok()) {
    for (const std::string_view line : split(*text, '\n')) {
      if (line.starts_with("/")) {
        out.emplace_back(line);
      }
    }
  }
  return out;
}

// Where attempts may have groups: those of now, and those of before that are still there.
struct NodeGroups {
  Enforcement enforcement;
  std::vector<std::string> parents;
};

Result<NodeGroups> choose_groups(const config::Config& config, const std::string& spool_dir, bool pretended,
                                 bool has_devices) {
  EnforcementOptions options;
  options.cgroup = config.node.cgroup;
  options.spool_dir = spool_dir;
  options.cpus = !pretended;
  options.memory = config.node.enforce_memory;
  options.processes = config.node.pids_max != 0;
  options.devices = has_devices;
  options.isolate = config.node.isolate == "on" || (config.node.isolate == "auto" && ::geteuid() == 0 && !pretended);
  const std::string others_file = spool_dir + "/cgroups";
  std::vector<std::string> parents = earlier_groups(others_file);
  NodeGroups out;
  MUSTER_ASSIGN(out.enforcement,
                choose_enforcement(options, [&](const std::string& tree, const std::vector<std::string>& others) {
                  write_groups_file(spool_dir + "/cgroup", {tree});
                  for (const std::string& other : others) {
                    if (std::find(parents.begin(), parents.end(), other) == parents.end()) {
                      parents.push_back(other);
                    }
                  }
                  write_groups_file(others_file, parents);
                }));
  std::erase_if(parents, [](const std::string& group) { return ::access(group.c_str(), F_OK) != 0; });
  write_groups_file(others_file, parents);
  out.parents = std::move(parents);
  for (const EnforcedBy& one : out.enforcement.statement) {
    io::log_info("enforced", {{"function", one.function}, {"by", one.by}});
  }
  return out;
}

Status run(const CommandLine& options) {
  MUSTER_ASSIGN(const std::string path, config::find_config_path(options.config));
  MUSTER_ASSIGN(const config::Config config, config::load(path, options.overrides));
  MUSTER_ASSIGN(const io::LogLevel level, io::parse_log_level(config.log.level));
  MUSTER_TRY(io::log_init(level, config.log.file));
  std::string name = !options.name.empty() ? options.name : config.node.name;
  if (name.empty()) {
    MUSTER_ASSIGN(name, host_name());
  }
  if (!is_valid_node_name(name)) {
    return invalid_argument("node name '" + printable(name) +
                            "': 1 to 63 letters, digits, '_', '.' or '-' are accepted");
  }
  if (config.cluster.controller.empty()) {
    return invalid_argument(path + ": [cluster] controller is missing: name the controller's address");
  }
  MUSTER_ASSIGN(const io::Key key, io::load_key(config.cluster.key));
  MUSTER_ASSIGN(const io::PublicKey cluster_key, io::load_public_key(config.cluster.controller_key));
  std::string boot_id = options.boot_id;
  if (boot_id.empty()) {
    MUSTER_ASSIGN(boot_id, io::boot_id());
  }
  MUSTER_ASSIGN(NodeIdentity identity, identity_of(config, name));
  MUSTER_ASSIGN(const std::string shepherd, io::find_program("muster-shepherd"));
  // The daemon and its shepherds compare paths, so the spool has one spelling.
  MUSTER_TRY(io::make_dirs(config.node.spool_dir, 0755));
  const std::string spool_dir = resolved(config.node.spool_dir);
  MUSTER_ASSIGN(Spool spool, Spool::open(spool_dir));
  MUSTER_ASSIGN(std::vector<std::vector<DeviceNumber>> devices,
                gpu_devices(identity.hardware, config.node.gpu_devices));
  const bool has_devices =
      !config.node.gpu_devices.empty() ||
      std::any_of(devices.begin(), devices.end(), [](const auto& of_one) { return !of_one.empty(); });
  MUSTER_ASSIGN(const NodeGroups groups, choose_groups(config, spool_dir, identity.hardware.pretended, has_devices));
  const std::string& cgroup = groups.enforcement.tree;
  identity.enforcement = groups.enforcement.statement;

  io::Loop loop;
  io::ZmqContext context;
  MUSTER_ASSIGN(const auto zap, io::ZapHandler::accept_any(context));
  std::optional<StepService> steps;
  io::ZmqOptions router_options;
  router_options.curve_server = io::CurveServer{key.curve_secret};
  router_options.message_bytes_max = static_cast<std::int64_t>(wire::kMessageBytesMax);
  auto router = io::ZmqSocket::create(loop, context, io::ZmqSocket::Type::kRouter, router_options,
                                      [&steps](const io::ZmqMessage& message) {
                                        if (steps) {
                                          steps->on_message(message);
                                        }
                                      });
  if (!router.ok()) {
    return router.error();
  }
  auto bound = router->bind(config.node.listen);
  if (!bound.ok()) {
    return make_error(bound.error().code, "[node] listen: " + bound.error().message);
  }
  MUSTER_ASSIGN(identity.endpoint, reachable(*bound, config.node.advertise));
  identity.public_key = key.pub.curve_public;

  std::optional<ControllerLink> link;
  HealthMonitorOptions health_options = health_options_of(config, identity, spool_dir);
  health_options.loop = &loop;
  health_options.on_change = [&link] {
    if (link) {
      link->report_health();
    }
  };
  HealthMonitor health(std::move(health_options));
  AttemptTableOptions table_options;
  table_options.loop = &loop;
  table_options.boot_id = boot_id;
  table_options.shepherd = shepherd;
  table_options.cgroup_parent = cgroup;
  table_options.controls = groups.enforcement.controls;
  table_options.enforce_memory = config.node.enforce_memory;
  table_options.pids_max = config.node.pids_max;
  table_options.isolate = groups.enforcement.isolate;
  table_options.gpu_devices = std::move(devices);
  table_options.gpu_device_setting = config.node.gpu_devices;
  table_options.group_parents = groups.parents;
  table_options.kill_grace = config.node.kill_grace;
  table_options.prolog = config.node.prolog;
  table_options.prolog_timeout = config.node.prolog_timeout;
  table_options.epilog = config.node.epilog;
  table_options.epilog_timeout = config.node.epilog_timeout;
  table_options.identity = identity;
  table_options.report = [&link](const AttemptReport& report) {
    if (link) {
      link->report(report);
    }
  };
  table_options.trouble = [&health] { health.look_again(); };
  AttemptTable attempts(std::move(table_options), std::move(spool));
  MUSTER_TRY(attempts.recover());

  StepServiceOptions step_options;
  step_options.loop = &loop;
  step_options.context = &context;
  step_options.attempts = &attempts;
  step_options.node_key = key;
  step_options.cluster_key = cluster_key;
  step_options.send = [&router](const std::string& peer, const std::vector<std::string>& frames) {
    return router->send_to(peer, frames);
  };
  steps.emplace(std::move(step_options));

  ControllerLinkOptions link_options;
  link_options.loop = &loop;
  link_options.context = &context;
  link_options.attempts = &attempts;
  link_options.endpoints = config.cluster.controller;
  link_options.key = key;
  link_options.controller_key = cluster_key.curve_public;
  link_options.heartbeat_interval = config.node.heartbeat_interval;
  link_options.boot_id = boot_id;
  link_options.health = [&health] { return health.problems(); };
  link_options.check_health = [&health] { health.check_now(); };
  link_options.clock = [&health](Duration ahead, Duration round_trip) { health.on_clock(ahead, round_trip); };
  link.emplace(std::move(link_options));
  // What the checks find is part of the registration.
  Status started = ok_status();
  health.start([&] {
    started = link->start();
    if (!started.ok()) {
      loop.stop();
    }
  });

  const auto stop = [&loop](int signal_number) {
    io::log_info("stopping; jobs go on", {{"signal", signal_number}});
    loop.stop();
  };
  const io::SignalWatcher terminate(loop, SIGTERM, stop);
  const io::SignalWatcher interrupt(loop, SIGINT, stop);
  ::signal(SIGPIPE, SIG_IGN);
  io::log_info("node daemon started", {{"node", name},
                                       {"pid", ::getpid()},
                                       {"listen", identity.endpoint},
                                       {"cpus", identity.hardware.cores.size()},
                                       {"gpus", identity.hardware.gpus.size()},
                                       {"mem_mib", identity.hardware.mem_mib},
                                       {"pretended", identity.hardware.pretended},
                                       {"cgroup", cgroup}});
  loop.run();
  link.reset();
  steps.reset();
  for (const std::string& group : groups.parents) {
    ::rmdir(group.c_str());
  }
  if (!cgroup.empty()) {
    ::rmdir(cgroup.c_str());  // refused while jobs run, as the others are
  }
  return started;
}

Status print_topology(const std::string& topology) {
  MUSTER_ASSIGN(const NodeTopology found, discover_topology(topology, 0));
  std::fputs(show_topology(found).c_str(), stdout);
  return ok_status();
}

}  // namespace
}  // namespace muster::noded

int main(int argc, char** argv) {
  using namespace muster;
  auto options = noded::parse_command_line(argc, argv);
  if (!options.ok()) {
    std::fprintf(stderr, "muster-noded: %s\n", options.error().message.c_str());
    return 2;
  }
  if (options->help) {
    std::fputs(noded::kUsage, stdout);
    return 0;
  }
  if (options->version) {
    std::puts("muster-noded " MUSTER_VERSION);
    return 0;
  }
  if (options->run_checks) {
    auto checks = noded::from_arguments(options->arguments);
    if (!checks.ok()) {
      std::fprintf(stderr, "muster-noded: %s\n", checks.error().message.c_str());
      return 2;
    }
    return noded::run_health_checks(*checks);
  }
  const Status status = options->show_topology ? noded::print_topology(*options->show_topology) : noded::run(*options);
  if (!status.ok()) {
    std::fprintf(stderr, "muster-noded: %s\n", status.error().message.c_str());
    return 1;
  }
  return 0;
}

// muster local: a whole cluster of the calling user on this machine. docs/adr/0011-pretended-nodes.md says what a node
// is.
#include <arpa/inet.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "cli/local_files.h"
#include "cli/query.h"
#include "cli/report.h"
#include "cli/table.h"
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/keys.h"
#include "lib/io/process.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

// How long start, add and restart wait for the daemons unless --timeout says otherwise.
constexpr Duration kPatience = Duration::from_s(20);
// A daemon that was told to end gets this long before it is killed.
constexpr Duration kStopGrace = Duration::from_s(5);
constexpr Duration kPollPause = Duration::from_ms(10);
constexpr std::size_t kFileBytesMax = 4U << 20U;

volatile sig_atomic_t g_interrupted = 0;

using Values = std::vector<std::pair<std::string, std::string>>;

class LocalCluster {
 public:
  LocalCluster(std::string name, std::string dir, Duration patience) : dir_(std::move(dir)), patience_(patience) {
    record_.name = std::move(name);
  }

  Status start(std::uint32_t nodes, std::vector<std::string> topologies, std::vector<std::string> sets);
  Status add(std::uint32_t nodes, const std::vector<std::string>& topologies);
  Status stop();
  Status restart(const std::string& daemon);
  Status kill_daemon(const std::string& daemon);
  std::vector<DaemonStatus> status();

  // Reads the record; kNotFound when there is no such cluster.
  Status load();
  // Reads it and keeps others from changing the cluster: one command at a time does.
  Status take();
  [[nodiscard]] std::string config_path() const { return dir_ + "/" + std::string(kLocalConfigName); }
  [[nodiscard]] const LocalRecord& record() const { return record_; }

 private:
  [[nodiscard]] std::string node_name(std::uint32_t index) const { return "n" + std::to_string(index + 1); }
  [[nodiscard]] std::string node_dir(std::uint32_t index) const { return dir_ + "/" + node_name(index); }
  [[nodiscard]] std::string log_path(const std::string& daemon) const { return dir_ + "/log/" + daemon + ".log"; }
  [[nodiscard]] std::string init_socket(std::uint32_t index) const {
    return record_.run_base + "/" + node_name(index) + ".init";
  }
  [[nodiscard]] std::string record_path() const { return dir_ + "/" + std::string(kLocalRecordName); }
  [[nodiscard]] bool anything_running();

  Status lock();
  Status make_own_folder();
  Status take_own_folder();
  Status make_folders();
  Status make_keys(const std::string& name, io::KeyKind kind);
  Status write_authorized();
  Status write_hosts();
  Status write_cluster_config(const std::string& listen);
  Status write_node_config(std::uint32_t index, const std::string& listen);
  Status save();
  Status start_controller(Duration deadline);
  Status start_init(std::uint32_t index, Duration deadline);
  Status prepare_nodes(std::uint32_t first, std::uint32_t count);
  Status start_nodes(std::uint32_t first, std::uint32_t count, Duration deadline);
  // Until the controller hears these nodes (with the boot ids they have now).
  Status wait_connected(const std::vector<std::uint32_t>& indices, Duration deadline);
  Status fix_port(Client& connection, std::uint32_t index);
  Result<std::unique_ptr<Client>> client(Duration timeout);
  Result<std::uint32_t> index_of(const std::string& daemon) const;
  Result<pid_t> spawn_daemon(const std::vector<std::string>& argv, const std::string& log);
  Status wait_for(Duration deadline, const std::string& what, const std::function<Result<bool>()>& ready);
  void end_everything();
  void remove_contents();
  void remove_files();

  [[nodiscard]] std::string late(const std::string& what) const;

  std::string dir_;
  Duration patience_;
  LocalRecord record_;
  std::optional<io::PidLock> lock_;
};

Duration deadline_in(Duration span) {
  return io::boottime_now() + span;
}

Status LocalCluster::lock() {
  auto lock = io::PidLock::take(dir_ + "/lock");
  if (!lock.ok() && lock.error().code != ErrorCode::kAlreadyExists) return lock.error();
  if (!lock.ok())
    return make_error(ErrorCode::kRefused, "cluster " + record_.name + ": another `muster local` works on it (" +
                                               lock.error().message + "): wait for it");
  lock_ = std::move(*lock);
  return ok_status();
}

Status LocalCluster::take() {
  MUSTER_TRY(load());  // a folder that holds no cluster gets no lock file either
  MUSTER_TRY(lock());
  auto status = load();  // another command may have changed or stopped it until this one had the lock
  if (!status.ok() && status.error().code == ErrorCode::kNotFound) (void)io::remove_tree(dir_ + "/lock").ok();
  return status;
}

Status LocalCluster::load() {
  const std::string name = record_.name;
  if (!io::path_exists(record_path())) {
    return make_error(ErrorCode::kNotFound, "cluster " + name + ": there is none in " + dir_ +
                                                ": start it with muster local start --nodes N");
  }
  MUSTER_ASSIGN(const std::string text, io::read_file(record_path(), kFileBytesMax));
  MUSTER_ASSIGN(record_, parse_record(text, record_path()));
  return ok_status();
}

Status LocalCluster::save() {
  return io::write_file_atomic(record_path(), format_record(record_), 0600);
}

bool LocalCluster::anything_running() {
  if (is_running(record_.controller)) return true;
  return std::any_of(record_.inits.begin(), record_.inits.end(), is_running);
}

// Names below /tmp can be guessed, and the folder holds keys: nobody else may have made it first.
Status check_own_folder(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == geteuid()) return ok_status();
  return make_error(ErrorCode::kPermissionDenied, path + ": it is not a folder of yours: use another --dir");
}

Status LocalCluster::make_own_folder() {
  MUSTER_TRY(io::make_dirs(dir_, 0700));
  return check_own_folder(dir_);
}

Status LocalCluster::take_own_folder() {
  // A stop that ends just now may take the folder away before it is locked.
  constexpr int kTries = 100;
  Status status = ok_status();
  for (int i = 0; i < kTries; ++i) {
    status = make_own_folder();
    if (status.ok()) status = lock();
    if (status.ok() || status.error().code != ErrorCode::kNotFound) break;
  }
  if (status.ok()) record_.made_dir = holds_only(dir_, "lock");
  return status;
}

Status LocalCluster::make_folders() {
  MUSTER_TRY(io::make_dirs(record_.run_base, 0700));
  MUSTER_TRY(check_own_folder(record_.run_base));
  MUSTER_TRY(io::make_dirs(dir_ + "/log", 0700));
  return io::make_dirs(dir_ + "/ctld", 0700);
}

Status LocalCluster::make_keys(const std::string& name, io::KeyKind kind) {
  return io::write_key_files(dir_ + "/" + name + ".key", io::generate_key(kind));
}

Status LocalCluster::write_authorized() {
  MUSTER_ASSIGN(const io::PublicKey user, io::load_public_key(dir_ + "/user.key.pub"));
  std::string text = "user " + caller_name() + " " + user.curve_public + " admin\n";
  for (std::uint32_t i = 0; i < record_.nodes; ++i) {
    MUSTER_ASSIGN(const io::PublicKey node, io::load_public_key(dir_ + "/" + node_name(i) + ".key.pub"));
    text += "node " + node_name(i) + " " + node.curve_public + "\n";
  }
  return io::write_file_atomic(dir_ + "/authorized", text, 0600);
}

// The nodes' /etc/hosts: the machine's, and the nodes themselves. Written in place, because it is mounted in the nodes.
Status LocalCluster::write_hosts() {
  auto text = io::read_file("/etc/hosts", kFileBytesMax);
  std::string hosts = text.ok() ? *text : "127.0.0.1 localhost\n";
  if (!hosts.empty() && hosts.back() != '\n') hosts += '\n';
  for (std::uint32_t i = 0; i < record_.nodes; ++i) hosts += "127.0.0.1 " + node_name(i) + "\n";
  const std::string path = dir_ + "/hosts";
  const io::Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd.valid() || write(fd.get(), hosts.data(), hosts.size()) != static_cast<ssize_t>(hosts.size()))
    return io::errno_error("write", path, errno);
  return ok_status();
}

Status LocalCluster::write_cluster_config(const std::string& listen) {
  Values values = {{"cluster.name", record_.name},           {"cluster.controller_key", dir_ + "/cluster.key.pub"},
                   {"cluster.key", dir_ + "/user.key"},      {"controller.listen", listen},
                   {"controller.state_dir", dir_ + "/ctld"}, {"controller.authorized", dir_ + "/authorized"}};
  if (listen.find('*') == std::string::npos) values.emplace_back("cluster.controller", listen);
  // What the user set comes last, in place of ours where both name a key.
  for (const std::string& set : record_.sets) {
    const std::size_t equals = set.find('=');
    const std::string key = set.substr(0, equals);
    std::erase_if(values, [&](const auto& value) { return value.first == key; });
    values.emplace_back(key, set.substr(equals + 1));
  }
  auto text = config::format_config(values);
  if (!text.ok()) return invalid_argument("--set: " + text.error().message);
  // The whole is checked before anything starts; relative paths in it are relative to the cluster's folder.
  if (auto parsed = config::parse(*text, config_path(), dir_); !parsed.ok())
    return invalid_argument("--set: " + parsed.error().message);
  return io::write_file_atomic(config_path(), *text, 0600);
}

Status LocalCluster::write_node_config(std::uint32_t index, const std::string& listen) {
  const std::string name = node_name(index);
  const auto& topologies = record_.topologies;
  const std::string topology =
      topologies.empty() ? std::string(kDefaultTopology) : topologies[index % topologies.size()];
  MUSTER_ASSIGN(const config::Config shared, config::load(config_path()));
  Values values;
  if (!names_memory(topology)) values.emplace_back("node.memory", kDefaultMemory);
  // Few nodes on one machine: a controller that restarts is to be noticed at once.
  values.emplace_back("node.heartbeat_interval", "1s");
  const auto put = [&](const std::string& key, const std::string& value) {
    std::erase_if(values, [&](const auto& one) { return one.first == key; });
    values.emplace_back(key, value);
  };
  for (const std::string& set : record_.sets) {
    const std::size_t equals = set.find('=');
    put(set.substr(0, equals), set.substr(equals + 1));
  }
  put("cluster.name", record_.name);
  put("cluster.controller_key", dir_ + "/cluster.key.pub");
  put("cluster.controller", shared.cluster.controller.empty() ? "" : shared.cluster.controller.front());
  put("cluster.key", dir_ + "/" + name + ".key");
  put("node.name", name);
  put("node.listen", listen);
  put("node.spool_dir", node_dir(index) + "/spool");
  put("node.run_dir", record_.run_base + "/" + name);
  put("node.topology", topology);
  MUSTER_ASSIGN(const std::string text, config::format_config(values));
  return io::write_file_atomic(node_dir(index) + "/muster.toml", text, 0600);
}

std::string LocalCluster::late(const std::string& what) const {
  return what + " is not up after " + std::to_string(patience_.seconds()) + " s (--timeout)";
}

Status LocalCluster::wait_for(Duration deadline, const std::string& what, const std::function<Result<bool>()>& ready) {
  while (true) {
    MUSTER_ASSIGN(const bool done, ready());
    if (done) return ok_status();
    if (g_interrupted != 0)
      return make_error(ErrorCode::kRefused, "interrupted while waiting for " + what + ": nothing is left running");
    if (io::boottime_now() >= deadline) return make_error(ErrorCode::kRefused, late(what) + ": see its log");
    usleep(static_cast<useconds_t>(kPollPause.us));
  }
}

Result<pid_t> LocalCluster::spawn_daemon(const std::vector<std::string>& argv, const std::string& log) {
  const io::Fd out(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!out.valid()) return io::errno_error("open", log, errno);
  io::SpawnOptions options;
  options.argv = argv;
  options.work_dir = "/";
  options.fds = {{out.get(), 1}, {out.get(), 2}};
  options.new_session = true;
  return io::spawn(options);
}

Status LocalCluster::start_controller(Duration deadline) {
  const std::string endpoint_file = dir_ + "/ctld/endpoint";
  unlink(endpoint_file.c_str());
  MUSTER_ASSIGN(const std::string program, io::find_program("muster-ctld"));
  MUSTER_ASSIGN(const pid_t pid,
                spawn_daemon({program, "--config", config_path(), "--set", "cluster.key=" + dir_ + "/cluster.key"},
                             log_path("ctld")));
  record_.controller = identify(pid);
  MUSTER_TRY(save());
  std::string endpoint;
  const auto waited = wait_for(deadline, "the controller", [&]() -> Result<bool> {
    if (!is_running(record_.controller)) {
      const auto status = io::wait_child(pid, Duration{});
      const std::string how = status.ok() && *status ? io::describe_wait_status(**status) : "unknown";
      return make_error(ErrorCode::kRefused, "the controller ended (" + how + "): " + log_tail(log_path("ctld")));
    }
    const auto text = io::read_file(endpoint_file, 4'096);
    if (!text.ok() || text->empty()) return false;
    endpoint = trim(*text);
    return true;
  });
  if (!waited.ok()) {
    const std::string tail = log_tail(log_path("ctld"));
    if (waited.error().message.find("ended (") != std::string::npos || tail.empty()) return waited;
    return make_error(waited.error().code, waited.error().message + ": " + tail);
  }
  return write_cluster_config(endpoint);
}

Status LocalCluster::start_init(std::uint32_t index, Duration deadline) {
  const std::string name = node_name(index);
  MUSTER_ASSIGN(const std::string init, io::find_program("muster-nodeinit"));
  MUSTER_ASSIGN(const std::string daemon, io::find_program("muster-noded"));
  MUSTER_ASSIGN(const pid_t pid,
                spawn_daemon({init, "--name", name, "--socket", init_socket(index), "--hosts", dir_ + "/hosts", "--",
                              daemon, "--config", node_dir(index) + "/muster.toml", "--name", name},
                             log_path(name)));
  record_.inits[index] = identify(pid);
  MUSTER_TRY(save());
  const Status started = wait_for(deadline, "node " + name, [&]() -> Result<bool> {
    if (!is_running(record_.inits[index]))
      return make_error(ErrorCode::kRefused, "node " + name + " ended: " + log_tail(log_path(name)));
    const auto answer = ask_init(init_socket(index), "start", Duration::from_s(2));
    if (answer.ok()) return true;
    if (answer.error().code == ErrorCode::kUnavailable) return false;
    return make_error(ErrorCode::kRefused, "node " + name + ": " + answer.error().message);
  });
  return started;
}

Result<std::unique_ptr<Client>> LocalCluster::client(Duration timeout) {
  ConnectOptions options;
  options.config_path = config_path();
  options.key_path = dir_ + "/user.key";
  options.timeout = timeout;
  return Client::open(options);
}

Status LocalCluster::wait_connected(const std::vector<std::uint32_t>& indices, Duration deadline) {
  MUSTER_ASSIGN(std::unique_ptr<Client> connection,
                client(std::max(deadline - io::boottime_now(), Duration::from_ms(100))));
  std::string missing;
  const auto waited = wait_for(deadline, "the cluster", [&]() -> Result<bool> {
    MUSTER_ASSIGN(const auto views, fetch_nodes(*connection, {}));
    missing.clear();
    for (const std::uint32_t index : indices) {
      const std::string name = node_name(index);
      const auto daemon = ask_init(init_socket(index), "status", Duration::from_s(2));
      if (daemon.ok() && *daemon == "0")
        return make_error(ErrorCode::kRefused, "node " + name + ": its daemon ended: " + log_tail(log_path(name)));
      const auto boot = ask_init(init_socket(index), "boot", Duration::from_s(2));
      const bool connected = std::any_of(views.begin(), views.end(), [&](const pb::NodeView& view) {
        return view.name() == name && view.state() != "down" && view.state() != "unreachable" &&
               (!boot.ok() || view.boot_id() == *boot);
      });
      if (!connected) missing = name;
    }
    return missing.empty();
  });
  if (!waited.ok() && !missing.empty() && io::boottime_now() >= deadline) {
    return make_error(ErrorCode::kRefused, late("node " + missing) + ": " + log_tail(log_path(missing)));
  }
  return waited;
}

// The port that the node's daemon found free becomes its port, so that a restart comes back on the same one.
Status LocalCluster::fix_port(Client& connection, std::uint32_t index) {
  MUSTER_ASSIGN(const auto views, fetch_nodes(connection, {node_name(index)}));
  const std::string endpoint = views.front().endpoint();
  const std::size_t colon = endpoint.rfind(':');
  if (colon == std::string::npos || endpoint.find('*') != std::string::npos) return ok_status();
  return write_node_config(index, "tcp://127.0.0.1" + endpoint.substr(colon));
}

Status LocalCluster::prepare_nodes(std::uint32_t first, std::uint32_t count) {
  record_.nodes = first + count;
  record_.inits.resize(record_.nodes);
  for (std::uint32_t i = first; i < first + count; ++i) {
    MUSTER_TRY(io::make_dirs(node_dir(i) + "/spool", 0700));
    MUSTER_TRY(io::make_dirs(record_.run_base + "/" + node_name(i), 0700));
    MUSTER_TRY(make_keys(node_name(i), io::KeyKind::kNode));
    // Written again with the controller's address; a bad --set or topology is found here.
    MUSTER_TRY(write_node_config(i, "tcp://127.0.0.1:*"));
  }
  MUSTER_TRY(write_authorized());
  return write_hosts();
}

Status LocalCluster::start_nodes(std::uint32_t first, std::uint32_t count, Duration deadline) {
  std::vector<std::uint32_t> indices;
  for (std::uint32_t i = first; i < first + count; ++i) {
    MUSTER_TRY(write_node_config(i, "tcp://127.0.0.1:*"));
    MUSTER_TRY(start_init(i, deadline));
    indices.push_back(i);
  }
  MUSTER_TRY(wait_connected(indices, deadline));
  MUSTER_ASSIGN(std::unique_ptr<Client> connection, client(Duration::from_s(5)));
  for (const std::uint32_t i : indices) MUSTER_TRY(fix_port(*connection, i));
  return ok_status();
}

Status LocalCluster::start(std::uint32_t nodes, std::vector<std::string> topologies, std::vector<std::string> sets) {
  const Duration deadline = deadline_in(patience_);
  const std::string name = record_.name;
  MUSTER_TRY(take_own_folder());
  if (io::path_exists(record_path())) {
    MUSTER_TRY(load());
    if (anything_running()) {
      return make_error(ErrorCode::kAlreadyExists, "cluster " + name + " runs already in " + dir_ +
                                                       ": use it (export MUSTER_CONFIG=" + shell_word(config_path()) +
                                                       "), stop it with muster local stop, or give another --name");
    }
    // Left over by a machine that went down: nothing of it runs.
    end_everything();
    remove_contents();
    const bool made_dir = record_.made_dir;
    record_ = LocalRecord{};
    record_.name = name;
    record_.made_dir = made_dir;
  }
  record_.topologies = std::move(topologies);
  record_.sets = std::move(sets);
  const auto all = [&]() -> Status {
    record_.run_base = choose_run_base(dir_);
    MUSTER_TRY(save());  // first, so that the next start cleans up whatever a crash of this one leaves
    MUSTER_TRY(make_folders());
    MUSTER_TRY(make_keys("cluster", io::KeyKind::kCluster));
    MUSTER_TRY(make_keys("user", io::KeyKind::kUser));
    MUSTER_TRY(write_cluster_config("tcp://127.0.0.1:*"));
    MUSTER_TRY(prepare_nodes(0, nodes));
    MUSTER_TRY(start_controller(deadline));
    return start_nodes(0, nodes, deadline);
  };
  auto status = all();
  if (!status.ok()) {
    end_everything();
    remove_files();
  }
  return status;
}

Status LocalCluster::add(std::uint32_t nodes, const std::vector<std::string>& topologies) {
  const Duration deadline = deadline_in(patience_);
  if (record_.nodes + nodes > kLocalNodesMax)
    return invalid_argument("add: a local cluster has at most " + std::to_string(kLocalNodesMax) + " nodes: add fewer");
  const std::uint32_t first = record_.nodes;
  if (!topologies.empty()) {
    // The list is per node from here on: those that exist keep theirs.
    std::vector<std::string> full;
    for (std::uint32_t i = 0; i < first; ++i) {
      full.push_back(record_.topologies.empty() ? std::string(kDefaultTopology)
                                                : record_.topologies[i % record_.topologies.size()]);
    }
    for (std::uint32_t i = 0; i < nodes; ++i) full.push_back(topologies[i % topologies.size()]);
    record_.topologies = std::move(full);
  }
  MUSTER_TRY(prepare_nodes(first, nodes));
  MUSTER_TRY(save());
  return start_nodes(first, nodes, deadline);
}

Result<std::uint32_t> LocalCluster::index_of(const std::string& daemon) const {
  for (std::uint32_t i = 0; i < record_.nodes; ++i) {
    if (node_name(i) == daemon) return i;
  }
  return make_error(ErrorCode::kNotFound, "daemon " + daemon + ": no such daemon: it is ctld or one of n[1-" +
                                              std::to_string(record_.nodes) + "]");
}

std::vector<DaemonStatus> LocalCluster::status() {
  std::vector<DaemonStatus> all;
  const bool controller = is_running(record_.controller);
  all.push_back({"ctld", controller ? record_.controller.pid : 0, controller});
  for (std::uint32_t i = 0; i < record_.nodes; ++i) {
    DaemonStatus one{node_name(i), 0, false};
    if (is_running(record_.inits[i])) {
      const auto answer = ask_init(init_socket(i), "status", Duration::from_s(2));
      const auto pid =
          answer.ok() ? parse_count(*answer, "pid", {0, INT32_MAX}) : Result<std::uint64_t>(answer.error());
      if (pid.ok()) one.pid = static_cast<std::int64_t>(*pid);
    }
    one.up = one.pid != 0;
    all.push_back(std::move(one));
  }
  return all;
}

Status LocalCluster::restart(const std::string& daemon) {
  const Duration deadline = deadline_in(patience_);
  if (daemon == "ctld") {
    const ProcessId old = record_.controller;
    send_signal(old, SIGTERM);
    if (!wait_until_gone(old, kStopGrace)) {
      send_signal(old, SIGKILL);
      wait_until_gone(old, kStopGrace);
    }
    MUSTER_TRY(start_controller(deadline));
    MUSTER_ASSIGN(std::unique_ptr<Client> connection,
                  client(std::max(deadline - io::boottime_now(), Duration::from_ms(100))));
    pb::Request request;
    request.mutable_ping();
    const auto reply = connection->call(request);
    return reply.ok() ? ok_status() : Status(reply.error());
  }
  MUSTER_ASSIGN(const std::uint32_t index, index_of(daemon));
  if (!is_running(record_.inits[index])) {
    MUSTER_TRY(start_init(index, deadline));
  } else {
    const auto answer = ask_init(init_socket(index), "status", Duration::from_s(2));
    const auto pid = answer.ok() ? parse_count(*answer, "pid", {0, INT32_MAX}) : Result<std::uint64_t>(answer.error());
    const ProcessId old = pid.ok() ? identify(static_cast<pid_t>(*pid)) : ProcessId{};
    send_signal(old, SIGTERM);
    if (!wait_until_gone(old, kStopGrace)) {
      send_signal(old, SIGKILL);
      wait_until_gone(old, kStopGrace);
    }
    const auto started = ask_init(init_socket(index), "start", kStopGrace);
    if (!started.ok()) return make_error(ErrorCode::kRefused, "node " + daemon + ": " + started.error().message);
  }
  MUSTER_TRY(wait_connected({index}, deadline));
  // The controller may still believe in the connection of the old daemon, so the new one's own port counts too.
  MUSTER_ASSIGN(const config::Config config, config::load(node_dir(index) + "/muster.toml"));
  const std::string listen = config.node.listen;
  const auto port = parse_count(std::string_view(listen).substr(listen.rfind(':') + 1), "port", {1, 65'535});
  if (!port.ok()) return ok_status();
  return wait_for(deadline, "node " + daemon, [&]() -> Result<bool> {
    const auto alive = ask_init(init_socket(index), "status", Duration::from_s(2));
    if (alive.ok() && *alive == "0")
      return make_error(ErrorCode::kRefused, "node " + daemon + ": its daemon ended: " + log_tail(log_path(daemon)));
    const io::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(*port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd.valid() && connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  });
}

Status LocalCluster::kill_daemon(const std::string& daemon) {
  if (daemon == "ctld") {
    send_signal(record_.controller, SIGKILL);
    wait_until_gone(record_.controller, kStopGrace);
    return ok_status();
  }
  MUSTER_ASSIGN(const std::uint32_t index, index_of(daemon));
  ProcessId& init = record_.inits[index];
  if (!is_running(init))
    return make_error(ErrorCode::kRefused,
                      "node " + daemon + " is cut off already: start it with muster local restart " + daemon);
  const auto answer = ask_init(init_socket(index), "kill", kStopGrace);
  if (!answer.ok()) send_signal(init, SIGKILL);  // its namespace's first process ends with it
  if (!wait_until_gone(init, kStopGrace)) {
    send_signal(init, SIGKILL);
    wait_until_gone(init, kStopGrace);
  }
  init = ProcessId{};
  remove_cgroup_of(node_dir(index) + "/spool");
  return save();
}

void LocalCluster::end_everything() {
  // Nodes first: what they would still report is of no interest, and no job starts meanwhile without them.
  for (std::uint32_t i = 0; i < record_.inits.size(); ++i) {
    if (!is_running(record_.inits[i])) continue;
    if (!ask_init(init_socket(i), "kill", kStopGrace).ok()) send_signal(record_.inits[i], SIGTERM);
  }
  send_signal(record_.controller, SIGTERM);
  for (ProcessId& init : record_.inits) {
    if (!wait_until_gone(init, kStopGrace)) {
      send_signal(init, SIGKILL);
      wait_until_gone(init, kStopGrace);
    }
    init = ProcessId{};
  }
  for (std::uint32_t i = 0; i < record_.nodes; ++i) remove_cgroup_of(node_dir(i) + "/spool");
  if (!wait_until_gone(record_.controller, kStopGrace)) {
    send_signal(record_.controller, SIGKILL);
    wait_until_gone(record_.controller, kStopGrace);
  }
  record_.controller = ProcessId{};
}

void LocalCluster::remove_contents() {
  for (std::uint32_t i = 0; i < record_.nodes; ++i) {
    (void)io::remove_tree(node_dir(i)).ok();
    (void)io::remove_tree(node_dir(i) + ".key").ok();
    (void)io::remove_tree(node_dir(i) + ".key.pub").ok();
  }
  if (!record_.run_base.empty()) (void)io::remove_tree(record_.run_base).ok();
  for (const char* name : {"log", "ctld", "cluster.key", "cluster.key.pub", "user.key", "user.key.pub", "authorized",
                           "hosts", "muster.toml", "cluster"}) {
    (void)io::remove_tree(dir_ + "/" + name).ok();
  }
}

void LocalCluster::remove_files() {
  remove_contents();
  (void)io::remove_tree(dir_ + "/lock").ok();
  // Only if nothing of somebody else lies in it.
  if (record_.made_dir && rmdir(dir_.c_str()) == 0) {
    const std::string parent = dir_.substr(0, dir_.rfind('/'));
    if (parent.find("muster-local") != std::string::npos) rmdir(parent.c_str());
  }
}

Status LocalCluster::stop() {
  end_everything();
  remove_files();
  return ok_status();
}

Result<std::vector<std::string>> topologies_of(const Parsed& parsed) {
  char here[4'096];
  const std::string work_dir = getcwd(here, sizeof here) != nullptr ? here : "/";
  std::vector<std::string> topologies;
  for (const Given& given : parsed.given) {
    if (given.option->id != OptionId::kTopology) continue;
    MUSTER_ASSIGN(std::string topology, resolve_topology(*given.value, work_dir));
    topologies.push_back(std::move(topology));
  }
  return topologies;
}

int print_status(LocalCluster& cluster, bool json) {
  const auto daemons = cluster.status();
  if (json) {
    print(daemons_json(daemons));
    return kExitOk;
  }
  Table table({{"DAEMON"}, {"PID", true}, {"STATE"}});
  for (const DaemonStatus& daemon : daemons)
    table.add({daemon.name, daemon.pid == 0 ? "-" : std::to_string(daemon.pid), daemon.up ? "up" : "down"});
  print(table.text(output_width()));
  return kExitOk;
}

int start_command(LocalCluster& cluster, const Parsed& parsed) {
  const Given* count = parsed.last(OptionId::kCount);
  if (count == nullptr) return usage_error("--nodes is missing: muster local start --nodes 4");
  const auto nodes = parse_count(*count->value, count->source, {1, kLocalNodesMax});
  if (!nodes.ok()) return usage_error(nodes.error());
  auto topologies = topologies_of(parsed);
  if (!topologies.ok()) return usage_error(topologies.error());
  std::vector<std::string> sets;
  for (const Given& given : parsed.given) {
    if (given.option->id == OptionId::kSet) sets.push_back(*given.value);
  }
  config::Config scratch = config::defaults();
  if (auto status = config::set_overrides(scratch, sets); !status.ok())
    return usage_error("--set: " + status.error().message);
  struct sigaction action {};
  action.sa_handler = [](int) { g_interrupted = 1; };
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
  if (auto status = cluster.start(static_cast<std::uint32_t>(*nodes), *std::move(topologies), std::move(sets));
      !status.ok()) {
    error_line("local start: " + status.error().message);
    return kExitRefused;
  }
  if (parsed.has(OptionId::kJson)) return print_status(cluster, true);
  print("export MUSTER_CONFIG=" + shell_word(cluster.config_path()) + "\n");
  return kExitOk;
}

// The cluster that the command is about: the one that is named, else that of MUSTER_CONFIG unless a new one is to be
// started, else the one called local.
Result<LocalCluster> cluster_of(const Parsed& parsed, bool is_start) {
  std::string name = parsed.value(OptionId::kClusterName, "local");
  if (!is_valid_node_name(name))
    return invalid_argument("--name: \"" + name + "\" is no name: use letters, digits, - and _");
  char here[4'096];
  const std::string work_dir = getcwd(here, sizeof here) != nullptr ? here : "/";
  std::string dir = parsed.value(OptionId::kDir, default_local_dir(name));
  if (const char* config = getenv("MUSTER_CONFIG"); config != nullptr && *config != '\0' && !is_start &&
                                                    !parsed.has(OptionId::kDir) &&
                                                    !parsed.has(OptionId::kClusterName)) {
    if (const std::string named = local_dir_of_config(io::absolute_path(work_dir, config)); !named.empty()) {
      dir = named;
      name = "of MUSTER_CONFIG";  // until its record says how it is called
    }
  }
  dir = io::absolute_path(work_dir, dir);
  while (dir.size() > 1 && dir.back() == '/') dir.pop_back();
  return LocalCluster(std::move(name), std::move(dir), connect_options(parsed).timeout.value_or(kPatience));
}

}  // namespace

int command_local(const Parsed& parsed) {
  constexpr std::string_view kVerbs = "start, stop, status, restart, kill or add";
  if (parsed.operands.empty()) return usage_error("local needs a verb: " + std::string(kVerbs));
  const std::string& verb = parsed.operands.front();
  const bool takes_operand = verb == "restart" || verb == "kill" || verb == "add";
  if (!takes_operand && verb != "start" && verb != "stop" && verb != "status")
    return usage_error("local " + verb + ": no such verb: use " + std::string(kVerbs));
  if (parsed.operands.size() != (takes_operand ? 2U : 1U)) {
    return usage_error(
        takes_operand
            ? "local " + verb + " needs one operand: " + (verb == "add" ? "how many nodes" : "ctld or a node's name")
            : "local " + verb + ": \"" + parsed.operands[1] + "\" is no option: see `muster local --help`");
  }
  auto named = cluster_of(parsed, verb == "start");
  if (!named.ok()) return usage_error(named.error());
  LocalCluster& cluster = *named;
  if (verb == "start") return start_command(cluster, parsed);

  if (auto found = verb == "status" ? cluster.load() : cluster.take(); !found.ok()) {
    // Nothing to stop is what stop is for.
    if (verb == "stop" && found.error().code == ErrorCode::kNotFound) return kExitOk;
    return report_error(found.error());
  }
  if (verb == "status") return print_status(cluster, parsed.has(OptionId::kJson));
  Status status = ok_status();
  if (verb == "stop") {
    status = cluster.stop();
  } else if (verb == "restart") {
    status = cluster.restart(parsed.operands[1]);
  } else if (verb == "kill") {
    status = cluster.kill_daemon(parsed.operands[1]);
  } else {
    const auto nodes = parse_count(parsed.operands[1], "add", {1, kLocalNodesMax});
    if (!nodes.ok()) return usage_error(nodes.error());
    const auto topologies = topologies_of(parsed);
    if (!topologies.ok()) return usage_error(topologies.error());
    status = cluster.add(static_cast<std::uint32_t>(*nodes), *topologies);
  }
  return status.ok() ? kExitOk
                     : report_error(make_error(ErrorCode::kRefused, "local " + verb + ": " + status.error().message));
}

}  // namespace muster::cli

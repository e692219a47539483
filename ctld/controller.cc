#include "ctld/controller.h"

#include <unistd.h>

#include <optional>
#include <utility>

#include "ctld/nodes.h"
#include "ctld/outbox.h"
#include "ctld/pipeline.h"
#include "ctld/policy.h"
#include "ctld/recovery.h"
#include "ctld/requests.h"
#include "ctld/snapshot.h"
#include "ctld/snapshotter.h"
#include "ctld/store_sqlite.h"
#include "ctld/tickets.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/keys.h"
#include "lib/io/log.h"
#include "lib/io/process.h"
#include "lib/io/zap.h"
#include "lib/io/zmq_socket.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

constexpr Duration kTickInterval = Duration::from_s(60);
// Finds clients and nodes that vanished without a word, so that what waits for them is dropped.
constexpr Duration kPingInterval = Duration::from_s(30);
constexpr Duration kPingTimeout = Duration::from_s(90);
// How long unsent replies are kept after stop().
constexpr Duration kLinger = Duration::from_s(1);
// How long a start waits for an earlier controller to be gone.
constexpr Duration kLockPatience = Duration::from_s(3);
constexpr std::size_t kEndpointBytesMax = 4'096;

}  // namespace

Result<sched::Policy> make_policy(const config::Config& config) {
  sched::Policy policy;
  policy.default_queue = config.job.default_queue;
  policy.request_memory = config.controller.dedup_window;
  policy.rules.backfill = config.scheduling.backfill == "none" ? sched::Backfill::kNone : sched::Backfill::kEasy;
  policy.rules.promises = static_cast<std::uint32_t>(config.scheduling.promises);
  policy.age_exponent = static_cast<std::uint32_t>(config.scheduling.age_exponent);
  policy.requeue = config.job.requeue;
  policy.node_faults_max = static_cast<std::uint32_t>(config.job.node_faults_max);
  policy.node_failures_max = static_cast<std::uint32_t>(config.controller.node_failures_max);
  policy.node_rest = config.controller.node_rest;
  policy.node_suspect_time = config.controller.node_suspect_time;
  policy.jobs_max = config.controller.queue_max_jobs;
  policy.enforce_accounts = config.accounting.enforce;
  policy.weights = {.age = static_cast<std::int32_t>(config.priority.age_weight),
                    .size = static_cast<std::int32_t>(config.priority.size_weight),
                    .queue = static_cast<std::int32_t>(config.priority.queue_weight),
                    .qos = static_cast<std::int32_t>(config.priority.qos_weight),
                    .fair_share = static_cast<std::int32_t>(config.priority.fair_share_weight)};
  if (!config.scheduling.licenses.empty()) {
    MUSTER_ASSIGN(const LicenseCounts licenses, parse_licenses(config.scheduling.licenses, "scheduling.licenses"));
    for (const LicenseCount& one : licenses) {
      policy.licenses.emplace(one.name, one.count);
    }
  }
  for (const auto& [name, in] : config.queues) {
    sched::QueuePolicy queue;
    queue.name = name;
    queue.priority = in.priority;
    queue.factor = static_cast<std::int32_t>(in.factor);
    queue.accepts = in.state == "up" || in.state == "down";
    queue.starts = in.state == "up" || in.state == "drain";
    if (!in.nodes.empty()) {
      MUSTER_ASSIGN(queue.nodes, expand_node_list(in.nodes));
    }
    queue.spread = in.placement == "spread";
    queue.time_max = std::min(in.max_time, config.job.max_time);
    queue.preempt_mode = in.preempt_mode == "requeue"      ? sched::PreemptMode::kRequeue
                         : in.preempt_mode == "cancel"     ? sched::PreemptMode::kCancel
                         : in.preempt_mode == "checkpoint" ? sched::PreemptMode::kCheckpoint
                         : in.preempt_mode == "suspend"    ? sched::PreemptMode::kSuspend
                                                           : sched::PreemptMode::kOff;
    queue.preempt_grace = in.preempt_grace;
    queue.preempt_exempt = in.preempt_exempt;
    queue.time_default = in.default_time.us != 0 ? in.default_time : config.job.default_time;
    queue.nodes_min = static_cast<std::uint32_t>(in.min_nodes);
    queue.nodes_max = static_cast<std::uint32_t>(in.max_nodes);
    queue.cpus_max = in.max_cpus;
    queue.gpus_max = in.max_gpus;
    queue.mem_per_cpu_mib = in.default_mem_per_cpu_mib;
    queue.allow_accounts = in.allow_accounts;
    queue.deny_accounts = in.deny_accounts;
    queue.allow_users = in.allow_users;
    queue.allow_qos = in.allow_qos;
    policy.queues.push_back(std::move(queue));
  }
  if (policy.find_queue(policy.default_queue) == nullptr) {
    return invalid_argument("job.default_queue is \"" + printable(policy.default_queue) +
                            "\", which is no queue: add [queue." + printable(policy.default_queue) +
                            "] or name another one");
  }
  auto sites = std::make_shared<sched::Sites>();
  MUSTER_ASSIGN(sites->features, config::features_of(config));
  MUSTER_ASSIGN(sites->topology, config::topology_of(config));
  policy.sites = std::move(sites);
  return policy;
}

namespace {
// The network must be of nodes that there can be: those with an authorized key.
Status check_nodes_of_network(const config::Config& config) {
  MUSTER_ASSIGN(const Topology topology, config::topology_of(config));
  if (topology.kind == TopologyKind::kNone) {
    return ok_status();
  }
  MUSTER_ASSIGN(const std::string text, io::read_file(config.controller.authorized, io::kAuthorizedBytesMax));
  MUSTER_ASSIGN(const auto keys, io::parse_authorized_keys(text, config.controller.authorized));
  std::set<std::string> nodes;
  for (const auto& [key, who] : keys) {
    constexpr std::string_view kNode = "node:";
    if (who.starts_with(kNode)) {
      nodes.insert(who.substr(kNode.size()));
    }
  }
  const auto check = [&](const std::string& what, const auto& domain) -> Status {
    for (const std::string& node : domain.nodes) {
      if (!nodes.contains(node)) {
        const std::string nearest = nearest_word(node, {nodes.begin(), nodes.end()});
        return invalid_argument(
            "[" + what + "." + domain.name + "] at " + domain.place + ": unknown node " + printable(node) + ": " +
            (nearest.empty() ? "authorize its key in " + config.controller.authorized + ", or leave it out"
                             : "did you mean " + nearest + "?"));
      }
    }
    return ok_status();
  };
  for (const Topology::Switch& one : topology.switches) {
    MUSTER_TRY(check("switch", one));
  }
  for (const Topology::Block& one : topology.blocks) {
    MUSTER_TRY(check("block", one));
  }
  return ok_status();
}

BillingRules billing_of(const config::AccountingSection& in) {
  return {.cpu = static_cast<std::uint32_t>(in.cpu_weight),
          .gpu = static_cast<std::uint32_t>(in.gpu_weight),
          .memory_gib = static_cast<std::uint32_t>(in.memory_weight),
          .half_life = in.half_life};
}

Result<io::Key> load_cluster_key(const config::Config& config) {
  if (config.cluster.key.empty()) {
    return invalid_argument(
        "cluster.key is not set: name the cluster's key file (muster keygen cluster --out FILE makes one)");
  }
  MUSTER_ASSIGN(io::Key key, io::load_key(config.cluster.key));
  if (key.pub.kind != io::KeyKind::kCluster) {
    return invalid_argument("cluster.key = " + config.cluster.key + " is a key of kind " +
                            std::string(to_string(key.pub.kind)) +
                            ": the controller needs the cluster's (muster keygen cluster --out FILE makes one)");
  }
  return key;
}

// A controller that was just killed holds its lock until the kernel has taken its memory apart: seconds where it had
// a million jobs.
Result<io::PidLock> take_lock(const std::string& path) {
  const Duration deadline = io::boottime_now() + kLockPatience;
  for (;;) {
    auto lock = io::PidLock::take(path);
    if (lock.ok() || lock.error().code != ErrorCode::kAlreadyExists || io::boottime_now() >= deadline) {
      return lock;
    }
    usleep(20'000);
  }
}

bool has_free_port(const std::string& listen) {
  const auto colon = listen.rfind(':');
  const std::string port = colon == std::string::npos ? "" : listen.substr(colon + 1);
  return port == "0" || port == "*";
}

}  // namespace

struct Controller::Impl {
  Impl(io::Loop& loop_in, const config::Config& config_in, std::function<void(int)> finished_in, io::PidLock lock_in,
       io::Key key, Recovered recovered, sched::Policy policy)
      : loop(loop_in),
        config(config_in),
        finished(std::move(finished_in)),
        lock(std::move(lock_in)),
        curve_secret(key.curve_secret),
        tickets(std::move(key)),
        outbox([this](const std::string& peer, const std::vector<std::string>& frames) {
          return router ? router->send_to(peer, frames) : Status(make_error(ErrorCode::kNotFound, "not serving"));
        }),
        pipeline(
            loop, std::move(recovered.state), std::move(policy),
            PipelineLimits{.batch_facts_max = config.controller.batch_facts_max},
            PipelineHooks{.perform = [this](Effects effects) { perform(effects); },
                          .closing = [this](std::uint64_t seq, std::size_t facts) { snapshotter->closing(seq, facts); },
                          .committed = [this](std::uint64_t seq) { snapshotter->committed(seq); },
                          .drained = [this] { resume(); }}),
        tick_timer(loop, [this] { (void)pipeline.execute(Tick{}); }) {}

  Status open(const Recovered& recovered);
  void serve();
  Result<std::string> bind();
  void on_message(io::ZmqMessage message);
  void on_client(const std::string& peer, const io::PeerIdentity& who, const std::string& body);
  void on_node(const std::string& peer, const io::PeerIdentity& who, const std::string& body);
  void drop(const std::string& user_id, const std::string& why);
  void perform(const Effects& effects);
  void resume();
  void fail(const Error& error);
  void finish(int status);

  io::Loop& loop;
  const config::Config config;
  std::function<void(int)> finished;
  io::PidLock lock;
  const std::string curve_secret;
  Tickets tickets;
  std::unique_ptr<io::ZmqContext> context;
  std::unique_ptr<io::ZapHandler> zap;
  std::optional<io::ZmqSocket> router;
  Outbox outbox;
  Pipeline pipeline;
  std::unique_ptr<Journal> journal;
  std::optional<Snapshotter> snapshotter;
  std::optional<Nodes> nodes;
  std::optional<Requests> requests;
  io::Timer tick_timer;
  RateLimit drops{5};
  std::string endpoint;
  bool paused = false;
  bool stopping = false;
  std::shared_ptr<int> alive = std::make_shared<int>(0);

  ~Impl() {
    alive.reset();
    if (journal) {
      journal->close();
    }
    // The context waits for the linger time of the socket, and the handler must go before the context.
    router.reset();
    zap.reset();
    pipeline.abandon_state();
  }
};

Status Controller::Impl::open(const Recovered& recovered) {
  const std::string& state_dir = config.controller.state_dir;
  MUSTER_ASSIGN(journal,
                open_store(loop, state_dir, recovered.position,
                           JournalEvents{.committed = [this](std::uint64_t seq) { pipeline.on_committed(seq); },
                                         .failed = [this](Error error) { fail(error); }}));
  Snapshotter::Options options;
  options.state_dir = state_dir;
  options.program = io::program_dir() + "/muster-ctld";
  options.every_batches = config.controller.snapshot_every_batches;
  snapshotter.emplace(loop, std::move(options), pipeline.state(), *journal, recovered.batches_replayed);
  nodes.emplace(loop, Nodes::Options{config.cluster.name, config.controller.node_timeout}, pipeline, *journal, outbox,
                tickets);
  requests.emplace(loop, config, pipeline, *journal, outbox, *nodes, tickets);
  context = std::make_unique<io::ZmqContext>();
  MUSTER_ASSIGN(zap, io::ZapHandler::authorized_file(*context, config.controller.authorized));
  pipeline.set_journal(*journal);
  if (const auto decision = pipeline.execute(StartTerm{}); !decision.ok()) {
    return decision.error();
  }
  if (const auto decision = pipeline.execute(ConfigureBilling{billing_of(config.accounting)}); !decision.ok()) {
    return decision.error();
  }
  pipeline.after_commit([this] { serve(); });
  tick_timer.start_repeating(kTickInterval);
  return ok_status();
}

// The same port as before, where any will do: nodes and clients know the old one.
Result<std::string> Controller::Impl::bind() {
  const std::string& listen = config.controller.listen;
  const auto old = io::read_file(config.controller.state_dir + "/endpoint", kEndpointBytesMax);
  if (has_free_port(listen) && old.ok()) {
    const std::string text(trim(*old));
    const auto colon = text.rfind(':');
    if (colon != std::string::npos) {
      const std::string again = listen.substr(0, listen.rfind(':')) + text.substr(colon);
      if (auto bound = router->bind(again); bound.ok()) {
        return bound;
      }
      io::log_warning("the port of the last run is taken, another one is used", {{"endpoint", again}});
    }
  }
  const std::string wanted = has_free_port(listen) ? listen.substr(0, listen.rfind(':')) + ":*" : listen;
  return router->bind(wanted);
}

void Controller::Impl::serve() {
  if (stopping) {
    return;
  }
  io::ZmqOptions options;
  options.curve_server = io::CurveServer{curve_secret};
  options.linger = kLinger;
  options.send_queue_max = static_cast<int>(config.controller.client_queue_max);
  options.message_bytes_max =
      static_cast<std::int64_t>(std::min<std::uint64_t>(config.controller.message_bytes_max, wire::kMessageBytesMax));
  options.heartbeat_interval = kPingInterval;
  options.heartbeat_timeout = kPingTimeout;
  auto socket = io::ZmqSocket::create(loop, *context, io::ZmqSocket::Type::kRouter, options,
                                      [this](io::ZmqMessage message) { on_message(std::move(message)); });
  if (!socket.ok()) {
    return fail(socket.error());
  }
  router.emplace(std::move(*socket));
  auto bound = bind();
  if (!bound.ok()) {
    return fail(bound.error());
  }
  endpoint = *bound;
  if (const Status status = io::write_file_atomic(config.controller.state_dir + "/endpoint", endpoint + "\n", 0644);
      !status.ok()) {
    return fail(status.error());
  }
  const auto& state = pipeline.state();
  io::log_info("serving", {{"endpoint", endpoint},
                           {"cluster", config.cluster.name},
                           {"term", state.term.value},
                           {"jobs", state.jobs.size() + state.arrays.size()},
                           {"nodes", state.nodes.size()}});
}

void Controller::Impl::on_message(io::ZmqMessage message) {
  if (stopping) {
    return;
  }
  if (message.frames.size() != 2) {
    return drop(message.user_id, "a message has " + std::to_string(message.frames.size()) + " frames instead of 2");
  }
  const auto kind = wire::parse_header(message.frames[0]);
  if (!kind.ok()) {
    drop(message.user_id, kind.error().message);
    // Somebody of another version gets to know it; garbage gets no answer that it could understand anyway.
    if (message.frames[0].size() <= 16) {
      requests->refuse(message.peer, kind.error());
    }
    return;
  }
  const auto who = io::parse_user_id(message.user_id);
  if (*kind == wire::MessageKind::kClientRequest) {
    on_client(message.peer, who, message.frames[1]);
  } else if (*kind == wire::MessageKind::kNodeMessage) {
    on_node(message.peer, who, message.frames[1]);
  } else {
    return drop(message.user_id, "a message of this kind is none for the controller");
  }
  if (pipeline.full() && !paused) {
    paused = true;
    router->pause();
  }
}

void Controller::Impl::on_client(const std::string& peer, const io::PeerIdentity& who, const std::string& body) {
  if (who.kind != io::PeerIdentity::Kind::kUser && who.kind != io::PeerIdentity::Kind::kAdmin) {
    drop(who.name, "a request was sent with a key that is no user's");
    return requests->refuse(peer, make_error(ErrorCode::kPermissionDenied, "this key is no user's: use a user's key"));
  }
  pb::Request request;
  if (!request.ParseFromString(body)) {
    drop(who.name, "a request is no message");
    return requests->refuse(
        peer, make_error(ErrorCode::kCorrupt, "the request cannot be read: use a client of the same version"));
  }
  requests->on_request(peer, Caller{who.name, who.kind == io::PeerIdentity::Kind::kAdmin}, request);
}

void Controller::Impl::on_node(const std::string& peer, const io::PeerIdentity& who, const std::string& body) {
  if (who.kind != io::PeerIdentity::Kind::kNode) {
    return drop(who.name, "a node's message was sent with a key that is no node's");
  }
  pb::NodeMessage message;
  if (!message.ParseFromString(body)) {
    return drop(who.name, "a node's message cannot be read");
  }
  nodes->on_message(peer, who.name, message);
}

void Controller::Impl::drop(const std::string& user_id, const std::string& why) {
  std::uint64_t unlogged = 0;
  if (drops.allow(pipeline.now(), unlogged)) {
    io::log_warning("a message is dropped", {{"from", user_id}, {"why", why}, {"unlogged", unlogged}});
  }
}

void Controller::Impl::perform(const Effects& effects) {
  nodes->perform(effects);
  requests->perform(effects);
}

void Controller::Impl::resume() {
  if (std::exchange(paused, false) && router && !stopping) {
    router->resume();
  }
  if (requests) {
    requests->resume();
  }
}

void Controller::Impl::fail(const Error& error) {
  io::log_error("muster-ctld stops", {{"error", error.message}});
  stopping = true;
  if (router) {
    router->pause();
  }
  finish(1);
}

void Controller::Impl::finish(int status) {
  // Later in this round: the callers still stand on this object.
  loop.defer([this, status, guard = std::weak_ptr<int>(alive)] {
    if (!guard.expired() && finished) {
      std::exchange(finished, nullptr)(status);
    }
  });
}

Controller::Controller(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Controller::~Controller() = default;

Result<std::unique_ptr<Controller>> Controller::start(io::Loop& loop, const config::Config& config,
                                                      std::function<void(int)> finished) {
  const std::string& state_dir = config.controller.state_dir;
  MUSTER_TRY(make_policy(config));
  MUSTER_TRY(check_nodes_of_network(config));
  MUSTER_ASSIGN(auto key, load_cluster_key(config));
  MUSTER_TRY(io::make_dirs(state_dir, 0700));
  MUSTER_ASSIGN(auto lock, take_lock(state_dir + "/pid"));
  remove_partial_snapshots(state_dir);
  MUSTER_TRY(prepare_store(state_dir, config.cluster.name));
  MUSTER_ASSIGN(auto recovered, recover_all(state_dir));
  io::log_info("recovered", {{"seq", recovered.position.seq},
                             {"snapshot", recovered.snapshot_seq},
                             {"replayed", recovered.batches_replayed},
                             {"jobs", recovered.state.jobs.size() + recovered.state.arrays.size()}});
  std::vector<std::string> problems;
  MUSTER_ASSIGN(auto policy, make_policy(config::with_usable_settings(config, recovered.state.settings, problems)));
  for (const std::string& problem : problems) {
    io::log_warning(
        "a setting that was changed at run time does not fit the configuration file any more and is left out",
        {{"setting", problem}});
  }
  Recovered about;
  about.position = recovered.position;
  about.batches_replayed = recovered.batches_replayed;
  auto impl = std::make_unique<Impl>(loop, config, std::move(finished), std::move(lock), std::move(key),
                                     std::move(recovered), std::move(policy));
  MUSTER_TRY(impl->open(about));
  return std::unique_ptr<Controller>(new Controller(std::move(impl)));
}

void Controller::stop() {
  if (std::exchange(impl_->stopping, true)) {
    return;
  }
  io::log_info("stopping", {{"pid", getpid()}});
  if (impl_->router) {
    impl_->router->pause();
  }
  impl_->pipeline.after_commit([impl = impl_.get()] { impl->finish(0); });
}

const std::string& Controller::endpoint() const {
  return impl_->endpoint;
}

Status check_setup(const config::Config& config) {
  MUSTER_ASSIGN(const auto policy, make_policy(config));
  MUSTER_TRY(check_nodes_of_network(config));
  MUSTER_ASSIGN(const auto key, load_cluster_key(config));
  MUSTER_ASSIGN(const std::string text, io::read_file(config.controller.authorized, io::kAuthorizedBytesMax));
  MUSTER_ASSIGN(const auto keys, io::parse_authorized_keys(text, config.controller.authorized));
  return ok_status();
}

}  // namespace muster::ctld

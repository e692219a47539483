#include "noded/attempt_table.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/log.h"
#include "lib/io/process.h"
#include "lib/model/patterns.h"
#include "noded/gpu_devices.h"
#include "noded/task_proof.h"

namespace muster::noded {
namespace {

// Frames that wait for a shepherd that does not read. It reads always; one that does not is broken.
constexpr std::size_t kOutBytesMax = 64U << 20U;
// A living shepherd that did not answer so often is unreachable; it is still tried, at the long interval.
constexpr int kReachAttemptsMax = 100;
constexpr Duration kReachIntervalLong = Duration::from_s(5);
// How often what a dead one left is killed.
constexpr Duration kBuryInterval = Duration::from_ms(20);
constexpr int kReadsPerEvent = 16;

std::string text_of(AttemptKey key) {
  return std::to_string(key.job.value) + "." + std::to_string(key.attempt.value);
}

Outcome failed(EndCause cause, std::string detail) {
  return Outcome{.cause = cause, .exit_code = 0, .signal = 0, .detail = std::move(detail), .ran = {}};
}

PatternValues pattern_values(const LaunchOrder& order) {
  PatternValues values;
  values.job = order.key.job;
  values.array = order.array.value != 0 ? order.array : order.key.job;
  values.is_array = order.array.value != 0;
  values.array_index = order.array_index;
  values.job_name = order.spec->name;
  values.user = order.spec->user;
  values.node = order.node;
  values.node_rank = order.node_rank;
  return values;
}

// Hardware threads of a job times this are more processes than any sane program has.
constexpr std::uint64_t kProcessesPerThread = 256;

// As frames say it: 0 is none.
std::int64_t limit_us(Duration limit) {
  return limit.is_infinite() ? 0 : limit.us;
}

// The hardware threads that the job has of this node.
IndexSet threads_of(const NodeHardware& hardware, const LaunchOrder& order) {
  IndexSet threads;
  for (const std::uint32_t core : order.share.cores.to_vector()) {
    if (core < hardware.cores.size()) {
      const IndexSet& here = hardware.cores[core].threads;
      threads |= order.spec->threads_per_core == 0 ? here : here.lowest(order.spec->threads_per_core);
    }
  }
  return threads;
}

std::string output_path(const LaunchOrder& order, const std::string& pattern) {
  return resolve_path(order.spec->work_dir, expand_pattern(pattern, pattern_values(order)));
}

}  // namespace

AttemptTable::AttemptTable(AttemptTableOptions options, Spool spool)
    : options_(std::move(options)), nursery_(options_.shepherd), spool_(std::move(spool)) {
  children_.emplace(*options_.loop, SIGCHLD, [this](int) { reap(); });
}

AttemptTable::~AttemptTable() = default;

void AttemptTable::reap() {
  // The nursery, and shepherds that did not come from it; their end is told by their socket.
  while (::waitpid(-1, nullptr, WNOHANG) > 0) {
  }
}

// ---------------------------------------------------------------- start of the daemon

Status AttemptTable::recover() {
  MUSTER_ASSIGN(const Term term, spool_.read_term());
  state_ = agent::initial_state(options_.identity.name, term);
  MUSTER_ASSIGN(std::vector<FoundAttempt> found, spool_.scan());
  for (FoundAttempt& attempt : found) {
    // A launch record that cannot be read says nothing of the boot: whether the shepherd lives decides (take_up).
    if (!attempt.outcome && !attempt.boot_id.empty() && attempt.boot_id != options_.boot_id) {
      attempt.outcome = failed(EndCause::kNodeLost, "the node was restarted while the job ran");
      (void)kill_rest(attempt.key, attempt.shepherd ? attempt.shepherd->cgroup : "");
      record_end(attempt.key, *attempt.outcome, true);
    }
    take_up(attempt);
  }
  if (!found.empty()) {
    io::log_info("attempts of an earlier life", {{"found", found.size()}, {"running", shepherds_.size()}});
  }
  return ok_status();
}

void AttemptTable::take_up(const FoundAttempt& found) {
  if (found.outcome) {
    perform(agent::recover(state_, found.key, found.order, agent::FoundEnded{*found.outcome}));
    return;
  }
  const std::string mark =
      spool_.attempt_dir(found.key) + "/" + kPrologPrefix + std::to_string(found.shepherd ? found.shepherd->pid : 0);
  const bool in_prolog = found.shepherd && is_alive(*found.shepherd) && io::path_exists(mark);
  perform(agent::recover(state_, found.key, found.order,
                         in_prolog ? agent::Found(agent::FoundStarting{}) : agent::Found(agent::FoundRunning{})));
  Shepherd& shepherd = shepherds_[found.key];
  shepherd.directory = spool_.attempt_dir(found.key);
  shepherd.ticket = found.ticket;
  shepherd.ticket_path = found.ticket.empty() ? "" : shepherd.directory + "/" + kTicketName;
  shepherd.cgroup = found.shepherd->cgroup;
  if (found.order != nullptr) {
    const JobSpec& spec = *found.order->spec;
    shepherd.user = users_.find(spec.uid, spec.gid, spec.user).info;
  }
  // Not from here: whoever listens for attempts that run is made after this.
  options_.loop->defer([this, key = found.key] { reach_again(key); });
}

// ---------------------------------------------------------------- the link to the controller

bool AttemptTable::hear_term(Term term) {
  agent::AgentEffects effects;
  const bool current = agent::hear_term(state_, term, effects);
  perform(effects);
  (void)record_term();
  return current;
}

Status AttemptTable::record_term() {
  if (!unrecorded_term_) {
    return ok_status();
  }
  const Status status = spool_.write_term(*unrecorded_term_);
  if (status.ok()) {
    if (std::exchange(term_failed_, false)) {
      io::log_info("the controller's term is recorded", {{"term", unrecorded_term_->value}});
    }
    unrecorded_term_.reset();
  } else if (!std::exchange(term_failed_, true)) {
    io::log_error("cannot record the controller's term; launches are refused until it can be",
                  {{"term", unrecorded_term_->value}, {"error", status.error().message}});
  }
  return status;
}

bool AttemptTable::knows(AttemptKey key) const {
  return state_.attempts.contains(key) || state_.forgotten.contains(key);
}

void AttemptTable::on_launch(const LaunchData& launch) {
  const AttemptKey key = launch.order->key;
  if (hear_term(launch.order->term)) {
    if (const Status recorded = record_term(); !recorded.ok()) {
      return on_launch_refused(
          key, "the node's spool: the controller's term cannot be recorded: " + recorded.error().message);
    }
  }
  launches_[key] = launch;
  perform(agent::on_launch(state_, launch.order));
  launches_.erase(key);
}

void AttemptTable::on_launch_refused(AttemptKey key, const std::string& reason) {
  perform(agent::on_launch_refused(state_, key, reason));
}

void AttemptTable::on_stop(const StopOrder& order) {
  perform(agent::on_stop(state_, order));
  // A prolog may take its time: it need not end before the attempt does.
  const auto known = state_.attempts.find(order.key);
  const auto it = shepherds_.find(order.key);
  if (order.signal == 0 && known != state_.attempts.end() && known->second.phase == agent::AttemptPhase::kStarting &&
      it != shepherds_.end() && it->second.socket.valid() && it->second.version >= kHooksProtocolVersion) {
    write_stop(it->second, order.notice_signal, order.notice);
  }
}

void AttemptTable::on_limit(const LimitOrder& order) {
  perform(agent::on_limit(state_, order));
}

void AttemptTable::on_suspend(const SuspendOrder& order) {
  perform(agent::on_suspend(state_, order));
}

void AttemptTable::on_acknowledged(AttemptKey key) {
  perform(agent::on_acknowledged(state_, key));
}

std::vector<AttemptReport> AttemptTable::registered_attempts() const {
  return agent::registered_attempts(state_);
}

void AttemptTable::retry_reports(std::size_t max) {
  perform(agent::retry_reports(state_, max));
}

// ---------------------------------------------------------------- effects

void AttemptTable::perform(const agent::AgentEffects& effects) {
  for (const agent::AgentEffect& effect : effects) {
    if (const auto* begin = std::get_if<agent::StartAttempt>(&effect)) {
      start(begin->order);
    } else if (const auto* stop = std::get_if<agent::StopAttempt>(&effect)) {
      auto it = shepherds_.find(stop->key);
      if (it != shepherds_.end() && it->second.running && stop->signal != 0) {
        write_frame(it->second, StopFrame{stop->signal, options_.kill_grace.us});
      } else if (it != shepherds_.end() && it->second.running) {
        write_stop(it->second, stop->notice_signal, stop->notice);
      } else if (it != shepherds_.end() && stop->signal == 0) {
        stop_unreachable(stop->key);
      }
      // Without a connection the stop follows when it is there again (StateFrame).
    } else if (const auto* limit = std::get_if<agent::SetLimit>(&effect)) {
      send_limit(limit->key, limit->limit);
    } else if (const auto* suspend = std::get_if<agent::SuspendAttempt>(&effect)) {
      auto it = shepherds_.find(suspend->key);
      if (it != shepherds_.end() && it->second.running) {
        write_suspend(*suspend);
      }
    } else if (const auto* end = std::get_if<agent::RecordEnd>(&effect)) {
      record_end(end->key, end->outcome, true);
    } else if (const auto* heard = std::get_if<agent::RecordTerm>(&effect)) {
      unrecorded_term_ = heard->term;
      (void)record_term();
    } else if (const auto* say = std::get_if<agent::SendReport>(&effect)) {
      options_.report(say->report);
    } else if (const auto* forget = std::get_if<agent::ForgetAttempt>(&effect)) {
      spool_.remove(forget->key);
    } else if (const auto* note = std::get_if<agent::NoteRefusal>(&effect)) {
      io::log_warning("an order was not obeyed", {{"attempt", text_of(note->key)}, {"reason", note->reason}});
    }
  }
}

// Without a connection it follows when that is there again (on_ready).
void AttemptTable::send_limit(AttemptKey key, Duration limit) {
  auto it = shepherds_.find(key);
  if (it == shepherds_.end() || !it->second.running) {
    return;
  }
  if (it->second.version < kOrdersProtocolVersion) {
    io::log_warning("a shepherd of an older release keeps its time limit", {{"attempt", text_of(key)}});
    return;
  }
  write_frame(it->second, LimitFrame{limit_us(limit)});
}

void AttemptTable::start(const std::shared_ptr<const LaunchOrder>& order) {
  const AttemptKey key = order->key;
  auto launch = launches_.find(key);
  const Status status = launch != launches_.end()
                            ? start_shepherd(launch->second)
                            : make_error(ErrorCode::kInternal, "a launch without its script and environment");
  if (status.ok()) {
    io::log_debug("attempt starting", {{"attempt", text_of(key)}, {"job", key.job.value}});
    return;
  }
  io::log_warning("attempt not started", {{"attempt", text_of(key)}, {"reason", status.error().message}});
  shepherds_.erase(key);
  // Later, so that effects are never performed inside effects.
  options_.loop->defer([this, key, message = status.error().message] {
    Outcome outcome = failed(EndCause::kLaunchFailed, message);
    outcome.fault = NodeFault::kSpool;  // whatever it was, it was not the job
    outcome.fault_text = message;
    perform(agent::on_launch_failed(state_, key, outcome));
    note_trouble(outcome);
  });
}

Status AttemptTable::start_shepherd(const LaunchData& launch) {
  const AttemptKey key = launch.order->key;
  const JobSpec& spec = *launch.order->spec;
  MUSTER_ASSIGN(const PreparedAttempt prepared, spool_.prepare(launch, options_.boot_id));
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return io::errno_error("make", "a socket pair", errno);
  }
  io::Fd ours(ends[0]);
  const io::Fd theirs(ends[1]);
  MUSTER_TRY(nursery_.start_shepherd(theirs.get()));
  Shepherd& shepherd = shepherds_[key];
  shepherd.directory = prepared.directory;
  shepherd.ticket = launch.ticket;
  shepherd.ticket_path = prepared.ticket_path;
  shepherd.user = users_.find(spec.uid, spec.gid, spec.user).info;
  shepherd.cgroup = options_.cgroup_parent.empty() ? "" : options_.cgroup_parent + "/" + text_of(key);
  if (launch.environment != nullptr) {
    shepherd.environment = std::make_shared<const std::vector<std::string>>(split_environment(*launch.environment));
  }
  const LaunchFrame frame = launch_frame(launch, prepared, shepherd);
  connect(key, std::move(ours));
  write_frame(shepherd, frame);
  return ok_status();
}

Limits AttemptTable::limits_for(const LaunchOrder& order, const LaunchFrame& frame) const {
  const NodeHardware& hardware = options_.identity.hardware;
  const JobSpec& spec = *order.spec;
  Limits limits;
  const bool asked = spec.mem_per_node_mib != 0 || spec.mem_per_cpu_mib != 0 || spec.mem_per_gpu_mib != 0;
  if (options_.enforce_memory && (asked || !hardware.pretended)) {
    limits.memory_bytes = order.share.mem_mib << 20U;
  }
  limits.cpus = !frame.cpus.empty();
  if (options_.pids_max != 0) {
    const std::uint64_t threads = IndexSet::from_words(frame.cpus).count();
    limits.processes = std::max(options_.pids_max, kProcessesPerThread * threads);
  }
  limits.denied_devices =
      denied_devices(gpu_devices_now(hardware, options_.gpu_device_setting, options_.gpu_devices), order.share.gpus);
  const NodeTopology* topology = options_.identity.topology.get();
  if (!hardware.pretended && topology != nullptr && topology->numa.size() > 1) {
    IndexSet nodes;
    for (const std::uint32_t core : order.share.cores.to_vector()) {
      if (core < hardware.cores.size() && hardware.cores[core].numa < topology->numa.size()) {
        nodes |= topology->numa[hardware.cores[core].numa].os_nodes;
      }
    }
    limits.memory_nodes = nodes.words();
  }
  return limits;
}

LaunchFrame AttemptTable::launch_frame(const LaunchData& launch, const PreparedAttempt& prepared,
                                       const Shepherd& shepherd) {
  const LaunchOrder& order = *launch.order;
  const JobSpec& spec = *order.spec;
  LaunchFrame frame;
  frame.name = text_of(order.key);
  frame.directory = prepared.directory;
  frame.uid = spec.uid;
  frame.gid = spec.gid;
  frame.groups = users_.find(spec.uid, spec.gid, spec.user).groups;
  frame.cgroup_parent = options_.cgroup_parent;
  if (!options_.identity.hardware.pretended) {
    frame.cpus = threads_of(options_.identity.hardware, order).words();
  }
  frame.controls = options_.controls;
  frame.limits = limits_for(order, frame);
  frame.isolate = options_.isolate;
  frame.work_dir = spec.work_dir;
  frame.time_limit_us = limit_us(time_limit_of(order));
  frame.kill_grace_us = options_.kill_grace.us;
  frame.warn_signal = spec.warn_signal;
  frame.warn_before_us = spec.warn_before.us;
  frame.warn_batch_only = spec.warn_batch_only;
  JobEnvironmentContext context;
  context.identity = options_.identity;
  context.user = shepherd.user;
  context.ticket_path = prepared.ticket_path;
  frame.prolog = options_.prolog;
  frame.prolog_timeout_us = options_.prolog_timeout.us;
  frame.epilog = options_.epilog;
  frame.epilog_timeout_us = options_.epilog_timeout.us;
  if (!frame.prolog.empty() || !frame.epilog.empty()) {
    frame.hook_environment = hook_environment(order, context);
  }
  frame.has_script = !prepared.script.empty();
  if (!frame.has_script) {
    return frame;
  }
  frame.script = prepared.script;
  frame.args = spec.args;
  static const std::vector<std::string> kNothing;
  frame.environment = batch_environment(order, context, shepherd.environment ? *shepherd.environment : kNothing);
  const std::string_view standard = order.array.value != 0 ? kDefaultArrayOutput : kDefaultOutput;
  frame.stdout_path = output_path(order, spec.stdout_path.empty() ? std::string(standard) : spec.stdout_path);
  frame.stderr_path = spec.stderr_path.empty() ? "" : output_path(order, spec.stderr_path);
  frame.stdin_path = spec.stdin_path.empty() ? "" : output_path(order, spec.stdin_path);
  // What earlier attempts wrote is kept, unless the user said otherwise.
  frame.append = spec.open_mode == OpenMode::kAppend || (order.key.attempt.value > 1 && !spec.open_mode_given);
  return frame;
}

// ---------------------------------------------------------------- shepherds

void AttemptTable::connect(AttemptKey key, io::Fd socket) {
  Shepherd& shepherd = shepherds_[key];
  shepherd.process_watcher.reset();
  shepherd.process.reset();
  shepherd.unreachable = false;
  shepherd.watcher.reset();
  shepherd.socket = std::move(socket);
  shepherd.reader = FrameReader();
  shepherd.out.clear();
  shepherd.out_sent = 0;
  auto watcher = io::FdWatcher::start(*options_.loop, shepherd.socket.get(), io::FdWatcher::kReadable,
                                      [this, key](unsigned events) { on_events(key, events); });
  MUSTER_CHECK(watcher.ok());  // a socket can be watched
  shepherd.watcher.emplace(std::move(*watcher));
}

Status AttemptTable::attach(AttemptKey key, const ShepherdRecord& record) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (record.socket == kNoSocket) {
    return make_error(ErrorCode::kUnavailable, "it could not make its socket");
  }
  if (record.socket.size() + 1 > sizeof(address.sun_path)) {
    return make_error(ErrorCode::kCorrupt, "a shepherd's record names an impossible socket");
  }
  std::memcpy(address.sun_path + 1, record.socket.data(), record.socket.size());  // abstract: it begins with a NUL
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + record.socket.size());
  // Never waiting: a shepherd that is stopped accepts nobody.
  io::Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) {
    return io::errno_error("make", "a socket", errno);
  }
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    return io::errno_error("connect to", "a shepherd's socket", errno);
  }
  // Of the process that listens there. Abstract sockets belong to whoever comes first.
  ucred peer{};
  socklen_t peer_size = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) != 0) {
    return io::errno_error("ask who listens at", "a shepherd's socket", errno);
  }
  if (peer.pid != record.pid || peer.uid != ::geteuid()) {
    return make_error(ErrorCode::kPermissionDenied, "process " + std::to_string(peer.pid) + " of user " +
                                                        std::to_string(peer.uid) + " listens at a shepherd's socket");
  }
  connect(key, std::move(socket));
  write_frame(shepherds_[key], AttachFrame{});
  return ok_status();
}

void AttemptTable::write_frame(Shepherd& shepherd, const Frame& frame) {
  if (!shepherd.socket.valid()) {
    return;
  }
  shepherd.out += encode_frame(frame);
  flush(shepherd);
}

// A shepherd of the release before knows no warning, and its time limit does not stand still.
void AttemptTable::write_stop(Shepherd& shepherd, std::int32_t notice_signal, Duration notice) {
  if (shepherd.version >= kOrdersProtocolVersion && (notice_signal != 0 || notice > Duration{})) {
    write_frame(shepherd, NoticeFrame{notice_signal, notice.us, options_.kill_grace.us});
  } else {
    write_frame(shepherd, StopFrame{0, options_.kill_grace.us});
  }
}

void AttemptTable::write_suspend(const agent::SuspendAttempt& order) {
  Shepherd& shepherd = shepherds_[order.key];
  if (order.gives_cores && shepherd.version >= kStandStillProtocolVersion) {
    write_frame(shepherd, StandStillFrame{order.number});
    return;
  }
  if (shepherd.version >= kOrdersProtocolVersion) {
    write_frame(shepherd, SuspendFrame{order.suspend});
  } else {
    write_frame(shepherd, StopFrame{order.suspend ? SIGSTOP : SIGCONT, 0});
  }
  if (order.gives_cores) {
    perform(agent::on_stood_still(state_, order.key, order.number));  // it gives no answer, and obeys at once
  }
}

void AttemptTable::flush(Shepherd& shepherd) {
  while (shepherd.out_sent < shepherd.out.size()) {
    const ssize_t n = ::send(shepherd.socket.get(), shepherd.out.data() + shepherd.out_sent,
                             shepherd.out.size() - shepherd.out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      break;  // full: go on when it is writable; broken: reading says so
    }
    shepherd.out_sent += static_cast<std::size_t>(n);
  }
  if (shepherd.out_sent == shepherd.out.size()) {
    shepherd.out.clear();
    shepherd.out_sent = 0;
  }
  if (shepherd.watcher) {
    shepherd.watcher->set_events(io::FdWatcher::kReadable | (shepherd.out.empty() ? 0U : io::FdWatcher::kWritable));
  }
}

void AttemptTable::on_events(AttemptKey key, unsigned events) {
  auto it = shepherds_.find(key);
  if (it == shepherds_.end()) {
    return;
  }
  if ((events & io::FdWatcher::kWritable) != 0) {
    flush(it->second);
  }
  const int fd = it->second.socket.get();
  char buffer[64U << 10U];
  for (int i = 0; i < kReadsPerEvent; ++i) {
    const ssize_t n = ::recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      return;
    }
    if (n <= 0) {
      on_disconnected(key);
      return;
    }
    it->second.reader.append(std::string_view(buffer, static_cast<std::size_t>(n)));
    while (true) {
      Frame frame;
      auto got = it->second.reader.next(frame);
      if (!got.ok()) {
        io::log_error("closing a shepherd's connection", {{"attempt", text_of(key)}, {"error", got.error().message}});
        on_disconnected(key);
        return;
      }
      if (!*got) {
        break;
      }
      on_frame(key, frame);
      it = shepherds_.find(key);  // the frame may have been the last
      if (it == shepherds_.end() || it->second.socket.get() != fd) {
        return;
      }
    }
    if (n < static_cast<ssize_t>(sizeof(buffer))) {
      return;
    }
  }
}

void AttemptTable::on_frame(AttemptKey key, const Frame& frame) {
  std::visit(
      [&](const auto& f) {
        using T = std::decay_t<decltype(f)>;
        if constexpr (std::is_same_v<T, StartedFrame>) {
          on_ready(key, {});
        } else if constexpr (std::is_same_v<T, StoodStillFrame>) {
          perform(agent::on_stood_still(state_, key, f.number));
        } else if constexpr (std::is_same_v<T, StateFrame>) {
          shepherds_[key].attempts_to_reach = 0;
          shepherds_[key].version = f.version;
          if (f.started) {
            on_ready(key, f.steps);
          }
        } else if constexpr (std::is_same_v<T, EndedFrame>) {
          shepherds_[key].ended = true;
          Outcome outcome = f.outcome;
          if (const auto recorded = spool_.read_outcome(key)) {
            outcome.ended_at = recorded->ended_at;
          } else {
            // The shepherd could not write it; perhaps there is room again.
            record_end(key, outcome, true);
          }
          ended(key, outcome);
        } else if constexpr (std::is_same_v<T, StepOutputFrame> || std::is_same_v<T, StepTaskEndedFrame> ||
                             std::is_same_v<T, StepEndedFrame> || std::is_same_v<T, StepInputTakenFrame> ||
                             std::is_same_v<T, StepTaskBoundFrame>) {
          if constexpr (std::is_same_v<T, StepTaskBoundFrame>) {
            if (f.step == kScriptStep) {
              return on_script_bound(key, f);
            }
          }
          on_step_frame(key, f.step, frame);
        }
        // Frames that only noded sends are ignored.
      },
      frame);
}

void AttemptTable::on_ready(AttemptKey key, const std::vector<std::uint32_t>& steps) {
  shepherds_[key].running = true;
  const auto known = state_.attempts.find(key);
  if (known != state_.attempts.end() && known->second.phase == agent::AttemptPhase::kStopping) {
    // The stop was ordered while nobody could be told.
    write_stop(shepherds_[key], known->second.notice_signal, known->second.notice);
  } else if (known != state_.attempts.end() && known->second.phase == agent::AttemptPhase::kRunning &&
             known->second.suspend_number != 0) {
    write_suspend(agent::suspend_effect(key, known->second));
  }
  if (known != state_.attempts.end() && known->second.phase == agent::AttemptPhase::kRunning && known->second.limit) {
    send_limit(key, *known->second.limit);
  }
  perform(agent::on_started(state_, key));
  for (const OnRunning& callback : running_callbacks_) {
    callback(key, steps);
  }
}

void AttemptTable::on_script_bound(AttemptKey key, const StepTaskBoundFrame& frame) {
  const auto known = state_.attempts.find(key);
  if (known == state_.attempts.end() || known->second.order == nullptr) {
    return;
  }
  const LaunchOrder& order = *known->second.order;
  const Verdict verdict = noded::prove(
      options_.identity, {.threads = threads_of(options_.identity.hardware, order), .gpus = order.share.gpus}, frame);
  if (!verdict.fault.empty()) {
    io::log_warning("a batch script is not bound as decided", {{"attempt", text_of(key)}, {"fault", verdict.fault}});
  }
  prove(key, verdict, false);
}

void AttemptTable::prove(AttemptKey key, const Verdict& verdict, bool more) {
  perform(agent::on_proven(state_, key, verdict, more));
}

void AttemptTable::on_step_frame(AttemptKey key, std::uint32_t step, const Frame& frame) {
  auto it = subscriptions_.find({key, step});
  if (it == subscriptions_.end()) {
    return;
  }
  const OnStepFrame callback = it->second;  // it may unsubscribe itself
  callback(frame);
  if (std::holds_alternative<StepEndedFrame>(frame)) {
    subscriptions_.erase({key, step});
  }
}

void AttemptTable::on_disconnected(AttemptKey key) {
  auto it = shepherds_.find(key);
  if (it == shepherds_.end()) {
    return;
  }
  it->second.watcher.reset();
  it->second.socket.reset();
  it->second.running = false;
  if (it->second.ended) {
    shepherds_.erase(it);
    return;
  }
  reach_again(key);
}

void AttemptTable::reach_again(AttemptKey key) {
  auto it = shepherds_.find(key);
  if (it == shepherds_.end() || it->second.socket.valid()) {
    return;
  }
  // Alive is asked first: one that ends in between has written its outcome before.
  const auto record = spool_.read_shepherd(key);
  if (record && is_alive(*record)) {
    const Status status = attach(key, *record);
    if (status.ok()) {
      return;
    }
    // Its job is healthy for all that is known, so nothing is done to it.
    Shepherd& shepherd = it->second;
    if (!shepherd.unreachable && (++shepherd.attempts_to_reach > kReachAttemptsMax || record->socket == kNoSocket)) {
      shepherd.unreachable = true;
      io::log_error("a shepherd cannot be reached; its job goes on, without steps and signals",
                    {{"attempt", text_of(key)}, {"pid", record->pid}, {"error", status.error().message}});
    }
    watch_process(key, *record);
    stop_unreachable(key);
    if (shepherd.retry == nullptr) {
      shepherd.retry = std::make_unique<io::Timer>(*options_.loop, [this, key] { reach_again(key); });
    }
    shepherd.retry->start_once(shepherd.unreachable ? kReachIntervalLong : options_.reach_interval);
    return;
  }
  if (const auto outcome = spool_.read_outcome(key)) {
    ended(key, *outcome);
    shepherds_.erase(key);
    return;
  }
  const std::string cgroup = record && !record->cgroup.empty() ? record->cgroup : it->second.cgroup;
  io::log_error("a shepherd died", {{"attempt", text_of(key)}, {"pid", record ? record->pid : 0}});
  shepherds_.erase(key);
  bury(key, cgroup);
}

// Without it (no pidfd, or none left) the end is noticed when the shepherd is tried the next time.
void AttemptTable::watch_process(AttemptKey key, const ShepherdRecord& record) {
  Shepherd& shepherd = shepherds_[key];
  if (shepherd.process_watcher) {
    return;
  }
  io::Fd process(static_cast<int>(::syscall(SYS_pidfd_open, record.pid, 0)));
  if (!process.valid() || !is_alive(record)) {  // else the number might be another process's by now
    return;
  }
  auto watcher = io::FdWatcher::start(*options_.loop, process.get(), io::FdWatcher::kReadable, [this, key](unsigned) {
    const auto it = shepherds_.find(key);
    if (it != shepherds_.end()) {
      it->second.process_watcher.reset();
      it->second.process.reset();
      reach_again(key);
    }
  });
  if (watcher.ok()) {
    shepherd.process = std::move(process);
    shepherd.process_watcher.emplace(std::move(*watcher));
  }
}

// A shepherd that no frame reaches takes TERM as the order to end its attempt.
void AttemptTable::stop_unreachable(AttemptKey key) {
  const Shepherd& shepherd = shepherds_[key];
  const auto known = state_.attempts.find(key);
  if (shepherd.unreachable && shepherd.process.valid() && known != state_.attempts.end() &&
      known->second.phase == agent::AttemptPhase::kStopping) {
    (void)::syscall(SYS_pidfd_send_signal, shepherd.process.get(), SIGTERM, nullptr, 0);
  }
}

// What a dead shepherd left of it, with all its groups.
bool AttemptTable::kill_rest(AttemptKey key, const std::string& cgroup) const {
  std::vector<std::string> groups{cgroup};
  for (const std::string& parent : options_.group_parents) {
    groups.push_back(parent + "/" + text_of(key));
  }
  return kill_leftovers(key, options_.identity.name, groups);
}

void AttemptTable::bury(AttemptKey key, const std::string& cgroup) {
  if (!kill_rest(key, cgroup)) {
    auto& timer = burials_[key];
    // A timer that runs may not be replaced from within itself.
    if (timer == nullptr) {
      timer = std::make_unique<io::Timer>(*options_.loop, [this, key, cgroup] { bury(key, cgroup); });
    }
    timer->start_once(kBuryInterval);
    return;
  }
  options_.loop->defer([this, key] { burials_.erase(key); });
  const Outcome outcome = failed(EndCause::kShepherdDied, "the process that supervised the job died");
  record_end(key, outcome, false);
  ended(key, outcome);
}

void AttemptTable::ended(AttemptKey key, const Outcome& told) {
  Outcome outcome = told;
  if (!outcome.ended_at.is_set() && outcome.cause != EndCause::kNodeLost) {
    outcome.ended_at = io::wall_now();  // it is told at once
  }
  io::log_debug("attempt ended", {{"attempt", text_of(key)},
                                  {"cause", to_string(outcome.cause)},
                                  {"exit_code", outcome.exit_code},
                                  {"signal", outcome.signal},
                                  {"detail", outcome.detail}});
  subscriptions_.erase(subscriptions_.lower_bound({key, 0}), subscriptions_.upper_bound({key, UINT32_MAX}));
  perform(agent::on_ended(state_, key, outcome));
  note_trouble(outcome);
  for (const OnEnded& callback : ended_callbacks_) {
    callback(key, outcome);
  }
}

void AttemptTable::note_trouble(const Outcome& outcome) {
  const bool trouble = outcome.fault != NodeFault::kNone || outcome.cause == EndCause::kLaunchFailed ||
                       outcome.cause == EndCause::kOutputFailed || outcome.cause == EndCause::kShepherdDied;
  if (trouble && options_.trouble) {
    options_.trouble();
  }
}

void AttemptTable::record_end(AttemptKey key, const Outcome& outcome, bool durable) {
  // Told all the same when it fails: a full disk must not hold up the controller.
  if (const Status status = spool_.write_outcome(key, outcome, durable); !status.ok()) {
    io::log_error("cannot record an outcome", {{"attempt", text_of(key)}, {"error", status.error().message}});
  }
}

// ---------------------------------------------------------------- Attempts

AttemptInfo AttemptTable::info_of(AttemptKey key, const agent::AgentAttempt& attempt) const {
  AttemptInfo info;
  info.order = attempt.order;
  info.stopping = attempt.phase == agent::AttemptPhase::kStopping || attempt.stop != StopCause::kNone;
  auto it = shepherds_.find(key);
  if (it != shepherds_.end()) {
    const Shepherd& shepherd = it->second;
    info.directory = shepherd.directory;
    info.ticket = shepherd.ticket;
    info.ticket_path = shepherd.ticket_path;
    info.user = shepherd.user;
    info.running = shepherd.running;
    info.protocol = shepherd.version;
    info.environment = shepherd.environment;
  }
  return info;
}

Result<AttemptInfo> AttemptTable::find(AttemptKey key) const {
  auto it = state_.attempts.find(key);
  if (it == state_.attempts.end() || it->second.phase == agent::AttemptPhase::kEnded || it->second.order == nullptr) {
    return make_error(ErrorCode::kNotFound, "job " + std::to_string(key.job.value) + " does not run on node " +
                                                options_.identity.name + ": it has ended, or has not begun there");
  }
  return info_of(key, it->second);
}

Result<AttemptInfo> AttemptTable::find_job(JobId job) const {
  auto it = state_.attempts.upper_bound(AttemptKey{job, Attempt{UINT32_MAX}});
  while (it != state_.attempts.begin() && (--it)->first.job == job) {
    if (it->second.phase != agent::AttemptPhase::kEnded && it->second.order != nullptr) {
      return info_of(it->first, it->second);
    }
  }
  return make_error(ErrorCode::kNotFound, "job " + std::to_string(job.value) + " does not run on node " +
                                              options_.identity.name + ": it has ended, or has not begun there");
}

Status AttemptTable::send(AttemptKey key, const Frame& frame) {
  auto it = shepherds_.find(key);
  if (it == shepherds_.end() || it->second.ended) {
    return make_error(ErrorCode::kNotFound, "job " + std::to_string(key.job.value) + " does not run here");
  }
  if (!it->second.running || !it->second.socket.valid()) {
    return make_error(ErrorCode::kUnavailable,
                      "the supervisor of job " + std::to_string(key.job.value) + " is not connected: try again");
  }
  if (it->second.out.size() > kOutBytesMax) {
    return make_error(ErrorCode::kLimitReached,
                      "the supervisor of job " + std::to_string(key.job.value) + " does not read: try again");
  }
  std::string encoded = encode_frame(frame);
  if (encoded.size() > kFrameBytesMax) {  // the supervisor would take the connection for damaged
    return make_error(ErrorCode::kRefused, "the arguments and variables of all tasks on a node have " +
                                               std::to_string(encoded.size() >> 20U) + " MiB, at most " +
                                               std::to_string((kFrameBytesMax >> 20U) - 1) +
                                               " can be given: shorten them, or start fewer tasks in a step");
  }
  it->second.out += encoded;
  flush(it->second);
  return ok_status();
}

void AttemptTable::subscribe(AttemptKey key, std::uint32_t step, OnStepFrame callback) {
  subscriptions_[{key, step}] = std::move(callback);
}

void AttemptTable::unsubscribe(AttemptKey key, std::uint32_t step) {
  subscriptions_.erase({key, step});
}

Status AttemptTable::finish(AttemptKey key, const Outcome& outcome) {
  return send(key, FinishFrame{outcome});
}

}  // namespace muster::noded

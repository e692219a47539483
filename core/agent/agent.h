// The node's half of the launch protocol: what a node knows about attempts, as a value, and what its shell must do
// next.
//
// Owned by muster-noded (and by the simulation), on its loop thread. Pure: every function takes an event, changes the
// state and returns effects, which the shell performs in the order given. Every function may be called again with the
// same event.
//
// What it guarantees, together with a shell that keeps the contracts written at the effects:
//  - (job, attempt) starts at most once on this node, whatever is sent twice, late or out of order;
//  - an end is reported until the controller has acknowledged it, over restarts of both;
//  - messages of an older controller (a lower term) change nothing.
//
// How long the node remembers. The record of an ended attempt lives on disk until the controller acknowledges it: from
// then on the end is in the controller's journal, and no later decision of the controller launches or stops that
// attempt again. What can still arrive is what was sent before: a message of an older term is refused by its term
// (which is on disk), and one of the same term can be overtaken only within one connection's life. So the last
// kForgottenMax acknowledged ends stay in memory to answer those, and need not survive a restart, which also ends the
// connection.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/model/orders.h"

namespace muster::agent {

// Most attempts that a node keeps at a time; further orders are dropped as if the network had lost them, and the
// controller repeats them at the next registration. A node holds one attempt per core at most in practice; the rest is
// room for ends that wait for a controller that is down.
inline constexpr std::size_t kAttemptsMax = 100'000;
// Acknowledged ends kept in memory (about 130 bytes each, 2 MiB in all): 20 s of the fastest launching one node
// reaches, while a message overtaken inside one connection is late by milliseconds.
inline constexpr std::size_t kForgottenMax = 16'384;

enum class AttemptPhase : std::uint8_t {
  kStarting,  // StartAttempt was ordered; the shell has not said that the shepherd began
  kRunning,   // the shepherd has begun
  kStopping,  // running, and StopAttempt was ordered
  kEnded,     // nothing of it is left; `outcome` is on disk and waits for the acknowledgement
};

struct AgentAttempt {
  std::shared_ptr<const LaunchOrder> order;  // null: a tombstone, or a record whose order could not be read
  AttemptPhase phase = AttemptPhase::kStarting;
  Outcome outcome;                      // when kEnded
  StopCause stop = StopCause::kNone;    // the stop that was ordered, also while still starting
  std::int32_t pending_signal = 0;      // a signal to send as soon as it has started; 0: none
  std::optional<Duration> limit;        // the time limit that was ordered since the launch
  std::int32_t notice_signal = 0;       // of the stop: this signal first ...
  Duration notice;                      // ... and the stop so much later
  bool suspended = false;               // as the newest order said
  std::uint64_t suspend_number = 0;     // of that order; 0: none came to this life of the daemon
  bool gives_cores = false;             // that order says so
  std::uint64_t stood_still = 0;        // the number of the order that it obeys and that gives its cores away
  std::optional<PlacementProof> proof;  // what the shell read back of its tasks so far
};

struct AgentState {
  std::string node;   // this node's name
  Term highest_term;  // of any message heard; on disk (RecordTerm)
  std::map<AttemptKey, AgentAttempt> attempts;
  // Acknowledged ends, and the order in which they were acknowledged (oldest first).
  std::map<AttemptKey, Outcome> forgotten;
  std::deque<AttemptKey> forgotten_order;
};

// ---- effects

// Write the launch record (created exclusively, in place before anything else is done), make the cgroup, start the
// shepherd. Then call on_started when the shepherd has begun, or on_launch_failed when nothing was started.
struct StartAttempt {
  std::shared_ptr<const LaunchOrder> order;
};
// Tell the shepherd to end the attempt (signal 0: TERM, kill_grace, KILL), or only to send `signal`. The first is
// ordered again whenever the controller repeats it: a shepherd that is already stopping goes on as it was, and its
// grace does not begin again.
struct StopAttempt {
  AttemptKey key;
  std::int32_t signal = 0;
  StopCause cause = StopCause::kCancelled;
  std::int32_t notice_signal = 0;  // as in StopOrder
  Duration notice = {};
  friend bool operator==(const StopAttempt&, const StopAttempt&) = default;
};
// Tell the shepherd to let the attempt's processes stand still, or go on. May be ordered again. With gives_cores:
// on_stood_still when nothing of it runs any more, with the number, also when it stood still before; from then on
// nothing of it runs until it is told to go on, also when it ends.
struct SuspendAttempt {
  AttemptKey key;
  bool suspend = false;
  bool gives_cores = false;
  std::uint64_t number = 0;
  friend bool operator==(const SuspendAttempt&, const SuspendAttempt&) = default;
};
// Make "this attempt has ended so" durable before performing any later effect. The attempt may have no record yet (a
// stop that came before its launch, a refused launch): after a restart the record is given to recover() as ended.
struct RecordEnd {
  AttemptKey key;
  Outcome outcome;
  friend bool operator==(const RecordEnd&, const RecordEnd&) = default;
};
// Make the term durable before performing any later effect. Comes at most once for each start of the controller.
struct RecordTerm {
  Term term;
  friend bool operator==(const RecordTerm&, const RecordTerm&) = default;
};
// Send to the controller if it is connected; otherwise drop: registration and retry_reports() say it again.
struct SendReport {
  AttemptReport report;
  friend bool operator==(const SendReport&, const SendReport&) = default;
};
// Delete the attempt's record and spool.
struct ForgetAttempt {
  AttemptKey key;
  friend bool operator==(const ForgetAttempt&, const ForgetAttempt&) = default;
};
// For the log: an order that was not obeyed, and why.
struct NoteRefusal {
  AttemptKey key;
  std::string reason;
  friend bool operator==(const NoteRefusal&, const NoteRefusal&) = default;
};

// Tell the shepherd its new time limit, which counts from its start. Need not survive the daemon: the shepherd remembers it,
// and the controller repeats the order whenever the node registers.
struct SetLimit {
  AttemptKey key;
  Duration limit;
  friend bool operator==(const SetLimit&, const SetLimit&) = default;
};

using AgentEffect = std::variant<StartAttempt, StopAttempt, RecordEnd, RecordTerm, SendReport, ForgetAttempt,
                                 NoteRefusal, SetLimit, SuspendAttempt>;
using AgentEffects = std::vector<AgentEffect>;

// ---- start of the daemon: recorded_term, recover() for every record on disk, and only then registration

// `recorded` is the last RecordTerm, 0 if there is none.
AgentState initial_state(std::string node, Term recorded);

// What the shell found of a record that an earlier life of the daemon left.
struct FoundNotBegun {};  // the shepherd surely never began (it takes an exclusive mark first): it is started now
struct FoundRunning {};   // its shepherd lives
struct FoundStarting {
};  // its shepherd lives, and what comes before the attempt's first process is not over: on_started follows
struct FoundEnded {  // also: its shepherd died, or the boot id differs (EndCause::kNodeLost)
  Outcome outcome;
};
using Found = std::variant<FoundNotBegun, FoundRunning, FoundEnded, FoundStarting>;
// `order` is null when the record has none (a tombstone) or is unreadable; FoundNotBegun needs it. The shell has made
// a FoundEnded durable where it was not.
AgentEffects recover(AgentState& state, AttemptKey key, std::shared_ptr<const LaunchOrder> order, const Found& found);

// What belongs into NodeRegistration::attempts: everything that has begun or ended and is not yet acknowledged.
// Attempts that are still starting are left out: nothing durable may stand behind them yet, and the controller, which
// then repeats the launch, hears of them as soon as they run.
std::vector<AttemptReport> registered_attempts(const AgentState& state);

// ---- messages of the controller

// Call first for every message, with the term in its envelope. False: the sender has been replaced; drop the message.
bool hear_term(AgentState& state, Term term, AgentEffects& effects);
AgentEffects on_launch(AgentState& state, const std::shared_ptr<const LaunchOrder>& order);
// In place of on_launch, for a launch that the shell must not begin: one that it cannot read beyond its key, or whose
// term it cannot record.
AgentEffects on_launch_refused(AgentState& state, AttemptKey key, std::string reason);
AgentEffects on_stop(AgentState& state, const StopOrder& order);
// For an attempt that the node knows and that has not ended; else nothing.
AgentEffects on_limit(AgentState& state, const LimitOrder& order);
// An order with a lower number than one that came before says nothing any more. For an attempt that is not known or has
// ended it does nothing: the controller repeats it when it hears that the attempt runs.
AgentEffects on_suspend(AgentState& state, const SuspendOrder& order);
// The controller has committed the end that we reported. Ignored for an attempt that has not ended.
AgentEffects on_acknowledged(AgentState& state, AttemptKey key);

// ---- what happens on the node

AgentEffects on_started(AgentState& state, AttemptKey key);
// Nothing was started (no interpreter, no working directory, fork failed, ...).
AgentEffects on_launch_failed(AgentState& state, AttemptKey key, Outcome outcome);
// Nothing of it runs, as the SuspendAttempt with this number and gives_cores asked.
AgentEffects on_stood_still(AgentState& state, AttemptKey key, std::uint64_t number);
// The shell read back where a task of the attempt is; `more`: others of its step on this node have yet to be. What is known
// of the first step and the first fault is reported at once, the rest with the next report. It is lost with the daemon.
AgentEffects on_proven(AgentState& state, AttemptKey key, const Verdict& verdict, bool more);
// Nothing of the attempt is left, and `outcome` is on disk (the shepherd wrote it; for one that died the shell did).
AgentEffects on_ended(AgentState& state, AttemptKey key, Outcome outcome);

// ---- time

// Reports of ends that are not acknowledged; call every few seconds while connected, at most `max` a time.
AgentEffects retry_reports(const AgentState& state, std::size_t max);

// ---- help for shells

AttemptReport report_of(AttemptKey key, const AgentAttempt& attempt);
// The newest order to suspend or to continue, for a shepherd that may not have heard it.
SuspendAttempt suspend_effect(AttemptKey key, const AgentAttempt& attempt);
// Empty when all is well, else the broken rule. Tests and the simulation call it after every step.
std::string check_invariants(const AgentState& state);

}  // namespace muster::agent

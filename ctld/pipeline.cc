#include "ctld/pipeline.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <variant>

#include "core/engine/deadline.h"
#include "core/engine/failures.h"
#include "lib/io/clock.h"
#include "lib/io/log.h"

namespace muster::ctld {
namespace {

// Whether the fact may let a job start that could not before. Ends of attempts free resources; confirmations do not.
bool calls_for_plan(const Fact& fact) {
  return std::visit(
      [](const auto& body) {
        using T = std::decay_t<decltype(body)>;
        return std::is_same_v<T, JobSubmitted> || std::is_same_v<T, JobReleased> || std::is_same_v<T, JobHeld> ||
               std::is_same_v<T, NodeRegistered> || std::is_same_v<T, NodeResumed> || std::is_same_v<T, NodeDrained> ||
               std::is_same_v<T, NodeBecameUnreachable> || std::is_same_v<T, AttemptEndedOnNode> ||
               std::is_same_v<T, JobEnded> || std::is_same_v<T, ArrayTasksEnded> || std::is_same_v<T, JobUpdated> ||
               std::is_same_v<T, AttemptTimeLimitChanged> || std::is_same_v<T, AttemptResumed> ||
               std::is_same_v<T, AttemptStoodStill> || std::is_same_v<T, ArrayTasksHeld> ||
               std::is_same_v<T, ArrayTasksReleased> || std::is_same_v<T, AccountSet> ||
               std::is_same_v<T, AccountRemoved> || std::is_same_v<T, UserSet> || std::is_same_v<T, UserRemoved> ||
               std::is_same_v<T, QosSet> || std::is_same_v<T, QosRemoved> || std::is_same_v<T, JobRequeued> ||
               std::is_same_v<T, ReservationMade> || std::is_same_v<T, ReservationRemoved> ||
               std::is_same_v<T, NodeHealthChanged> || std::is_same_v<T, NodeFaulted> ||
               std::is_same_v<T, NodeBlamed> || std::is_same_v<T, NodeTrusted>;
      },
      fact.body);
}

}  // namespace

struct Pipeline::Open {
  Batch batch;
  Effects effects;
  std::vector<std::function<void()>> after;
  std::uint64_t after_bytes = 0;
  std::set<Digest> blobs;
  std::uint64_t blob_bytes = 0;

  [[nodiscard]] bool empty() const { return batch.facts.empty() && effects.empty() && after.empty(); }
};

Pipeline::Pipeline(io::Loop& loop, engine::State state, sched::Policy policy, PipelineLimits limits,
                   PipelineHooks hooks)
    : loop_(loop),
      state_(std::move(state)),
      policy_(std::move(policy)),
      limits_(limits),
      hooks_(std::move(hooks)),
      open_(std::make_unique<Open>()),
      begin_timer_(loop,
                   [this] {
                     want_plan();
                     arm_begin_timer();
                   }),
      deadline_timer_(loop,
                      [this] {
                        deadline_armed_.reset();
                        (void)execute(Tick{});
                        arm_deadline_timer();
                      }),
      refresh_timer_(loop,
                     [this] {
                       forget_plan();  // also when the wall clock was set back and seems to stand still
                       want_plan();
                     }),
      reunion_timer_(loop, [this] { want_plan(); }) {
  for (const auto* records : {&state_.jobs, &state_.arrays}) {
    for (const auto& [id, job] : *records) {
      if (job.spec->begin.is_set() && !job.is_active()) {
        begins_.insert(job.spec->begin);
      }
    }
  }
  arm_begin_timer();
  arm_deadline_timer();
}

Pipeline::~Pipeline() = default;

void Pipeline::abandon_state() {
  // Still reachable, so that it is no leak; volatile, or the compiler drops a variable that nobody reads.
  [[maybe_unused]] static const engine::State* volatile abandoned = nullptr;
  abandoned = new engine::State(std::move(state_));
}

Instant Pipeline::now() {
  last_now_ = std::max({last_now_, state_.now, io::wall_now()});
  return last_now_;
}

Result<engine::Decision> Pipeline::test(const Command& command) {
  return engine::decide(state_, policy_, command, now());
}

Result<engine::Decision> Pipeline::execute(const Command& command) {
  auto decision = engine::decide(state_, policy_, command, now());
  if (decision.ok()) {
    take(*decision);
  }
  return decision;
}

Result<engine::Decision> Pipeline::change_settings(const engine::ChangeSettings& command, sched::Policy next) {
  auto decision = engine::decide_settings(state_, policy_, next, command, now());
  if (decision.ok()) {
    policy_ = std::move(next);
    plan_memory_ = {};
    plan_wanted_ = true;
    take(*decision);
  }
  return decision;
}

// Applies the facts; what the decision is for others (ids, notes) stays in it.
void Pipeline::take(engine::Decision& decision) {
  auto& open = *open_;
  const std::size_t first_effect = open.effects.size();
  for (auto& fact : decision.facts) {
    engine::apply(state_, fact, open.effects);
    plan_wanted_ = plan_wanted_ || calls_for_plan(fact);
    if (std::holds_alternative<TermStarted>(fact.body)) {
      term_start_ = fact.at;
    }
    if (const auto* submitted = std::get_if<JobSubmitted>(&fact.body)) {
      watch_begin(submitted->spec->begin);
    } else if (std::holds_alternative<ReservationMade>(fact.body)) {
      arm_begin_timer();
    }
    if (const auto* updated = std::get_if<JobUpdated>(&fact.body)) {
      watch_begin(updated->spec->begin);
      forget_plan();  // it may remember a place for what the job asked for before
    }
    open.batch.facts.push_back(fact);
  }
  arm_deadline_timer();
  for (std::size_t i = first_effect; i < open.effects.size(); ++i) {
    if (const auto* record = std::get_if<RecordHistory>(&open.effects[i])) {
      open.batch.history.push_back(record->summary);
    } else if (const auto* met = std::get_if<DependencyMet>(&open.effects[i])) {
      plan_wanted_ = true;
      watch_begin(met->at);
    }
  }
  for (auto& effect : decision.effects) {
    open.effects.push_back(std::move(effect));
  }
  decision.effects.clear();
  schedule_flush();
}

void Pipeline::add_blob(const Digest& digest, const std::string& bytes) {
  if (open_->blobs.insert(digest).second) {
    open_->blob_bytes += bytes.size();
    open_->batch.blobs.push_back(BlobData{digest, bytes});
  }
}

void Pipeline::after_commit(std::function<void()> fn, std::uint64_t bytes) {
  open_->after.push_back(std::move(fn));
  open_->after_bytes += bytes;
  ++held_;
  held_bytes_ += bytes;
  schedule_flush();
}

void Pipeline::want_plan() {
  plan_wanted_ = true;
  schedule_flush();
}

bool Pipeline::full() const {
  return open_->batch.facts.size() >= limits_.batch_facts_max || open_->blob_bytes >= limits_.batch_bytes_max ||
         held_ >= limits_.held_max || held_bytes_ >= limits_.held_bytes_max;
}

bool Pipeline::settled() const {
  return open_->empty() && !under_way_;
}

void Pipeline::schedule_flush() {
  if (!std::exchange(flush_scheduled_, true)) {
    loop_.defer([this, alive = std::weak_ptr<int>(alive_)] {
      if (!alive.expired()) {
        flush_scheduled_ = false;
        flush();
      }
    });
  }
}

void Pipeline::flush() {
  if (journal_ == nullptr || !journal_->idle()) {
    return;  // on_committed() comes back here
  }
  plan_slice();
  if (!open_->batch.facts.empty()) {
    close_batch();
  } else if (!open_->empty()) {
    // Nothing new is known, and all that was known is on disk.
    finish(std::exchange(open_, std::make_unique<Open>()));
  }
}

// After a start of the controller the nodes come back one after the other. Who plans before they are all there gives the
// places of promised jobs away.
Duration Pipeline::reunion_wait() {
  const Instant until = term_start_ + limits_.reunion_max;
  const Instant current = now();
  if (current >= until) {
    return {};
  }
  const bool missing = std::any_of(state_.nodes.begin(), state_.nodes.end(), [this](const Node& node) {
    return node.contact == Contact::kUnreachable && !node.is_drained() && node.since == term_start_;
  });
  return missing ? until - current : Duration{};
}

Instant Pipeline::planning_waits_until() {
  return reunion_wait() > Duration{} ? term_start_ + limits_.reunion_max : Instant{};
}

// What the planner remembers may be wrong now. A pass that rests begins anew, with more patience, as after any change.
void Pipeline::forget_plan() {
  const std::uint64_t patience = plan_memory_.patience * (plan_memory_.resting != nullptr ? 2 : 1);
  plan_memory_ = {};
  plan_memory_.patience = std::min(patience, engine::kPatienceMax);
}

void Pipeline::plan_slice() {
  if (!plan_wanted_) {
    return;
  }
  if (const auto wait = reunion_wait(); wait > Duration{}) {
    reunion_timer_.start_once(wait);
    return;
  }
  plan_wanted_ = false;
  const bool rested = plan_memory_.resting != nullptr;
  auto plan = engine::plan(state_, policy_, sched::WorkBudget{}, now(), plan_memory_);
  if (plan_memory_.stale && !refresh_timer_.active()) {
    refresh_timer_.start_once(sched::PlanMemory::kFreshFor);
  }
  if (plan.resting) {
    plan_wanted_ = true;
    schedule_flush();  // what came meanwhile goes first
    return;
  }
  if (plan.look_again.is_set() && !begins_.contains(plan.look_again)) {
    watch_begin(plan.look_again);
  }
  const bool complete = plan.complete;
  auto command = engine::apply_plan(state_, std::move(plan));
  if (command.placements.empty() && command.promises.empty() && command.preemptions.empty() &&
      command.resumes.empty()) {
    return;
  }
  auto decision = execute(std::move(command));
  if (!decision.ok()) {
    io::log_error("a plan was refused", {{"error", decision.error().message}});
    return;
  }
  for (const auto& note : decision->notes) {
    io::log_warning("a placement was refused", {{"why", note}});
  }
  // The rest in the next batch. Without progress the same plan would come again and again, but for one that rested: time
  // has gone on since it began.
  plan_wanted_ = (!complete && decision->matched > 0) || (rested && !decision->notes.empty());
}

void Pipeline::close_batch() {
  under_way_ = std::exchange(open_, std::make_unique<Open>());
  ++batches_;
  Batch batch = std::move(under_way_->batch);
  const std::size_t facts = batch.facts.size();
  const std::uint64_t seq = journal_->append(std::move(batch));
  if (hooks_.closing) {
    hooks_.closing(seq, facts);
  }
  tell_drained();
}

void Pipeline::on_committed(std::uint64_t seq) {
  MUSTER_CHECK(under_way_ != nullptr);
  auto done = std::move(under_way_);
  // The disk works on the next batch while this one's effects go out.
  plan_slice();
  if (!open_->batch.facts.empty()) {
    close_batch();
  }
  if (hooks_.committed) {
    hooks_.committed(seq);
  }
  finish(std::move(done));
  if (plan_wanted_ || !open_->empty()) {
    schedule_flush();
  }
}

void Pipeline::finish(std::unique_ptr<Open> batch) {
  // Replies first: a node learns that it is registered before its launches come.
  for (auto& fn : batch->after) {
    fn();
    fn = nullptr;
  }
  held_ -= batch->after.size();
  held_bytes_ -= batch->after_bytes;
  if (!batch->effects.empty()) {
    hooks_.perform(std::move(batch->effects));
  }
  tell_drained();
}

void Pipeline::tell_drained() {
  if (hooks_.drained && !full()) {
    hooks_.drained();
  }
}

void Pipeline::watch_begin(Instant begin) {
  if (begin > state_.now) {
    begins_.insert(begin);
    arm_begin_timer();
  }
}

void Pipeline::arm_deadline_timer() {
  auto next = engine::next_deadline(state_);
  if (const auto failures = engine::next_of_failures(state_, policy_); failures && (!next || *failures < *next)) {
    next = failures;
  }
  if (next == deadline_armed_) {
    return;
  }
  deadline_armed_ = next;
  if (!next) {
    deadline_timer_.stop();
    return;
  }
  const Duration wait = std::max(Duration{}, *next - now()) + Duration::from_ms(1);
  // As with begin times: a wall clock that was set back must not make the wait much too long.
  deadline_timer_.start_once(std::min(wait, Duration::from_s(60)));
}

void Pipeline::arm_begin_timer() {
  const Instant current = now();
  begins_.erase(begins_.begin(), begins_.upper_bound(current));
  // Windows of reservations begin and end without a fact.
  auto next = state_.windows.next_change(current);
  if (!begins_.empty()) {
    next = next ? std::min(*next, *begins_.begin()) : *begins_.begin();
  }
  if (!next) {
    begin_timer_.stop();
    return;
  }
  // A wall clock that was set back must not make the wait longer than a minute too long.
  begin_timer_.start_once(std::min(*next - current + Duration::from_ms(1), Duration::from_s(60)));
}

}  // namespace muster::ctld

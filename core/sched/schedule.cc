#include "core/sched/schedule.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <tuple>
#include <utility>

#include "core/sched/cursor.h"
#include "core/sched/kept_places.h"
#include "core/sched/near.h"
#include "core/sched/place.h"
#include "core/sched/preempt.h"
#include "core/sched/queue_rules.h"
#include "core/sched/request.h"
#include "core/sched/span.h"
#include "core/sched/standing_still.h"
#include "lib/base/check.h"

namespace muster::sched {

const QueuePolicy* Policy::find_queue(const std::string& name) const {
  const auto it = std::find_if(queues.begin(), queues.end(), [&](const QueuePolicy& q) { return q.name == name; });
  return it == queues.end() ? nullptr : &*it;
}

bool at_array_limit(const Job& job, std::uint64_t more) {
  const std::uint64_t limit = job.is_array_record ? job.spec->array->max_running : 0;
  return limit != 0 && job.array_running + more >= limit;
}

namespace {

// What is served first when gaps are filled has more of these points. One doubling of the size weighs as much as one of
// the age does in the order.
std::int64_t size_points(const JobSpec& spec) {
  const auto limit_us = static_cast<std::uint64_t>(std::max<std::int64_t>(1, spec.time_limit.us));
  return -(log2_q16(limit_us) + log2_q16(cpus_of(spec)));
}

std::int64_t gap_points(const JobSpec& spec, Instant since, const Order& order, BackfillOrder rule, Instant now) {
  switch (rule) {
    case BackfillOrder::kPoints:
      return order.points(spec, since, now);
    case BackfillOrder::kShortest:
      return -spec.time_limit.us;  // to the last second: logarithms would make long limits equal
    case BackfillOrder::kSmallest:
      return size_points(spec) + order.standing(spec);
  }
  return 0;
}

bool may_use_reservation(const Cluster& cluster, const JobSpec& spec, Instant now) {
  return spec.reservation.empty() ||
         (cluster.windows != nullptr && cluster.windows->access(spec, now) == Windows::Access::kOk);
}

// Jobs of a pass that are promised a start beyond the usual number, because they wait for what is being preempted alone.
constexpr std::size_t kPreemptorsMax = 16;

class Pass {
 public:
  Pass(const Cluster& cluster, const Policy& policy, const Order& order, WorkBudget budget, Instant now)
      : cluster_(cluster),
        policy_(policy),
        order_(order),
        budget_(budget),
        now_(now),
        timeline_(timeline_of(cluster, policy, now)),
        rules_(preempt_rules(cluster.accounts)),
        preemptor_(cluster, policy, rules_, now),
        standing_still_(cluster, policy, rules_, now),
        group_(cluster.pending.groups().begin()),
        claims_(policy.queues.size()) {
    if (cluster.accounts != nullptr && cluster.accounts->has_limits()) {
      limits_.emplace(*cluster.accounts, now);
    }
  }

  Outlook run_on(std::uint32_t depth) {
    advance(UINT64_MAX);
    Plan plan = take();
    std::vector<Promise> expected;
    if (policy_.rules.backfill == Backfill::kNone) {
      for (const Promise& head : plan.kept) {
        const JobSpec& spec = *cluster_.job(head.job).spec;
        timeline_.hold(head.slots, head.start, end_of(head.start, held_limit(spec, head.start)), spec.licenses);
      }
    }
    line_ = {};
    for (const std::size_t i : left_) {
      enqueue(i);
    }
    while (!line_.empty() && expected.size() < depth) {
      const std::size_t i = line_.pop();
      Cursor& c = cursors_[i];
      if (is_at_limit(c)) {
        continue;  // and so are all of its group
      }
      if (auto spot = earliest(c)) {
        keep_place(c, *spot);
        expected.push_back(Promise{c.id(), spot->start, std::move(spot->slots)});
        c.next_job();
        enqueue(i);
      }
    }
    return Outlook{std::move(plan), std::move(timeline_), std::move(expected)};
  }

  // Goes on until so much more work is done; whether the pass is over.
  bool advance(std::uint64_t work) {
    const std::uint64_t begin = done_work();
    while (stage_ != Stage::kOver) {
      if (done_work() - begin >= work) {
        return false;
      }
      step();
    }
    return true;
  }

  Plan take() {
    std::vector<JobSpecPtr>& refused = plan_.refused;
    std::ptrdiff_t of_groups = 0;
    bool looked_past = false;
    for (std::size_t i = 0; i < cursors_.size(); ++i) {
      if (cursors_[i].refused && requires_near(cursors_[i].spec()) && !plan_.placements.empty()) {
        looked_past = true;  // nodes from which this pass took something did not count for it
      } else if (cursors_[i].refused) {
        refused.push_back(cursors_[i].spec_ptr());
        of_groups += i < groups_ ? 1 : 0;
      }
    }
    // Groups stand in the order of requests; the few jobs with claims come behind them.
    std::sort(refused.begin() + of_groups, refused.end(), RequestLess{});
    std::inplace_merge(refused.begin(), refused.begin() + of_groups, refused.end(), RequestLess{});
    refused.erase(std::unique(refused.begin(), refused.end(),
                              [](const auto& x, const auto& y) { return x == y || same_request(*x, *y); }),
                  refused.end());
    if (limits_ && limits_->retry_at()) {
      // To the next second: many passes then ask for one look.
      look_again_at(Instant::from_s(limits_->retry_at()->seconds() + 1));
    }
    if (preemptor_.look_again().is_set()) {
      look_again_at(preemptor_.look_again());
    }
    plan_.complete =
        !out_of_budget_ && plan_.preemptions.empty() &&
        ((plan_.placements.empty() && plan_.resumes.empty()) || (cluster_.ledger.order().size() <= 1 && !looked_past));
    return std::move(plan_);
  }

  [[nodiscard]] Instant now_of_pass() const { return now_; }

 private:
  enum class Stage : std::uint8_t { kGroups, kClaims, kLine, kServe, kGaps, kFill, kOver };

  [[nodiscard]] std::uint64_t done_work() const {
    return timeline_.looked_at() + WorkBudget::kWorkPerGroup * groups_looked_at_;
  }

  // One small part of the pass.
  void step() {
    ++groups_looked_at_;
    switch (stage_) {
      case Stage::kGroups:
        if (!add_group()) {
          stage_ = Stage::kClaims;
        }
        return;
      case Stage::kClaims:
        groups_ = cursors_.size();
        add_claims();
        prepare_recall();
        stage_ = Stage::kLine;
        if (policy_.rules.backfill == Backfill::kConservative) {
          run_conservative();
          stage_ = Stage::kOver;
        }
        return;
      case Stage::kLine:
        if (next_ == cursors_.size()) {
          keep_places();
          stage_ = Stage::kServe;
        } else {
          note_lapse(cursors_[next_]);
          recall(next_);
          enqueue(next_++);
        }
        return;
      case Stage::kServe:
        if (!out_of_budget_ &&
            (line_.empty() ? !standing_still_.is_done() : standing_still_.comes_before(line_.top().standing))) {
          serve_standing_still();
        } else if (line_.empty() || out_of_budget_) {
          next_ = 0;
          stage_ = policy_.rules.backfill == Backfill::kNone ? Stage::kOver : Stage::kGaps;
        } else {
          serve(line_.pop());
        }
        return;
      case Stage::kGaps:
        if (next_ == left_.size()) {
          stage_ = Stage::kFill;
        } else if (const std::size_t i = left_[next_++]; !cursors_[i].refused) {
          enqueue_gap_filler(i);
        }
        return;
      case Stage::kFill:
        if (line_.empty() || out_of_budget_) {
          stage_ = Stage::kOver;
        } else if (const std::size_t i = line_.pop(); !is_at_limit(cursors_[i]) && start(cursors_[i])) {
          enqueue_gap_filler(i);
        }
        return;
      case Stage::kOver:
        return;
    }
  }

  void note_lapse(const Cursor& c) {
    const Instant lapse = switches_lapse(c.spec(), c.entry().since);
    if (c.spec().switches != 0 && !c.spec().switches_wait.is_infinite() && lapse > now_) {
      look_again_at(lapse);
    }
  }
  void look_again_at(Instant at) { plan_.look_again = plan_.look_again.is_set() ? std::min(plan_.look_again, at) : at; }

  bool add_group() {
    if (group_ == cluster_.pending.groups().end()) {
      return false;
    }
    const auto& [spec, group] = *group_++;
    const QueuePolicy* queue = queue_named(spec->queue);
    if (queue == nullptr || !queue->starts || spec->begin > now_ || refusal_of(*queue, *spec) ||
        !may_use_reservation(cluster_, *spec, now_)) {
      return true;
    }
    Cursor cursor(cluster_, spec, group, static_cast<std::size_t>(queue - policy_.queues.data()));
    if (!cursor.done()) {
      cursors_.push_back(cursor);
    }
    return true;
  }
  // Groups of one queue mostly stand together.
  const QueuePolicy* queue_named(const std::string& name) {
    if (last_queue_ == nullptr || last_queue_->name != name) {
      last_queue_ = policy_.find_queue(name);
    }
    return last_queue_;
  }

  // Jobs with a claim are looked at apart from their groups: others of the group may stand before them without one.
  void add_claims() {
    if (policy_.rules.backfill != Backfill::kEasy || !policy_.rules.keep_promises) {
      return;
    }
    // The cursors stand in the order of the groups.
    const auto groups = static_cast<std::ptrdiff_t>(cursors_.size());
    std::set<std::ptrdiff_t> with_claims;
    for (const auto& [id, promise] : cluster_.promised) {
      const Job& job = cluster_.job(id);
      const auto end = cursors_.begin() + groups;
      const auto it = std::lower_bound(cursors_.begin(), end, job.spec, [](const Cursor& c, const JobSpecPtr& spec) {
        return RequestLess{}(c.spec_ptr(), spec);
      });
      const PendingEntry entry{job.eligible_time, id};
      if (it == end || !it->has(entry)) {
        continue;
      }
      with_claims.insert(it - cursors_.begin());
      Cursor one = it->only(entry);
      if (!one.done()) {
        ++claims_[one.queue()];
        cursors_.push_back(one);
      }
    }
    for (const std::ptrdiff_t i : with_claims) {
      cursors_[static_cast<std::size_t>(i)].pass_over_claims();
    }
    if (!with_claims.empty()) {
      const auto claims_begin = cursors_.begin() + groups;
      groups_ -= static_cast<std::size_t>(
          std::count_if(cursors_.begin(), claims_begin, [](const Cursor& c) { return c.done(); }));
      std::erase_if(cursors_, [](const Cursor& c) { return c.done(); });
    }
  }

  const QueuePolicy& queue_of(const Cursor& c) const { return policy_.queues[c.queue()]; }
  Standing standing(const Cursor& c) const { return standing_of(rules_, queue_of(c), c.spec().qos); }

  // Whether what the last pass refused can be told from what nothing since could have made fit.
  void prepare_recall() {
    const PlanMemory* memory = cluster_.remembered;
    if (memory == nullptr || memory->refused.empty() || memory->kept) {
      return;
    }
    for (const auto& [id, promise] : memory->promises) {
      if (promise.start <= now_ || !cluster_.promised.contains(id)) {
        return;
      }
    }
    if (windows_changed(*memory)) {
      return;
    }
    licenses_came_ = cluster_.licenses != nullptr && cluster_.licenses->released() != memory->licenses_released;
    // More than this many are looked at no faster than everything is.
    constexpr std::size_t kNodesMax = 64;
    auto released = cluster_.ledger.released_since(memory->released);
    if (released && released->size() <= kNodesMax) {
      released_ = std::move(*released);
      recalled_ = memory->refused.begin();
      recalls_ = true;
    }
  }

  // Marks a request that the last pass refused and that nothing since could have made fit.
  void recall(std::size_t i) {
    Cursor& c = cursors_[i];
    // A limit of switches may have lapsed, and licences be back.
    if (!recalls_ || c.spec().switches != 0 || (licenses_came_ && !c.spec().licenses.empty())) {
      return;
    }
    const std::vector<JobSpecPtr>& refused = cluster_.remembered->refused;
    if (i < groups_) {  // these and those refused stand in the same order
      while (recalled_ != refused.end() && RequestLess{}(*recalled_, c.spec_ptr())) {
        ++recalled_;
      }
      if (recalled_ == refused.end() || RequestLess{}(c.spec_ptr(), *recalled_)) {
        return;
      }
    } else if (!std::binary_search(refused.begin(), refused.end(), c.spec_ptr(), RequestLess{})) {
      return;
    }
    const auto [known, is_new] = helped_.try_emplace(&c.spec(), false);
    if (is_new) {
      known->second = std::any_of(released_.begin(), released_.end(), [&](NodeIndex node) {
        timeline_.look();
        return could_help(c.spec(), node);
      });
    }
    c.recalled = c.refused = !known->second;
  }

  // Whether a window has begun or ended since the last pass, or is another one.
  [[nodiscard]] bool windows_changed(const PlanMemory& memory) const {
    return cluster_.windows != nullptr && (cluster_.windows->revision() != memory.windows_revision ||
                                           (memory.windows_change && *memory.windows_change <= now_));
  }

  // Jobs of a reservation wait for its windows: they take no promises from the queue's other jobs.
  std::uint32_t& promises_given(const Cursor& c) { return promises_given_[{c.queue(), c.spec().reservation}]; }

  bool could_help(const JobSpec& spec, NodeIndex node) const {
    const NodeCapacity& n = cluster_.ledger.nodes()[node.value];
    if (!n.usable) {
      return false;
    }
    const bool whole = spec.nodes_max == 1 || spec.ntasks == 1;
    const std::uint32_t least = whole ? spec.ntasks : is_even(spec) ? spec.ntasks_per_node : 1;
    return tasks_that_fit(spec, n, n.free) >= std::max<std::uint32_t>(1, least);
  }

  void enqueue(std::size_t i) {
    if (!cursors_[i].done()) {
      line_.push(place_in_line(i));
    }
  }
  void enqueue_gap_filler(std::size_t i) {
    const Cursor& c = cursors_[i];
    if (c.done()) {
      return;
    }
    const std::int64_t key = gap_points(c.spec(), c.entry().since, order_, policy_.rules.backfill_order, now_);
    line_.push({standing(c), key, c.entry(), i});
  }

  Line::Place place_in_line(std::size_t i) const {
    const Cursor& c = cursors_[i];
    return {standing(c), order_.points(c.spec(), c.entry().since, now_), c.entry(), i};
  }

  // Of the jobs with claims, which come behind the groups.
  void keep_places() {
    std::vector<Line::Place> line;
    for (std::size_t i = groups_; i < cursors_.size(); ++i) {
      line.push_back(place_in_line(i));
    }
    std::sort(line.rbegin(), line.rend());
    for (const Line::Place& place : line) {
      const Cursor& c = cursors_[place.cursor];
      const Promise& promise = cluster_.promised.at(c.id());
      const Instant from = std::max(promise.start, now_);
      kept_.add(place.cursor, c.spec(), promise.slots, from, held_until(c, from));
    }
  }

  // Starts the job if it fits, and promises a start to it if it does not and stands among the first of its queue; else it
  // is left for the gaps.
  void serve(std::size_t i) {
    const Cursor& c = cursors_[i];
    kept_.release(timeline_, i);
    // One that is known not to fit now and has its place still goes nowhere else.
    std::optional<Spot> settled =
        c.claims && c.refused && !preemptor_.can_preempt(c.spec()) ? remembered_spot(c) : std::nullopt;
    const bool others = !settled && kept_.hold(timeline_);
    serve_beside(i, others, std::move(settled));
    if (others) {
      kept_.hold(timeline_);
    }
  }

  // It stands before the jobs whose places are kept.
  void serve_standing_still() {
    kept_.lift(timeline_);
    standing_still_.serve_next(timeline_, plan_);
    kept_.hold(timeline_);
  }

  // The place of its promise, while no job before it needs that.
  [[nodiscard]] std::optional<Spot> own_spot(const Cursor& c) const {
    const Promise& promise = cluster_.promised.at(c.id());
    const bool free = promise.start > now_ &&
                      has_room(timeline_, c.spec(), promise.slots, promise.start, held_until(c, promise.start));
    return free ? std::optional(Spot{.start = promise.start, .slots = promise.slots}) : std::nullopt;
  }

  // `others`: places of jobs behind it are kept. `beside`: a place for it beside them.
  void serve_beside(std::size_t i, bool others, std::optional<Spot> beside) {
    Cursor& c = cursors_[i];
    std::uint32_t& given = promises_given(c);
    const bool claims = c.claims;
    if (is_at_limit(c)) {
      if (claims) {
        forget_refusals();  // what its promise kept from others may be theirs
      }
      return;  // it neither starts nor blocks, and neither do those that are like it
    }
    if (given >= policy_.rules.promises && !claims) {
      left_.push_back(i);
      return;
    }
    if (others) {
      if (start_beside(c)) {
        enqueue(i);
        return;
      }
      beside = promised_spot(c);
      kept_.lift(timeline_);
    }
    if (start(c)) {
      enqueue(i);
      return;
    }
    if (policy_.rules.backfill == Backfill::kNone) {
      if (const auto spot = earliest(c); spot && may_take(c, demand_of(spot->slots, c.spec().time_limit))) {
        given = UINT32_MAX;  // it blocks its queue
        plan_.kept.push_back(Promise{c.id(), spot->start, spot->slots});
      }
      return;
    }
    const JobId job = c.id();
    std::optional<Spot> spot = beside && !others ? beside : promised_spot(c);
    if (beside && spot && beside->start <= spot->start) {
      spot = std::move(beside);
    }
    if (spot && spot->start <= now_ && c.recalled) {
      forget_refusals();  // it fits after all
      enqueue(i);
      return;
    }
    const bool soon = make_room(c, spot);
    if (spot && may_take(c, demand_of(spot->slots, c.spec().time_limit))) {
      if (claims) {
        // It moves only to start sooner: a pass over the state with this plan applied comes to the same places.
        auto own = own_spot(c);
        if (!own) {
          plan_.moved.insert(job);
        } else if (own->start <= spot->start) {
          spot = std::move(own);
        }
      }
      keep_place(c, *spot);
      const bool may_claim = claims || claims_[c.queue()] < kClaimsMax;
      claims_[c.queue()] += may_claim && !claims ? 1 : 0;
      (may_claim ? plan_.promises : plan_.kept).push_back(Promise{job, spot->start, std::move(spot->slots)});
      given += soon ? 0 : 1;
      c.next_job();
      enqueue(i);
    }
    // One that fits no usable node at any time neither starts nor blocks, and neither do those that are like it.
  }

  // Preempts for a job that does not start now, where it may. True: it waits for nothing but attempts that are being
  // stopped, so the next one of its queue may look for its own.
  bool make_room(const Cursor& c, std::optional<Spot>& spot) {
    if (!preemptor_.can_preempt(c.spec())) {
      return false;
    }
    const JobId job = c.id();
    if (cluster_.remembered != nullptr && cluster_.remembered->no_victims.contains(job)) {
      plan_.no_victims.insert(job);
      return false;
    }
    if (preemptor_.room_is_made(job)) {
      return plan_.promises.size() < kPreemptorsMax;
    }
    const auto may_start = [&](const Spot& s) {
      const auto latest = latest_start(c.spec());
      return (!latest || s.start <= *latest) && may_take(c, demand_of(s.slots, c.spec().time_limit));
    };
    auto choice = preemptor_.choose(timeline_, {.spec = c.spec(),
                                                .filter = filter(c),
                                                .lapse = switches_lapse(c.spec(), c.entry().since),
                                                .otherwise = spot ? std::optional(spot->start) : std::nullopt,
                                                .kept = plan_.kept_cores,
                                                .may_start = may_start});
    if (!choice) {
      plan_.no_victims.insert(job);
      return false;
    }
    for (const AttemptKey& victim : choice->victims) {
      plan_.preemptions.push_back(Preemption{job, victim});
    }
    spot = std::move(choice->spot);
    return plan_.promises.size() < kPreemptorsMax;
  }

  // Limits of accounts, users and QOS. What a pass starts and promises only takes room, so a group that is at a limit
  // once is at it to the end.
  [[nodiscard]] bool may_take(const Cursor& c, const Demand& demand) const {
    return !limits_ || limits_->allows(c.spec(), demand);
  }
  [[nodiscard]] bool is_at_limit(const Cursor& c) const { return limits_ && !may_take(c, least_demand(c.spec())); }
  void keep_place(const Cursor& c, const Spot& spot) {
    timeline_.hold(spot.slots, spot.start, held_until(c, spot.start), c.spec().licenses);
    if (limits_) {
      limits_->reserve(c.spec(), demand_of(spot.slots, c.spec().time_limit), spot.start);
    }
  }

  void forget_refusals() {
    for (Cursor& c : cursors_) {
      c.refused = c.refused && !c.recalled;
      c.recalled = false;
    }
    misfits_.clear();
  }

  // The place that it had in the last pass, while that is free; nothing when none is remembered.
  [[nodiscard]] std::optional<Spot> remembered_spot(const Cursor& c) const {
    const Promise* p = remembered_promise(c);
    const bool free = p != nullptr && has_room(timeline_, c.spec(), p->slots, p->start, held_until(c, p->start));
    return free ? std::optional(Spot{.start = p->start, .slots = p->slots}) : std::nullopt;
  }
  [[nodiscard]] const Promise* remembered_promise(const Cursor& c) const {
    if (cluster_.remembered == nullptr) {
      return nullptr;
    }
    const auto it = cluster_.remembered->promises.find(c.id());
    return it != cluster_.remembered->promises.end() && it->second.start > now_ ? &it->second : nullptr;
  }

  std::optional<Spot> promised_spot(const Cursor& c) {
    if (auto spot = remembered_spot(c)) {
      return spot;
    }
    if (remembered_promise(c) != nullptr) {
      forget_refusals();  // what its place kept from others may be theirs
    }
    return earliest(c);
  }

  std::optional<Spot> earliest(const Cursor& c) {
    return earliest_in_time(timeline_, c.spec(), filter(c), now_, switches_lapse(c.spec(), c.entry().since));
  }
  Fit now(const Cursor& c) {
    return fit_flexibly(timeline_, c.spec(), filter(c), any_switches(c.spec(), c.entry().since, now_));
  }

  // Requests of many users are often the same: what did not fit for one of them is not tried for the next. A limit of
  // switches depends on how long the job has waited.
  Fit now_unless_known(const Cursor& c) {
    if (c.spec().switches != 0) {
      return now(c);
    }
    const auto key = std::pair(filter_entry(c).number, &c.spec());
    if (misfits_.contains(key)) {
      return {};
    }
    Fit fit = now(c);
    if (fit.slots.empty()) {
      misfits_.insert(key);
    }
    return fit;
  }

  static Instant held_until(const Cursor& c, Instant start) { return end_of(start, held_limit(c.spec(), start)); }

  // A pass only takes, so what a request is refused once it is refused to the end.
  bool start(Cursor& c) {
    const Fit fit = c.refused ? Fit{} : now_unless_known(c);
    if (fit.slots.empty()) {
      c.refused = true;
      return false;
    }
    return start_in(c, fit);
  }

  // A refusal here is no refusal: without the kept places it may fit.
  bool start_beside(Cursor& c) {
    const Fit fit = c.refused ? Fit{} : now(c);
    return !fit.slots.empty() && start_in(c, fit);
  }

  bool start_in(Cursor& c, const Fit& fit) {
    if (!may_take(c, demand_of(fit.slots, fit.limit == Duration{} ? c.spec().time_limit : fit.limit))) {
      return false;  // more than it needs at least: whole nodes, for instance
    }
    start_on(c, fit);
    c.placed();
    return true;
  }

  void start_on(const Cursor& c, const Fit& fit) {
    Placement placement{.job = c.id(),
                        .position = c.position(),
                        .shares = shares_for(timeline_.draft(), fit.slots),
                        .time_limit = fit.limit};
    if (limits_) {
      limits_->start(c.spec(), demand_of(placement.shares, given_limit(placement, c.spec())));
    }
    timeline_.start(placement.shares, end_of(now_, given_limit(placement, c.spec())), c.spec().licenses);
    plan_.placements.push_back(std::move(placement));
    out_of_budget_ = plan_.placements.size() >= budget_.placements_made;
  }

  // Every job has a place in the profile. What came new gets the earliest one; when something became free, each job in
  // order moves to its earliest one, which is never later.
  void run_conservative() {
    while (!standing_still_.is_done()) {
      standing_still_.serve_next(timeline_, plan_);  // nobody preempts here: what is left of it goes first
    }
    for (std::size_t i = 0; i < cursors_.size(); ++i) {
      enqueue(i);
    }
    struct Standing {
      Cursor cursor;
      std::optional<Promise> promise;
    };
    std::vector<Standing> jobs;
    while (!line_.empty()) {
      const std::size_t i = line_.pop();
      const auto it = cluster_.promised.find(cursors_[i].id());
      jobs.push_back({cursors_[i], it == cluster_.promised.end() ? std::nullopt : std::optional(it->second)});
      cursors_[i].next_job();
      enqueue(i);
    }
    const auto end = [](const Standing& s, Instant start) { return held_until(s.cursor, start); };
    for (const Standing& s : jobs) {
      if (s.promise) {
        timeline_.hold(s.promise->slots, s.promise->start, end(s, s.promise->start), s.cursor.spec().licenses);
      }
    }
    for (Standing& s : jobs) {
      if (s.promise && cluster_.released) {
        timeline_.drop(s.promise->slots, s.promise->start, end(s, s.promise->start), s.cursor.spec().licenses);
        promise_earliest(s.cursor, s.promise);
      }
    }
    for (Standing& s : jobs) {
      if (!s.promise) {
        promise_earliest(s.cursor, s.promise);
      }
    }
    for (Standing& s : jobs) {
      if (!s.promise || out_of_budget_) {
        continue;
      }
      if (s.promise->start > now_) {
        plan_.promises.push_back(*s.promise);
        continue;
      }
      timeline_.drop(s.promise->slots, s.promise->start, end(s, s.promise->start), s.cursor.spec().licenses);
      const Fit fit = now(s.cursor);
      if (!fit.slots.empty() && may_take(s.cursor, demand_of(fit.slots, s.cursor.spec().time_limit))) {
        start_on(s.cursor, fit);
      }
    }
  }

  void promise_earliest(const Cursor& c, std::optional<Promise>& promise) {
    promise.reset();
    if (auto spot = earliest(c)) {
      timeline_.hold(spot->slots, spot->start, held_until(c, spot->start), c.spec().licenses);
      promise = Promise{c.id(), spot->start, std::move(spot->slots)};
    }
  }

  // Most jobs of a queue may use the same nodes.
  struct FilterEntry {
    NodeFilter filter;
    std::size_t number = 0;
  };
  const FilterEntry& filter_entry(const Cursor& c) {
    const JobSpec& spec = c.spec();
    const bool plain = spec.avoid.empty() && spec.exclude.empty() && spec.constraint.empty() &&
                       spec.reservation.empty() && !only_named(spec);
    if (plain && last_filter_ != nullptr && last_filter_queue_ == c.queue()) {
      return *last_filter_;
    }
    // What a job avoids depends on its size, too; so it has a filter of its own, found by the spec that it shares with its like.
    const auto key = std::tuple(c.queue(), spec.exclude, only_named(spec) ? spec.nodelist : std::vector<std::string>{},
                                spec.constraint, spec.reservation, spec.avoid.empty() ? nullptr : &spec);
    auto it = filters_.find(key);
    if (it == filters_.end()) {
      const bool reserved = cluster_.windows != nullptr && !spec.reservation.empty();
      const std::vector<std::string> of_reservation =
          reserved ? cluster_.windows->nodes_for(spec.reservation, queue_of(c).nodes) : std::vector<std::string>{};
      FilterEntry made{make_filter(cluster_.ledger, spec, reserved ? of_reservation : queue_of(c).nodes, policy_.sites),
                       filters_.size()};
      made.filter.spread = queue_of(c).spread;
      it = filters_.emplace(key, std::move(made)).first;
    }
    if (plain) {
      last_filter_ = &it->second;
      last_filter_queue_ = c.queue();
    }
    return it->second;
  }
  const NodeFilter& filter(const Cursor& c) { return filter_entry(c).filter; }

  struct MisfitLess {
    bool operator()(const std::pair<std::size_t, const JobSpec*>& a,
                    const std::pair<std::size_t, const JobSpec*>& b) const {
      return a.first != b.first ? a.first < b.first : PlaceLess{}(a.second, b.second);
    }
  };

  const Cluster& cluster_;
  const Policy& policy_;
  const Order& order_;
  WorkBudget budget_;
  Instant now_;
  Timeline timeline_;
  std::optional<LimitBook> limits_;  // unset: there are none
  PreemptRules rules_;
  Preemptor preemptor_;
  StandingStill standing_still_;
  Plan plan_;
  bool out_of_budget_ = false;
  Stage stage_ = Stage::kGroups;
  PendingIndex::Groups::const_iterator group_;
  std::size_t next_ = 0;  // cursor or place in left_, of the stage
  std::uint64_t groups_looked_at_ = 0;
  const QueuePolicy* last_queue_ = nullptr;
  std::vector<Cursor> cursors_;
  std::size_t groups_ = 0;  // cursors of whole groups, which come first
  // Of recall().
  bool recalls_ = false;
  bool licenses_came_ = false;
  std::vector<NodeIndex> released_;
  std::vector<JobSpecPtr>::const_iterator recalled_;
  // Whether what was released could help such requests.
  std::map<const JobSpec*, bool, PlaceLess> helped_;  // purity: address, compared by what it points to
  Line line_;
  std::vector<std::size_t> left_;
  KeptPlaces kept_;
  std::map<std::pair<std::size_t, std::string>, std::uint32_t> promises_given_;  // by queue and reservation
  std::vector<std::uint32_t> claims_;                                            // by queue
  std::map<std::tuple<std::size_t, std::vector<std::string>, std::vector<std::string>, std::string, std::string,
                      const JobSpec*>,
           FilterEntry>
      filters_;
  const FilterEntry* last_filter_ = nullptr;
  std::size_t last_filter_queue_ = 0;
  std::set<std::pair<std::size_t, const JobSpec*>, MisfitLess> misfits_;  // what did not fit, by filter
};

}  // namespace

Timeline timeline_of(const Cluster& cluster, const Policy& policy, Instant now) {
  return {cluster.ledger, cluster.horizon, now, cluster.windows,
          cluster.licenses == nullptr ? LicenseLine{} : LicenseLine(policy.licenses, *cluster.licenses, now)};
}

Outlook look_ahead(const Cluster& cluster, const Policy& policy, const Order& order, std::uint32_t depth, Instant now) {
  return Pass(cluster, policy, order, WorkBudget{.placements_made = UINT32_MAX}, now).run_on(depth);
}

Plan schedule(const Cluster& cluster, const Policy& policy, const Order& order, WorkBudget budget, Instant now) {
  Pass pass(cluster, policy, order, budget, now);
  pass.advance(UINT64_MAX);
  return pass.take();
}

struct SlicedPass::Impl {
  Impl(Cluster cluster_in, const Policy& policy, WorkBudget budget, Instant now)
      : cluster(std::move(cluster_in)),
        order(policy, cluster.accounts, now),
        pass(cluster, policy, order, budget, now) {}
  const Cluster cluster;
  const DefaultOrder order;
  Pass pass;
};

SlicedPass::SlicedPass(Cluster cluster, const Policy& policy, WorkBudget budget, Instant now)
    : impl_(std::make_unique<Impl>(std::move(cluster), policy, budget, now)) {}
SlicedPass::~SlicedPass() = default;
bool SlicedPass::run(std::uint64_t work) {
  return impl_->pass.advance(work);
}
Plan SlicedPass::take() {
  return impl_->pass.take();
}
Instant SlicedPass::now() const {
  return impl_->pass.now_of_pass();
}

}  // namespace muster::sched

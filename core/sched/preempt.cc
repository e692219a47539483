#include "core/sched/preempt.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>
#include <utility>

#include "core/sched/request.h"
#include "lib/base/check.h"
#include "lib/base/text.h"

namespace muster::sched {
namespace {

// A pass must not take long: so many nodes are looked at all in all when places are looked for, and so many times at least.
constexpr std::uint32_t kNodesLookedAtMax = 500'000;
constexpr std::uint32_t kFitsMin = 16;
constexpr std::uint32_t kFitsMax = 400;
// Attempts that one choice is made from, those with the least work first.
constexpr std::size_t kCandidatesMax = 4'096;
// Nodes that are tried one by one for a job that fits one node.
constexpr std::size_t kNodesTriedMax = 256;
// An attempt is never believed to be gone sooner (timeline.cc takes what is overdue to end then).
constexpr Duration kGoneMin = Duration::from_s(1);
// A stop may take so much longer than was believed: the place is chosen so that the job still ends before what is promised
// behind it.
constexpr Duration kStopSlack = Duration::from_s(60);
// Nothing is preempted for a start that is sooner by less: what ends by itself meanwhile is waited for.
constexpr Duration kGainMin = Duration::from_s(10);
// What goes on after it stood still is left alone for so long.
constexpr Duration kGoesOnFor = Duration::from_s(10);

bool lists(const PreemptRules& rules, const std::string& a, const std::string& b) {
  const auto found = rules.qos.find(a);
  return found != rules.qos.end() && found->second.contains(b);
}

struct Cost {
  std::int64_t work = 0;
  std::size_t jobs = 0;
  std::vector<JobId> ids;
  friend auto operator<=>(const Cost&, const Cost&) = default;
};

}  // namespace

PreemptRules preempt_rules(const Accounts* accounts) {
  PreemptRules rules;
  if (accounts == nullptr) {
    return rules;
  }
  for (const auto& [name, qos] : accounts->all_qos()) {
    if (!qos.preempts.empty()) {
      rules.qos.emplace(name, std::set<std::string>(qos.preempts.begin(), qos.preempts.end()));
    }
  }
  if (rules.qos.empty()) {
    return rules;
  }
  // The records have no cycles (engine/accounting.cc); if they had, none of them would preempt.
  auto ranks = rank_qos(rules.qos);
  if (!ranks.ok()) {
    return {};
  }
  rules.ranks = std::move(*ranks);
  for (const auto& [name, qos] : accounts->all_qos()) {
    if (qos.preempt_mode != QosPreempt::kAsQueue || qos.preempt_grace > Duration{}) {
      rules.ways.emplace(name, PreemptRules::Way{qos.preempt_mode, qos.preempt_grace});
    }
  }
  return rules;
}

Standing standing_of(const PreemptRules& rules, const QueuePolicy& queue, const std::string& qos) {
  const auto rank = rules.ranks.find(qos);
  return Standing{queue.priority, rank == rules.ranks.end() ? 0 : rank->second};
}

Standing standing_of(const Policy& policy, const PreemptRules& rules, const JobSpec& spec) {
  const QueuePolicy* queue = policy.find_queue(spec.queue);
  return queue == nullptr ? Standing{} : standing_of(rules, *queue, spec.qos);
}

Result<std::map<std::string, std::int64_t>> rank_qos(const std::map<std::string, std::set<std::string>>& preempts) {
  std::map<std::string, std::int64_t> ranks;
  for (const auto& [name, below] : preempts) {
    ranks.emplace(name, 0);
    for (const std::string& other : below) {
      ranks.emplace(other, 0);
    }
  }
  // A chain of n names has at most n - 1 steps: what still rises then stands above itself.
  for (std::size_t round = 0; round <= ranks.size(); ++round) {
    bool rose = false;
    for (const auto& [name, below] : preempts) {
      for (const std::string& other : below) {
        if (ranks.at(name) <= ranks.at(other)) {
          ranks.at(name) = ranks.at(other) + 1;
          rose = true;
          if (round == ranks.size()) {
            return invalid_argument("QOS " + printable(name) +
                                    " would preempt itself over others: take one of its chain out of `preempts`");
          }
        }
      }
    }
    if (!rose) {
      break;
    }
  }
  return ranks;
}

namespace {
PreemptMode mode_of(QosPreempt mode, PreemptMode of_queue) {
  switch (mode) {
    case QosPreempt::kAsQueue:
      return of_queue;
    case QosPreempt::kRequeue:
      return PreemptMode::kRequeue;
    case QosPreempt::kCancel:
      return PreemptMode::kCancel;
    case QosPreempt::kCheckpoint:
      return PreemptMode::kCheckpoint;
    case QosPreempt::kSuspend:
      return PreemptMode::kSuspend;
  }
  return PreemptMode::kOff;
}
}  // namespace

GivingWay giving_way(const Policy& policy, const PreemptRules& rules, const JobSpec& a, const JobSpec& b) {
  const QueuePolicy* above = policy.find_queue(a.queue);
  const QueuePolicy* below = policy.find_queue(b.queue);
  if (above == nullptr || below == nullptr) {
    return {};
  }
  const GivingWay as_queue{below->preempt_mode, below->preempt_grace};
  if (above->priority != below->priority) {
    return above->priority > below->priority ? as_queue : GivingWay{};
  }
  if (!lists(rules, a.qos, b.qos) || standing_of(rules, *above, a.qos) <= standing_of(rules, *below, b.qos)) {
    return {};
  }
  const auto way = rules.ways.find(b.qos);
  if (way == rules.ways.end()) {
    return as_queue;
  }
  return {mode_of(way->second.mode, as_queue.mode),
          way->second.grace > Duration{} ? way->second.grace : as_queue.grace};
}

Instant exempt_until(const Active& active, const QueuePolicy& queue) {
  const Instant until = end_of(active.start_time, queue.preempt_exempt + active.suspension.earlier);
  const Instant resumed = active.suspension.resumed;
  return resumed.is_set() ? std::max(until, end_of(resumed, std::max(kGoesOnFor, queue.preempt_exempt))) : until;
}

bool has_yet_to_give(const Active& active, const AttemptOnNode& on, JobId waiting) {
  const bool ends = active.stop != StopCause::kNone && active.terms.room_for == waiting;
  return on.phase != NodePhase::kEnded && (ends || !on.stands_still);
}

bool can_stand_still(const Active& active) {
  return !active.suspension.since.is_set() &&
         std::all_of(active.nodes.begin(), active.nodes.end(),
                     [](const AttemptOnNode& on) { return on.phase == NodePhase::kEnded || on.share.gpus.empty(); });
}

std::int64_t work_lost(const Active& active, Instant now) {
  std::int64_t cores = 0;
  for (const AttemptOnNode& on : active.nodes) {
    cores += on.share.cores.count();
  }
  const Duration ran = ran_for(active, now);
  // A million cores for a hundred years fit when time counts in milliseconds.
  return cores * ran.ms();
}

Preemptor::Preemptor(const Cluster& cluster, const Policy& policy, const PreemptRules& rules, Instant now)
    : cluster_(cluster), policy_(policy), rules_(rules), now_(now) {
  const auto nodes = static_cast<std::uint32_t>(std::max<std::size_t>(1, cluster.ledger.nodes().size()));
  fits_left_ = std::clamp(kNodesLookedAtMax / nodes, kFitsMin, kFitsMax);
}

bool Preemptor::can_preempt(const JobSpec& spec) const {
  const QueuePolicy* queue = cluster_.running == nullptr ? nullptr : policy_.find_queue(spec.queue);
  return queue != nullptr && std::any_of(policy_.queues.begin(), policy_.queues.end(), [&](const QueuePolicy& other) {
           return (other.priority < queue->priority && other.preempt_mode != PreemptMode::kOff) ||
                  (other.priority == queue->priority && rules_.qos.contains(spec.qos));
         });
}

bool Preemptor::room_is_made(JobId job) const {
  if (cluster_.making_room == nullptr) {
    return false;
  }
  const auto found = cluster_.making_room->find(job);
  return found != cluster_.making_room->end() &&
         std::any_of(found->second.begin(), found->second.end(), [this, job](JobId id) {
           const auto& active = std::get<Active>(cluster_.running_job(id).phase);
           return std::any_of(active.nodes.begin(), active.nodes.end(), [&](const AttemptOnNode& on) {
             return has_yet_to_give(active, on, job) && cluster_.ledger.nodes()[on.share.node.value].usable;
           });
         });
}

// Those that one which stands still had.
IndexSet Preemptor::cores_on(JobId still, NodeIndex node) const {
  for (const AttemptOnNode& on : std::get<Active>(cluster_.running_job(still).phase).nodes) {
    if (on.share.node == node && on.stands_still && on.phase != NodePhase::kEnded) {
      return on.share.cores;
    }
  }
  return {};
}

std::vector<Preemptor::Candidate> Preemptor::candidates(const Timeline& timeline, const Wanted& wanted) {
  const JobSpec& spec = wanted.spec;
  const NodeFilter& filter = wanted.filter;
  std::vector<Candidate> out;
  std::set<JobId> seen;
  for (std::size_t rank = 0; rank < cluster_.ledger.order().size(); ++rank) {
    const NodeIndex index = cluster_.ledger.order()[rank];
    if (!filter.allows(static_cast<std::uint32_t>(rank)) || !timeline.draft().node(index.value).usable) {
      continue;
    }
    timeline.look();
    for (const JobId id : (*cluster_.running)[index.value]) {
      const Job& job = cluster_.running_job(id);
      const auto& active = std::get<Active>(job.phase);
      if (active.stop != StopCause::kNone || chosen_.contains(id) || !seen.insert(id).second) {
        continue;
      }
      const GivingWay way = giving_way(policy_, rules_, spec, *job.spec);
      const bool stands_still = way.mode == PreemptMode::kSuspend;
      if (way.mode == PreemptMode::kOff || (stands_still && !can_stand_still(active))) {
        continue;
      }
      const QueuePolicy& queue = *policy_.find_queue(job.spec->queue);
      if (const Instant until = exempt_until(active, queue); now_ < until) {
        look_again_ = look_again_.is_set() ? std::min(look_again_, until) : until;
        continue;
      }
      Candidate c{.job = &job,
                  .work = stands_still ? 0 : work_lost(active, now_),
                  .gone = now_ + (stands_still ? kGoneMin : std::max(way.grace, kGoneMin)),
                  .end = believed_end(active),
                  .slots = {},
                  .keeps = {}};
      if (c.end <= c.gone) {
        continue;  // it ends by itself
      }
      for (const AttemptOnNode& on : active.nodes) {
        if (on.phase != NodePhase::kEnded && timeline.draft().node(on.share.node.value).usable) {
          // The cores of one that is about to stand still are given already.
          NodeShare gives = stands_still ? cores_of(on.share) : held_parts(active, on).back().share;
          for (const KeptCores& kept : wanted.kept) {
            gives.cores -= cores_on(kept.job, on.share.node);  // they are another's as soon as they are free
          }
          c.slots.push_back(Slot{.node = on.share.node, .amount = amount_of(gives), .tasks = 0});
          if (stands_still) {
            c.keeps.push_back(Slot{.node = on.share.node, .amount = amount_of(without_cores(on.share)), .tasks = 0});
          }
        }
      }
      out.push_back(std::move(c));
    }
  }
  std::sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.work, a.job->id) < std::tie(b.work, b.job->id);
  });
  out.resize(std::min(out.size(), kCandidatesMax));
  return out;
}

std::optional<Spot> Preemptor::fit(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter) {
  if (fits_left_ == 0) {
    return std::nullopt;
  }
  --fits_left_;
  return earliest_fit(timeline, spec, filter, now_, lapse_);
}

namespace {

// Whether every slot is free for the length of the job.
bool holds(const Timeline& timeline, const JobSpec& spec, const Spot& spot, Instant end) {
  return std::all_of(spot.slots.begin(), spot.slots.end(), [&](const Slot& s) {
    return timeline.free(s.node, spot.start, end, spec.reservation).covers(s.amount);
  });
}

}  // namespace

// The shortest row of candidates, the cheapest first, whose end makes room; then without those that are not needed there.
// What they hold is given back in the timeline.
std::optional<Preemptor::Set> Preemptor::cheapest_first(Timeline& timeline, const std::vector<Candidate>& all,
                                                        const JobSpec& spec, const NodeFilter& filter, Instant by,
                                                        Spot& spot) {
  std::size_t given = 0;
  const auto give = [&](std::size_t count) {
    for (; given < count; ++given) {
      timeline.give_back(all[given].slots, all[given].gone, all[given].end);
    }
    for (; given > count; --given) {
      timeline.take_back(all[given - 1].slots, all[given - 1].gone, all[given - 1].end);
    }
  };
  give(all.size());
  std::optional<Spot> best = fit(timeline, spec, filter);
  if (!best || best->start > by) {
    give(0);
    return std::nullopt;
  }
  std::size_t least = 0;  // does not suffice
  std::size_t most = all.size();
  while (most - least > 1) {
    const std::size_t middle = least + (most - least) / 2;
    give(middle);
    if (auto with = fit(timeline, spec, filter); with && with->start <= by) {
      most = middle;
      best = std::move(with);
    } else {
      least = middle;
    }
  }
  give(most);
  spot = std::move(*best);
  const Instant end = end_of(spot.start, spec.time_limit);
  Set victims;
  for (std::size_t i = most; i > 0; --i) {
    const Candidate& c = all[i - 1];
    timeline.take_back(c.slots, c.gone, c.end);
    if (!holds(timeline, spec, spot, end)) {
      timeline.give_back(c.slots, c.gone, c.end);
      victims.push_back(&c);
    }
  }
  spare(timeline, spec, filter, by, victims, spot);
  return victims;
}

// Leaves out those without which the job has a place all the same, though another one.
void Preemptor::spare(Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, Instant by, Set& victims,
                      Spot& spot) {
  std::erase_if(victims, [&](const Candidate* c) {
    timeline.take_back(c->slots, c->gone, c->end);
    std::optional<Spot> without = fit(timeline, spec, filter);
    if (without && without->start <= by) {
      spot = std::move(*without);
      return true;
    }
    timeline.give_back(c->slots, c->gone, c->end);
    return false;
  });
}

// The cheapest choice whose victims make room on one node; nothing is changed in the timeline.
std::optional<Preemptor::Set> Preemptor::on_one_node(Timeline& timeline, const std::vector<Candidate>& all,
                                                     const JobSpec& spec, const NodeFilter& filter, Spot& spot) const {
  std::map<NodeIndex, Set> by_node;
  for (const Candidate& c : all) {
    for (const Slot& slot : c.slots) {
      by_node[slot.node].push_back(&c);
    }
  }
  std::optional<Set> best;
  Cost least;
  std::size_t tried = 0;
  for (auto& [node, here] : by_node) {
    const NodeCapacity& n = timeline.draft().node(node.value);
    const Amount need = need_of(spec, n, spec.ntasks, spec.gpus);
    if (!filter.allows(cluster_.ledger.rank(node)) || !n.all.covers(need) || ++tried > kNodesTriedMax) {
      continue;
    }
    const auto each = [&timeline, node = node](const Candidate& c, bool give) {
      for (const Slot& slot : c.slots) {
        if (slot.node == node && give) {
          timeline.give_back({slot}, c.gone, c.end);
        } else if (slot.node == node) {
          timeline.take_back({slot}, c.gone, c.end);
        }
      }
    };
    Spot at{.start = now_, .slots = {Slot{.node = node, .amount = need, .tasks = spec.ntasks}}};
    for (const Candidate* c : here) {
      at.start = std::max(at.start, c->gone);
      each(*c, true);
    }
    const Instant end = end_of(at.start, spec.time_limit);
    const bool enough = holds(timeline, spec, at, end);
    Set victims;
    // Those that lose the most are spared first, if the others suffice.
    for (auto it = here.rbegin(); it != here.rend(); ++it) {
      each(**it, false);
      if (enough && !holds(timeline, spec, at, end)) {
        each(**it, true);
        victims.push_back(*it);
      }
    }
    for (const Candidate* c : victims) {
      each(*c, false);
    }
    Cost cost;
    for (const Candidate* c : victims) {
      cost.work += c->work;
      cost.ids.push_back(c->job->id);
    }
    cost.jobs = victims.size();
    std::sort(cost.ids.begin(), cost.ids.end());
    if (enough && !victims.empty() && (!best || cost < least)) {
      best = std::move(victims);
      least = std::move(cost);
      spot = std::move(at);
    }
  }
  return best;
}

// The best choice among the candidates, for a start by then.
std::optional<Preemptor::Set> Preemptor::best_of(Timeline& timeline, const std::vector<Candidate>& all,
                                                 const JobSpec& spec, const NodeFilter& filter, Instant by,
                                                 Spot& spot) {
  std::optional<Set> victims = cheapest_first(timeline, all, spec, filter, by, spot);
  if (!victims || spec.nodes_min > 1 || !spec.nodelist.empty() || filter.binds() || !filter.choices.empty()) {
    return victims;
  }
  const auto cost = [](const Set& set) {
    std::int64_t work = 0;
    for (const Candidate* c : set) {
      work += c->work;
    }
    return std::tuple(work, set.size());
  };
  const auto give_all = [&timeline](const Set& set, bool give) {
    for (const Candidate* c : set) {
      if (give) {
        timeline.give_back(c->slots, c->gone, c->end);
      } else {
        timeline.take_back(c->slots, c->gone, c->end);
      }
    }
  };
  give_all(*victims, false);
  Spot one;
  std::optional<Set> single = on_one_node(timeline, all, spec, filter, one);
  const bool cheaper = single && one.start <= by && cost(*single) < cost(*victims);
  if (cheaper) {
    victims = std::move(single);
    spot = std::move(one);
  }
  give_all(*victims, true);
  if (cheaper) {
    spare(timeline, spec, filter, by, *victims, spot);
  }
  return victims;
}

// Those of the victims that stand still and keep, beyond their believed end, what this job or one that was promised a start
// before it counts on: it would not start then, and they would have stood still for nothing.
std::set<JobId> Preemptor::counted_on(Timeline& timeline, const Set& victims, const JobSpec& spec, const Spot& spot) {
  const Instant ever = end_of(spot.start, Duration::infinite());
  const Instant end = end_of(spot.start, spec.time_limit);
  std::set<JobId> found;
  timeline.hold(spot.slots, spot.start, end, {});
  for (const Candidate* c : victims) {
    timeline.hold(c->keeps, c->end, ever, {});
  }
  for (const Candidate* c : victims) {
    for (const Slot& slot : c->keeps) {
      for (const Timeline::Step& step : timeline.steps(slot.node)) {
        if (step.from >= c->end && step.free.mem_mib < 0) {
          found.insert(c->job->id);
        }
      }
    }
    timeline.drop(c->keeps, c->end, ever, {});
  }
  timeline.drop(spot.slots, spot.start, end, {});
  return found;
}

// The best choice without such victims; they are taken out of the candidates.
std::optional<Preemptor::Set> Preemptor::bearable(Timeline& timeline, std::vector<Candidate>& all, const JobSpec& spec,
                                                  const NodeFilter& filter, Instant by, Spot& spot) {
  while (true) {
    std::optional<Set> victims = best_of(timeline, all, spec, filter, by, spot);
    if (!victims || victims->empty()) {
      return std::nullopt;
    }
    const std::set<JobId> spared = counted_on(timeline, *victims, spec, spot);
    if (spared.empty()) {
      return victims;
    }
    for (const Candidate* c : *victims) {
      timeline.take_back(c->slots, c->gone, c->end);
    }
    std::erase_if(all, [&spared](const Candidate& c) { return spared.contains(c.job->id); });
  }
}

std::optional<Preemptor::Choice> Preemptor::choose(Timeline& timeline, const Wanted& wanted) {
  if (fits_left_ == 0) {
    return std::nullopt;
  }
  const NodeFilter& filter = wanted.filter;
  lapse_ = wanted.lapse;
  JobSpec spec = wanted.spec;
  spec.time_limit = spec.time_limit.is_infinite() ? spec.time_limit : spec.time_limit + kStopSlack;
  const std::vector<Candidate> all = candidates(timeline, wanted);
  // Those that are gone sooner are tried alone first: what takes longer to stop is stopped only when it must be.
  std::set<Instant> times;
  for (const Candidate& c : all) {
    times.insert(c.gone);
  }
  for (const Instant by : times) {
    if (wanted.otherwise && *wanted.otherwise < by + kGainMin) {
      break;
    }
    std::vector<Candidate> soon;
    std::copy_if(all.begin(), all.end(), std::back_inserter(soon), [by](const Candidate& c) { return c.gone <= by; });
    Spot spot;
    const std::optional<Set> victims = bearable(timeline, soon, spec, filter, by, spot);
    if (!victims) {
      continue;
    }
    if (!wanted.may_start(spot)) {
      for (const Candidate* c : *victims) {
        timeline.take_back(c->slots, c->gone, c->end);
      }
      continue;
    }
    Choice choice{.victims = {}, .spot = std::move(spot)};
    for (const Candidate* c : *victims) {
      choice.victims.push_back(AttemptKey{c->job->id, c->job->attempt});
      chosen_.insert(c->job->id);
    }
    std::sort(choice.victims.begin(), choice.victims.end());
    return choice;
  }
  return std::nullopt;
}

}  // namespace muster::sched

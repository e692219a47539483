#include "core/engine/failures.h"

#include <algorithm>
#include <utility>

#include "lib/base/text.h"

namespace muster::engine {
namespace {

// FNV-1a, so that a ledger need not keep long arguments.
std::uint64_t hash_of(const std::vector<std::string>& args) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  const auto add = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3U; };
  for (const std::string& arg : args) {
    for (const char c : arg) {
      add(static_cast<unsigned char>(c));
    }
    add(0);
  }
  return hash;
}

bool is_like(const Doubt& doubt, const Job& job) {
  const JobSpec& spec = *job.spec;
  return doubt.attempt.job == job.id || (doubt.array != JobId{} && doubt.array == job.array) ||
         (doubt.script.is_set() && doubt.script == spec.script && doubt.user == spec.user &&
          doubt.args == hash_of(spec.args));
}

std::string how(const Outcome& outcome) {
  std::string text = outcome.cause == EndCause::kExited      ? "exit code " + std::to_string(outcome.exit_code)
                     : outcome.cause == EndCause::kSignalled ? "signal " + std::to_string(outcome.signal)
                                                             : std::string(to_string(outcome.cause));
  if (outcome.cause != EndCause::kExited && !outcome.detail.empty()) {
    text += ": " + outcome.detail;
  }
  constexpr std::size_t kShown = 100;
  return printable(text.size() > kShown ? text.substr(0, kShown) : text);
}

// It ended by itself, badly, and so soon that the node may be why.
bool is_doubtful(const Outcome& outcome) {
  switch (outcome.cause) {
    case EndCause::kExited:
      return outcome.exit_code != 0 && outcome.ran < kSoon;
    case EndCause::kSignalled:
      return outcome.ran < kSoon;
    case EndCause::kLaunchFailed:
    case EndCause::kOutputFailed:
      return outcome.fault == NodeFault::kNone;
    case EndCause::kCancelled:
    case EndCause::kTimeLimit:
    case EndCause::kOutOfMemory:
    case EndCause::kNodeLost:
    case EndCause::kShepherdDied:
      return false;
  }
  return false;
}

template <typename Entry>
void push_bounded(std::vector<Entry>& list, Entry entry) {
  if (list.size() >= kBlamesMax) {
    list.erase(list.begin());
  }
  list.push_back(std::move(entry));
}

template <typename Entry>
void drop_oldest(std::vector<Entry>& list, std::uint32_t count) {
  list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(count, list.size())));
}

std::size_t jobs_of(const std::vector<Blame>& blames) {
  std::set<JobId> jobs;
  for (const Blame& b : blames) {
    jobs.insert(b.attempt.job);
  }
  return jobs.size();
}

}  // namespace

NodeHealth& Failures::health(NodeIndex node) {
  return changed_.try_emplace(node, s_.nodes[node.value].health).first->second;
}

void Failures::ended_on_node(NodeIndex node, AttemptKey key, const Outcome& outcome) {
  const std::string job = "job " + std::to_string(key.job.value) + ": ";
  switch (outcome.fault) {
    case NodeFault::kProlog:
    case NodeFault::kEpilog:
      // The first reason stands until somebody resumes the node.
      if (health(node).fault == NodeFault::kNone) {
        const NodeFaulted faulted{node, outcome.fault, health_text(job + outcome.fault_text)};
        health(node).fault = faulted.fault;
        fact(faulted);
      }
      return;
    case NodeFault::kSpool:
      return blame(node, Blame{key, now_, printable(outcome.fault_text.substr(0, 100))});
    case NodeFault::kNone:
    case NodeFault::kHardware:
    case NodeFault::kFailures:
      break;
  }
  if (outcome.cause == EndCause::kShepherdDied) {
    blame(node, Blame{key, now_, "its shepherd died"});
  }
}

void Failures::ended(const Job& job, const Active& active, JobState state) {
  if (state == JobState::kCompleted) {
    ran_well(job, active);
  } else if (state == JobState::kFailed && active.nodes.size() == 1 && active.stop == StopCause::kNone &&
             is_doubtful(*active.nodes.front().outcome)) {
    doubt(job, active.nodes.front().share.node, *active.nodes.front().outcome);
  }
}

void Failures::doubt(const Job& job, NodeIndex node, const Outcome& outcome) {
  NodeDoubted doubted{node, Doubt{.attempt = {job.id, job.attempt},
                                  .at = now_,
                                  .array = job.array,
                                  .user = job.spec->user,
                                  .script = job.spec->script,
                                  .args = hash_of(job.spec->args),
                                  .text = how(outcome)}};
  evolve_doubted(health(node), doubted);
  fact(std::move(doubted));
}

void Failures::blame(NodeIndex node, Blame blame) {
  NodeHealth& h = health(node);
  const std::size_t count = h.blames.size() + 1;
  Instant rests_until;
  if (count >= 2 && policy_.node_rest > Duration{}) {
    constexpr std::size_t kDoublingsMax = 12;
    const Duration rest{policy_.node_rest.us << std::min(count - 2, kDoublingsMax)};
    rests_until = now_ + std::min(rest, kRestMax);
  }
  NodeBlamed blamed{node, std::move(blame), rests_until};
  evolve_blamed(h, blamed);
  fact(std::move(blamed));
  if (policy_.node_failures_max != 0 && h.fault == NodeFault::kNone && jobs_of(h.blames) >= policy_.node_failures_max &&
      may_drain_one_more()) {
    h.fault = NodeFault::kFailures;
    fact(NodeFaulted{node, NodeFault::kFailures, health_text("it failed " + text_of(h.blames))});
  }
}

bool Failures::may_drain_one_more() const {
  std::size_t drained = 0;
  for (const Node& node : s_.nodes) {
    const auto changed = changed_.find(node.index);
    const NodeHealth& h = changed == changed_.end() ? node.health : changed->second;
    drained += h.fault == NodeFault::kFailures ? 1 : 0;
  }
  return drained < std::max<std::size_t>(1, s_.nodes.size() / 10);
}

void Failures::ran_well(const Job& job, const Active& active) {
  std::set<NodeIndex> here;
  for (const AttemptOnNode& on : active.nodes) {
    here.insert(on.share.node);
  }
  std::set<NodeIndex> watched = s_.nodes_with_failures;
  for (const auto& [node, h] : changed_) {
    watched.insert(node);
  }
  for (const NodeIndex node : watched) {
    NodeHealth& h = health(node);
    if (here.contains(node)) {
      const NodeTrusted trusted{.node = node,
                                .rested = false,
                                .blames = h.blames.empty() ? 0U : 1U,
                                .doubts = static_cast<std::uint32_t>(h.doubts.size())};
      if (trusted.blames != 0 || trusted.doubts != 0) {
        evolve_trusted(h, trusted);
        fact(trusted);
      }
      continue;
    }
    const std::vector<Doubt> doubts = h.doubts;
    for (const Doubt& d : doubts) {
      if (is_like(d, job)) {
        blame(node, Blame{d.attempt, now_, d.text});
      }
    }
  }
}

// ---------------------------------------------------------------- time

void settle_failures(const State& state, const sched::Policy& policy, Instant now, Decision& decision) {
  const Instant old = now - policy.node_suspect_time;
  for (const NodeIndex node : state.nodes_with_failures) {
    const NodeHealth& h = state.nodes[node.value].health;
    const auto count_old = [old](const auto& list) {
      return static_cast<std::uint32_t>(
          std::count_if(list.begin(), list.end(), [old](const auto& entry) { return entry.at <= old; }));
    };
    const NodeTrusted trusted{.node = node,
                              .rested = h.rests_until.is_set() && h.rests_until <= now,
                              .blames = count_old(h.blames),
                              .doubts = count_old(h.doubts)};
    if (trusted.rested || trusted.blames != 0 || trusted.doubts != 0) {
      decision.facts.push_back(Fact{now, trusted});
    }
  }
}

std::optional<Instant> next_of_failures(const State& state, const sched::Policy& policy) {
  std::optional<Instant> next;
  const auto sooner = [&next](Instant at) { next = next ? std::min(*next, at) : at; };
  for (const NodeIndex node : state.nodes_with_failures) {
    const NodeHealth& h = state.nodes[node.value].health;
    if (h.rests_until.is_set()) {
      sooner(h.rests_until);
    }
    if (!h.blames.empty()) {
      sooner(h.blames.front().at + policy.node_suspect_time);
    }
    if (!h.doubts.empty()) {
      sooner(h.doubts.front().at + policy.node_suspect_time);
    }
  }
  return next;
}

// ---------------------------------------------------------------- what evolve() does

void evolve_doubted(NodeHealth& health, const NodeDoubted& fact) {
  push_bounded(health.doubts, fact.doubt);
}

void evolve_blamed(NodeHealth& health, const NodeBlamed& fact) {
  std::erase_if(health.doubts, [&fact](const Doubt& d) { return d.attempt == fact.blame.attempt; });
  push_bounded(health.blames, fact.blame);
  health.rests_until = fact.rests_until;
}

void evolve_trusted(NodeHealth& health, const NodeTrusted& fact) {
  drop_oldest(health.blames, fact.blames);
  drop_oldest(health.doubts, fact.doubts);
  if (fact.rested || health.blames.empty()) {
    health.rests_until = {};
  }
}

std::vector<std::string> suspects_of(const State& state, const Active& active) {
  std::vector<std::string> names;
  for (const AttemptOnNode& on : active.nodes) {
    const Node& node = state.nodes[on.share.node.value];
    if (node.health.is_suspect() || node.health.fault != NodeFault::kNone) {
      names.push_back(node.name);
    }
  }
  return names;
}

}  // namespace muster::engine

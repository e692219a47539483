#include "core/engine/settings.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "core/sched/pending.h"
#include "core/sched/place.h"
#include "core/sched/queue_rules.h"
#include "lib/model/job_name.h"

namespace muster::engine {
namespace {

// Jobs that one message names.
constexpr std::size_t kNamedMax = 20;

// Looks for the jobs that a change of the policy leaves without a future.
class Orphans {
 public:
  Orphans(const State& state, const sched::Policy& before, const sched::Policy& next)
      : s_(state), before_(before), next_(next), licenses_changed_(before.licenses != next.licenses) {
    for (const sched::QueuePolicy& queue : before.queues) {
      const sched::QueuePolicy* after = next.find_queue(queue.name);
      if (after == nullptr || !(*after == queue)) {
        changed_.insert(queue.name);
      }
    }
  }

  struct Found {
    std::uint64_t jobs = 0;
    std::string text;  // "41 (--time ...), 42 (...)"
  };
  Found find() {
    if (changed_.empty() && !licenses_changed_) {
      return {};
    }
    for (const auto* records : {&s_.arrays, &s_.jobs}) {
      for (const auto& [id, job] : *records) {
        if (changed_.contains(job.spec->queue) || (licenses_changed_ && !job.spec->licenses.empty())) {
          look_at(job);
        }
      }
    }
    if (found_.jobs > kNamedMax) {
      found_.text += " and " + std::to_string(found_.jobs - kNamedMax) + " more";
    }
    return std::move(found_);
  }

 private:
  void look_at(const Job& job) {
    if (job.is_array_record ? job.waiting.empty() : job.is_active()) {
      if (job.is_active() && next_.find_queue(job.spec->queue) == nullptr) {
        add(job, "it runs in queue " + job.spec->queue);
      }
      return;
    }
    if (const std::string why = new_problem(job); !why.empty()) {
      add(job, why);
    }
  }

  void add(const Job& job, const std::string& why) {
    if (++found_.jobs <= kNamedMax) {
      found_.text += (found_.text.empty() ? "" : "; ") + job_name(job) + " (" + why + ")";
    }
  }

  // What is wrong with a request after the change and was not before. Found once for equal requests.
  const std::string& new_problem(const Job& job) {
    const auto known = problems_.find(job.spec);
    if (known != problems_.end()) {
      return known->second;
    }
    std::string why = problem(next_, *job.spec);
    if (!why.empty() && !problem(before_, *job.spec).empty()) {
      why.clear();
    }
    return problems_.emplace(job.spec, std::move(why)).first->second;
  }

  std::string problem(const sched::Policy& policy, const JobSpec& spec) const {
    const sched::QueuePolicy* queue = policy.find_queue(spec.queue);
    if (queue == nullptr) {
      return "it waits in queue " + spec.queue;
    }
    if (const auto refused = sched::refusal_of(*queue, spec)) {
      return refused->text;
    }
    for (const LicenseCount& one : spec.licenses) {
      const auto total = policy.licenses.find(one.name);
      if (total == policy.licenses.end() || one.count > total->second) {
        return "it asks for " + std::to_string(one.count) + " of licence " + one.name;
      }
    }
    const std::vector<std::string> allowed =
        spec.reservation.empty() ? queue->nodes : s_.windows.nodes_for(spec.reservation, queue->nodes);
    if (s_.nodes.empty() ||
        sched::surely_fits_empty(s_.ledger, spec, sched::make_filter(s_.ledger, spec, allowed, policy.sites))) {
      return {};
    }
    const sched::PlaceResult r =
        sched::place(sched::Draft(s_.ledger), spec, allowed, sched::Assume::kAllEmpty, policy.sites);
    return r.shares.empty() ? "on the nodes of queue " + queue->name + " it " + r.detail : std::string();
  }

  const State& s_;
  const sched::Policy& before_;
  const sched::Policy& next_;
  std::set<std::string> changed_;
  bool licenses_changed_ = false;
  std::map<JobSpecPtr, std::string, sched::RequestLess> problems_;
  Found found_;
};

}  // namespace

Result<Decision> decide_settings(const State& state, const sched::Policy& policy, const sched::Policy& next,
                                 const ChangeSettings& command, Instant now) {
  if (!command.caller.admin) {
    return make_error(ErrorCode::kPermissionDenied,
                      "changing queues and settings needs an administrator's key: ask one of them");
  }
  if (!command.force) {
    const Orphans::Found orphans = Orphans(state, policy, next).find();
    if (orphans.jobs != 0) {
      return make_error(ErrorCode::kRefused, "the change would leave " + std::to_string(orphans.jobs) +
                                                 (orphans.jobs == 1 ? " job" : " jobs") +
                                                 " that could not go on: " + orphans.text +
                                                 ": change or cancel them first, or give --force and let them wait");
    }
  }
  Decision decision;
  std::size_t settings = state.settings.size();
  for (const SettingChanged& change : command.changes) {
    const auto known = state.settings.find(change.key);
    const bool same = known == state.settings.end() ? !change.value : change.value && *change.value == known->second;
    if (!same) {
      decision.facts.push_back(Fact{std::max(now, state.now), change});
      settings += change.value && known == state.settings.end() ? 1 : 0;
    }
    ++decision.matched;
  }
  if (settings > kSettingsMax) {
    return make_error(ErrorCode::kLimitReached, "more than " + std::to_string(kSettingsMax) +
                                                    " settings would be changed at run time: put them into the "
                                                    "configuration file");
  }
  return decision;
}

}  // namespace muster::engine

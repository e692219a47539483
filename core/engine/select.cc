#include "core/engine/select.h"

#include <algorithm>

#include "core/engine/index.h"
#include "lib/model/job_name.h"

namespace muster::engine {
namespace {

bool may_touch(const Caller& caller, const Job& job) {
  return caller.admin || caller.user == job.spec->user;
}

bool matches(const JobSelector& sel, const Job& job, JobState state) {
  return (sel.user.empty() || sel.user == job.spec->user) && (sel.queue.empty() || sel.queue == job.spec->queue) &&
         (sel.name.empty() || sel.name == job.spec->name) &&
         (sel.states.empty() || std::find(sel.states.begin(), sel.states.end(), state) != sel.states.end());
}

class Selection {
 public:
  Selection(const State& s, const JobSelector& sel, const Caller& caller, std::vector<std::string>& notes,
            std::vector<JobId>& unknown, bool& denied)
      : s_(s), sel_(sel), caller_(caller), notes_(notes), unknown_(unknown), denied_(denied) {}

  std::vector<Selected> run() {
    if (sel_.items.empty()) {
      for (const auto& [id, array] : s_.arrays) {
        add_waiting(array, array.waiting, true);
      }
      for (const auto& [id, job] : s_.jobs) {
        add_job(job);
      }
    }
    for (const JobSelector::Item& item : sel_.items) {
      const std::size_t before = out_.size();
      const std::size_t notes_before = notes_.size();
      by_id(item);
      if (out_.size() == before && notes_.size() == notes_before && !filtered_) {
        unknown_.push_back(item.id);
      }
    }
    return std::move(out_);
  }

 private:
  // With filters and no ids, other people's jobs are passed over; by id they are an error.
  bool permitted(const Job& job) {
    if (may_touch(caller_, job)) {
      return true;
    }
    if (!sel_.items.empty()) {
      denied_ = true;
      notes_.push_back("job " + job_name(job) + ": belongs to " + job.spec->user +
                       ": only its user or an administrator may do this");
    }
    return false;
  }

  void add_job(const Job& job) {
    if (!matches(sel_, job, job.state())) {
      filtered_ = true;
      return;
    }
    if (permitted(job)) {
      out_.push_back(Selected{.job = &job, .array = nullptr, .positions = {}, .whole_array = false});
    }
  }

  void add_waiting(const Job& array, std::vector<PositionRange> positions, bool whole) {
    if (positions.empty()) {
      return;
    }
    if (!matches(sel_, array, JobState::kPending)) {
      filtered_ = true;
      return;
    }
    if (permitted(array)) {
      out_.push_back(
          Selected{.job = nullptr, .array = &array, .positions = std::move(positions), .whole_array = whole});
    }
  }

  void by_id(const JobSelector::Item& item) {
    filtered_ = false;
    const Job* array = find_array(s_, item.id);
    if (array == nullptr) {
      if (item.has_indices) {
        return;
      }
      if (const Job* job = find_job(s_, item.id)) {
        add_job(*job);
      } else if (const Job* of = find_array_of(s_, item.id)) {
        const std::uint64_t p = item.id.value - of->id.value;
        add_waiting(*of, {PositionRange{p, p + 1}}, false);
      }
      return;
    }
    if (!item.has_indices) {
      add_waiting(*array, array->waiting, true);
      const JobId end{array->id.value + array->spec->array->size()};
      for (auto it = s_.jobs.lower_bound(array->id); it != s_.jobs.end() && it->first < end; ++it) {
        add_job(it->second);
      }
      return;
    }
    for (const ArrayRange& r : item.indices) {
      for (std::uint64_t index = r.first; index <= r.last; index += r.step) {
        by_index(*array, index);
        if (r.last - index < r.step) {
          break;
        }
      }
    }
  }

  void by_index(const Job& array, std::uint64_t index) {
    const std::string name = std::to_string(array.id.value) + "_" + std::to_string(index);
    const std::optional<std::uint64_t> p = array.spec->array->position_of(index);
    if (!p) {
      notes_.push_back("job " + name + ": the array has no such task");
    } else if (is_waiting(array, *p)) {
      add_waiting(array, {PositionRange{*p, *p + 1}}, false);
    } else if (const Job* task = find_job(s_, JobId{array.id.value + *p})) {
      add_job(*task);
    } else {
      notes_.push_back("job " + name + ": has ended");
    }
  }

  const State& s_;
  const JobSelector& sel_;
  const Caller& caller_;
  std::vector<std::string>& notes_;
  std::vector<JobId>& unknown_;
  bool& denied_;
  std::vector<Selected> out_;
  bool filtered_ = false;
};

}  // namespace

std::vector<Selected> select_jobs(const State& state, const JobSelector& selector, const Caller& caller,
                                  std::vector<std::string>& notes, std::vector<JobId>& unknown, bool& denied) {
  return Selection(state, selector, caller, notes, unknown, denied).run();
}

}  // namespace muster::engine

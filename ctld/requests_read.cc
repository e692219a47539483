// Questions: jobs, nodes, history.
#include <algorithm>
#include <utility>

#include "ctld/requests_common.h"
#include "ctld/views.h"
#include "lib/base/text.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

bool matches(const JobSelector& selector, const Job& job) {
  if ((!selector.user.empty() && selector.user != job.spec->user) ||
      (!selector.queue.empty() && selector.queue != job.spec->queue) ||
      (!selector.name.empty() && selector.name != job.spec->name)) {
    return false;
  }
  return selector.states.empty() ||
         std::find(selector.states.begin(), selector.states.end(), job.state()) != selector.states.end();
}

// The record as it is for some of its positions alone: with what keeps those back.
Job part_of(const Job& array, Positions positions) {
  Job part = array;
  part.waiting = std::move(positions);
  part.held_positions = both(part.held_positions, part.waiting);
  for (OpenDependency& open : part.open) {
    open.corr_waits = both(open.corr_waits, part.waiting);
    open.corr_never = both(open.corr_never, part.waiting);
  }
  std::erase_if(part.open, [](const OpenDependency& open) {
    return open.kind == DependencyKind::kAfterCorr && open.corr_waits.empty() && open.corr_never.empty();
  });
  return part;
}

Job task_alone(const Job& array, std::uint64_t position) {
  return part_of(array, {{position, position + 1}});
}

// One row for the waiting tasks of an array that may start, and one more for those that each thing keeps back.
std::vector<Job> array_rows(const Job& job) {
  if (!job.is_array_record || job.held || !has_barred(job)) {
    return {job};
  }
  std::vector<Job> rows;
  Positions left = job.waiting;
  const auto take = [&](const Positions& set) {
    if (Positions part = both(left, set); !part.empty()) {
      left = without(left, part);
      rows.push_back(part_of(job, std::move(part)));
    }
  };
  take(startable(job));
  take(job.held_positions);
  for (const OpenDependency& open : job.open) {
    take(open.corr_never);
  }
  take(left);
  return rows;
}

bool is_waiting_at(const Job& array, std::uint64_t position) {
  return std::any_of(array.waiting.begin(), array.waiting.end(),
                     [&](const PositionRange& range) { return range.begin <= position && position < range.end; });
}

}  // namespace

// ---------------------------------------------------------------- jobs

// A question about jobs on its way through the State, part after part.
struct Requests::JobWalk {
  Call call;
  JobSelector selector;
  bool with_ended = false;
  bool with_placement = false;
  bool with_explanation = false;
  // Array records and jobs share ids: records come first.
  JobId next_array;
  JobId next_job;
  sched::ReasonBook book;
  std::set<JobId> shown;        // by id, of named jobs
  std::set<JobId> shown_items;  // named items that were found
  std::vector<std::string> notes;
};

void Requests::jobs(const Call& call, const pb::Request& request) {
  auto selector = read_selector(request.jobs().jobs(), pipeline_.policy());
  if (!selector.ok()) {
    return fail(call, selector.error());
  }
  auto walk = std::make_shared<JobWalk>();
  walk->call = call;
  walk->selector = std::move(*selector);
  walk->with_ended = request.jobs().with_ended();
  walk->with_placement = request.jobs().with_placement();
  walk->with_explanation = request.jobs().with_explanation();
  if (walk->selector.items.empty()) {
    jobs_part(walk);
  } else {
    jobs_named(walk);
  }
}

// The next kViewsPerReply jobs in the order of their ids, fewer where their reasons cost much. The State may change between
// two parts; each part is true, and its reasons are as old as the listing at most.
void Requests::jobs_part(const std::shared_ptr<JobWalk>& walk) {
  const auto& state = pipeline_.state();
  Views views(state, pipeline_.policy(), pipeline_.now(), &explanations_);
  views.set_planning_waits_until(pipeline_.planning_waits_until());
  views.set_book(walk->book);
  const std::uint64_t looked_at_most =
      explanations_.looked_at() +
      std::max<std::uint64_t>(1, kNodesLookedAtPerPart / std::max<std::size_t>(1, state.nodes.size()));
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_jobs();
  auto array = state.arrays.lower_bound(walk->next_array);
  auto job = state.jobs.lower_bound(walk->next_job);
  std::size_t seen = 0;
  // Jobs that the filter passes over count as well, less: a round stays short whatever the filter is.
  while ((array != state.arrays.end() || job != state.jobs.end()) && seen < kViewsPerReply * 50 &&
         explanations_.looked_at() < looked_at_most) {
    const bool take_array = job == state.jobs.end() || (array != state.arrays.end() && array->first <= job->first);
    const Job& each = take_array ? (array++)->second : (job++)->second;
    const bool shown = matches(walk->selector, each) && !(each.is_array_record && each.waiting.empty());
    if (shown) {
      for (const Job& row : array_rows(each)) {
        views.job(row, walk->with_placement, *list.add_jobs());
      }
    }
    seen += shown ? 50 : 1;
  }
  const bool more = array != state.arrays.end() || job != state.jobs.end();
  walk->next_array = array != state.arrays.end() ? array->first : JobId(UINT64_MAX);
  walk->next_job = job != state.jobs.end() ? job->first : JobId(UINT64_MAX);
  part_after_commit(walk->call, message, more ? [this, walk] { jobs_part(walk); } : std::function<void()>());
}

void Requests::jobs_named(const std::shared_ptr<JobWalk>& walk) {
  const auto& state = pipeline_.state();
  Views views(state, pipeline_.policy(), pipeline_.now(), &explanations_);
  views.set_planning_waits_until(pipeline_.planning_waits_until());
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_jobs();
  bool cut = false;
  const auto room = [&] {
    cut = cut || static_cast<std::size_t>(list.jobs_size()) >= kNamedTasksMax;
    return !cut;
  };
  const auto show = [&](const Job& job, JobId item) {
    walk->shown_items.insert(item);
    if (matches(walk->selector, job) && room() && (job.is_array_record || walk->shown.insert(job.id).second)) {
      for (const Job& row : array_rows(job)) {
        pb::JobView& view = *list.add_jobs();
        views.job(row, walk->with_placement, view);
        if (walk->with_explanation && !job.is_active()) {
          views.explain(row, view);
        }
      }
    }
  };
  const auto show_waiting = [&](const Job& array, std::uint64_t position, JobId item) {
    walk->shown_items.insert(item);
    if (matches(walk->selector, array) && room() && walk->shown.insert(JobId(array.id.value + position)).second) {
      pb::JobView& view = *list.add_jobs();
      const Job task = task_alone(array, position);
      views.waiting_task(task, position, view);
      if (walk->with_explanation) {
        views.explain(task, view);
      }
    }
  };
  for (const auto& item : walk->selector.items) {
    const Job* array = engine::find_array(state, item.id);
    if (item.has_indices) {
      if (array == nullptr) {
        continue;
      }
      for (const auto& range : item.indices) {
        for (std::uint64_t i = 0; i < range.count() && room(); ++i) {
          const auto position = array->spec->array->position_of(range.first + i * range.step);
          if (!position) {
            continue;
          }
          if (is_waiting_at(*array, *position)) {
            show_waiting(*array, *position, item.id);
          } else if (const Job* task = engine::find_job(state, JobId(item.id.value + *position))) {
            show(*task, item.id);
          }
        }
      }
    } else if (array != nullptr) {
      if (!array->waiting.empty()) {
        show(*array, item.id);
      }
      const JobId end(item.id.value + array->spec->array->size());
      for (auto task = state.jobs.lower_bound(item.id); task != state.jobs.end() && task->first < end && room();
           ++task) {
        show(task->second, item.id);
      }
    } else if (const Job* job = engine::find_job(state, item.id)) {
      show(*job, item.id);
    } else if (const Job* of = engine::find_array_of(state, item.id)) {
      show_waiting(*of, item.id.value - of->id.value, item.id);
    }
  }
  if (cut) {
    walk->notes.push_back("more than " + std::to_string(kNamedTasksMax) + " tasks are meant: only these are shown");
  }
  const bool more = walk->with_ended;
  if (!more) {
    for (const auto& note : walk->notes) {
      list.add_notes(note);
    }
  }
  part_after_commit(walk->call, message, more ? [this, walk] { jobs_ended(walk); } : std::function<void()>());
}

// The second half of a question that names jobs: those of them that have ended.
void Requests::jobs_ended(const std::shared_ptr<JobWalk>& walk) {
  HistoryFilter filter;
  for (const auto& item : walk->selector.items) {
    filter.items.push_back({item.id, item.has_indices, item.indices});
  }
  filter.user = walk->selector.user;
  filter.queue = walk->selector.queue;
  filter.name = walk->selector.name;
  filter.states = walk->selector.states;
  filter.limit = kNamedTasksMax;
  read_history(walk->call, std::move(filter), [this, walk](HistoryRows page) {
    std::erase_if(page->jobs, [&](const JobSummary& job) { return !walk->shown.insert(job.id).second; });
    for (const auto& job : page->jobs) {
      walk->shown_items.insert(job.id);
      walk->shown_items.insert(job.array);
    }
    for (const auto& item : walk->selector.items) {
      if (!walk->shown_items.contains(item.id)) {
        walk->notes.push_back(no_such_job(item.id).message);
      }
    }
    history_part(walk->call, std::move(page), 0, walk->with_placement, walk->notes);
  });
}

// ---------------------------------------------------------------- nodes

void Requests::nodes(const Call& call, const pb::Request& request) {
  const auto& state = pipeline_.state();
  std::vector<NodeIndex> which;
  std::vector<std::string> notes;
  for (const auto& name : request.nodes().names()) {
    if (const Node* node = engine::find_node(state, name)) {
      which.push_back(node->index);
    } else {
      notes.push_back("node " + printable(name) + ": no such node: see `muster nodes`");
    }
  }
  if (request.nodes().names().empty()) {
    which = state.ledger.order();
  }
  nodes_part(call, std::move(which), 0, request.nodes().with_topology(), std::move(notes));
}

void Requests::nodes_part(const Call& call, std::vector<NodeIndex> which, std::size_t from, bool with_topology,
                          std::vector<std::string> notes) {
  const auto& state = pipeline_.state();
  Views views(state, pipeline_.policy(), pipeline_.now(), &explanations_);
  views.set_planning_waits_until(pipeline_.planning_waits_until());
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_nodes();
  const std::size_t end = std::min(which.size(), from + kViewsPerReply);
  for (std::size_t i = from; i < end; ++i) {
    views.node(state.nodes[which[i].value], with_topology, *list.add_nodes());
  }
  const bool more = end < which.size();
  if (!more) {
    for (const auto& note : notes) {
      list.add_notes(note);
    }
  }
  std::function<void()> next;
  if (more) {
    next = [this, call, end, with_topology, which = std::move(which), notes = std::move(notes)] {
      nodes_part(call, which, end, with_topology, notes);
    };
  }
  part_after_commit(call, message, std::move(next));
}

// ---------------------------------------------------------------- history

void Requests::read_history(const Call& call, HistoryFilter filter, std::function<void(HistoryRows)> done) {
  read_history(std::move(filter), [this, call, done = std::move(done)](Result<HistoryRows> rows) {
    if (rows.ok()) {
      done(std::move(*rows));
    } else {
      fail(call, rows.error());
    }
  });
}

void Requests::read_history(HistoryFilter filter, std::function<void(Result<HistoryRows>)> done) {
  if (history_queue_.size() >= kHistoryReadsQueued) {
    return done(make_error(ErrorCode::kLimitReached, "too many questions about history are waiting: try again later"));
  }
  history_queue_.push_back({std::move(filter), [this, done = std::move(done)](Result<HistoryPage> page) {
                              // The next question is read when these rows are gone.
                              HistoryRows rows(new HistoryPage(page.ok() ? std::move(*page) : HistoryPage{}),
                                               [this, alive = std::weak_ptr<int>(alive_)](HistoryPage* gone) {
                                                 delete gone;
                                                 if (!alive.expired()) {
                                                   --history_reads_;
                                                   next_history_read();
                                                 }
                                               });
                              if (page.ok()) {
                                done(std::move(rows));
                              } else {
                                done(page.error());
                              }
                            }});
  next_history_read();
}

void Requests::next_history_read() {
  while (history_reads_ < kHistoryReadsAtOnce && !history_queue_.empty() && !pipeline_.full()) {
    ++history_reads_;
    HistoryRead read = std::move(history_queue_.front());
    history_queue_.pop_front();
    journal_.read_history(std::move(read.filter), std::move(read.done));
  }
}

void Requests::history(const Call& call, const pb::Request& request) {
  const auto& in = request.history();
  // The selector's decoder checks items and states.
  pb::JobSelector selector_in;
  *selector_in.mutable_items() = in.items();
  *selector_in.mutable_states() = in.states();
  auto selector = read_selector(selector_in, pipeline_.policy());
  if (!selector.ok()) {
    return fail(call, selector.error());
  }
  HistoryFilter filter;
  for (auto& item : selector->items) {
    filter.items.push_back({item.id, item.has_indices, std::move(item.indices)});
  }
  filter.states = std::move(selector->states);
  filter.user = in.user();
  filter.since = Instant::from_us(in.since_us());
  filter.until = Instant::from_us(in.until_us());
  filter.limit = in.limit();
  filter.with_requeued = true;
  // What has ended is in the database when the open batch is.
  pipeline_.after_commit([this, call, filter = std::move(filter)]() mutable {
    const std::uint64_t limit = filter.limit;
    read_history(call, std::move(filter), [this, call, limit](HistoryRows page) {
      std::vector<std::string> notes;
      if (page->cut && limit != page->jobs.size()) {
        notes.push_back("only the newest " + std::to_string(page->jobs.size()) +
                        " jobs are shown: ask for a shorter time");
      }
      history_part(call, std::move(page), 0, false, std::move(notes));
    });
  });
}

// The rows are on disk; what else a view tells comes from the State, which may be ahead.
void Requests::history_part(const Call& call, HistoryRows page, std::size_t from, bool with_placement,
                            std::vector<std::string> notes) {
  const Views views(pipeline_.state(), pipeline_.policy(), pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_jobs();
  const std::size_t end = std::min(page->jobs.size(), from + kViewsPerReply);
  for (std::size_t i = from; i < end; ++i) {
    views.ended(page->jobs[i], with_placement, *list.add_jobs());
  }
  std::function<void()> next;
  if (end < page->jobs.size()) {
    next = [this, call, page, end, with_placement, notes = std::move(notes)] {
      history_part(call, page, end, with_placement, notes);
    };
  } else {
    if (page->damaged > 0) {
      notes.push_back(std::to_string(page->damaged) + " rows of the history are damaged and left out");
    }
    for (const auto& note : notes) {
      list.add_notes(note);
    }
  }
  part_after_commit(call, std::move(message), std::move(next));
}

}  // namespace muster::ctld

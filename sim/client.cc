#include "sim/client.h"

#include <csignal>
#include <utility>

namespace muster::sim {

Client::Client(Timeline& timeline, Random random, ClientOptions options, Carrier carrier)
    : timeline_(timeline), random_(random), options_(std::move(options)), carrier_(std::move(carrier)) {}

void Client::begin() {
  think();
}

void Client::think() {
  timeline_.after(random_.duration(Duration{}, options_.think_max), [this] {
    if (!stopping_) act();
  });
}

void Client::ask(Command command, Reply then) {
  asking_ = true;
  ++request_;
  command_ = std::move(command);
  then_ = std::move(then);
  send();
}

void Client::send() {
  const std::uint64_t mine = request_;
  carrier_(command_, [this, mine](const Result<engine::Decision>& decision) {
    if (!asking_ || mine != request_) return;  // the answer to an earlier copy
    asking_ = false;
    // The answer may make a new request, which replaces then_.
    const Reply then = std::move(then_);
    if (then) then(decision);
    if (!asking_ && !stopping_) think();
  });
  timeline_.after(options_.timeout, [this, mine] {
    if (asking_ && mine == request_) send();
  });
}

void Client::act() {
  if (options_.admin) {
    drain();
    return;
  }
  if (jobs_.empty() || random_.permille(600)) {
    submit();
    return;
  }
  const Caller caller{options_.user, false};
  bool whole = false;
  switch (random_.below(4)) {
    case 0:
      ask(HoldJobs{caller, some_jobs(whole)}, {});
      break;
    case 1:
      ask(ReleaseJobs{caller, some_jobs(whole)}, {});
      break;
    default:
      cancel();
      break;
  }
}

void Client::submit() {
  options_.specs.now = timeline_.now();
  options_.specs.jobs = jobs_;
  SubmitJob submit;
  submit.caller = Caller{options_.user, false};
  submit.request = RequestId{random_.next() | 1U, random_.next()};
  submit.spec = std::make_shared<const JobSpec>(random_spec(random_, options_.specs));
  ask(submit, [this, request = submit.request](const Result<engine::Decision>& decision) {
    if (!decision.ok()) return;
    jobs_.push_back(decision->job);
    if (watch.acknowledged) watch.acknowledged(request, decision->job);
  });
}

JobSelector Client::some_jobs(bool& whole_job) {
  JobSelector selector;
  whole_job = false;
  if (random_.permille(50)) {
    selector.user = options_.user;
    selector.states = {JobState::kPending};
    return selector;
  }
  JobSelector::Item item;
  // Mostly recent ones, because old ones have ended. Now and then one that may be somebody else's.
  const std::size_t recent = jobs_.size() > 6 ? jobs_.size() - 6 : 0;
  item.id = random_.permille(900) ? jobs_[random_.between(recent, jobs_.size() - 1)]
                                  : JobId{random_.between(1, jobs_.back().value + 3)};
  if (random_.permille(200)) {
    item.has_indices = true;
    item.indices.push_back(ArrayRange{random_.below(4), 4 + random_.below(20), random_.between(1, 3)});
  }
  whole_job = !item.has_indices;
  selector.items.push_back(std::move(item));
  return selector;
}

void Client::cancel() {
  CancelJobs cancel;
  cancel.caller = Caller{options_.user, false};
  bool whole = false;
  cancel.jobs = some_jobs(whole);
  if (random_.permille(200)) cancel.signal = SIGUSR1;
  const bool ends = whole && cancel.signal == 0;
  const JobId job = cancel.jobs.items.empty() ? JobId{} : cancel.jobs.items.front().id;
  ask(cancel, [this, ends, job](const Result<engine::Decision>& decision) {
    if (decision.ok() && ends && decision->matched > 0 && watch.cancelled) watch.cancelled(job);
  });
}

void Client::drain() {
  std::vector<std::string> nodes{"n" + std::to_string(random_.between(1, options_.specs.nodes))};
  const bool drained = random_.permille(400);
  const Caller caller{options_.user, true};
  if (watch.drained) watch.drained(nodes, std::nullopt);
  Reply then = [this, nodes, drained](const Result<engine::Decision>& decision) {
    if (!decision.ok()) {
      watch.problem("an administrator's order was refused: " + decision.error().message);
    } else if (watch.drained) {
      watch.drained(nodes, drained);
    }
  };
  if (drained) {
    ask(DrainNodes{caller, nodes, "being repaired"}, std::move(then));
  } else {
    ask(ResumeNodes{caller, nodes}, std::move(then));
  }
}

}  // namespace muster::sim

#include "sim/client.h"

#include <csignal>
#include <string>
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
    if (random_.permille(200)) {
      change_accounting();
    } else if (!options_.specs.reservations.empty() && random_.permille(750)) {
      reserve();
    } else {
      drain();
    }
    return;
  }
  if (jobs_.empty() || random_.permille(600)) {
    submit();
    return;
  }
  const Caller caller{options_.user, false};
  bool whole = false;
  switch (random_.below(9)) {
    case 6:
      ask(RequeueJobs{caller, some_jobs(whole)}, {});
      break;
    case 7:
      ask(SuspendJobs{caller, some_jobs(whole)}, {});
      break;
    case 8:
      ask(ContinueJobs{caller, some_jobs(whole)}, {});
      break;
    case 0:
      ask(HoldJobs{caller, some_jobs(whole)}, {});
      break;
    case 4:
      update();
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

void Client::update() {
  options_.specs.now = timeline_.now();
  options_.specs.jobs = jobs_;
  UpdateJobs update{.caller = {options_.user, false}, .jobs = {}, .change = random_change(random_, options_.specs)};
  bool whole = false;
  do {
    update.jobs = some_jobs(whole);
  } while (update.jobs.items.empty());
  ask(std::move(update), {});
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

// Short windows that come once, so that everything comes to rest. Many are refused: jobs and other reservations are in
// the way.
void Client::reserve() {
  const Caller caller{options_.user, true};
  const std::string name = random_.pick(options_.specs.reservations);
  if (random_.permille(200)) {
    ask(RemoveReservation{caller, name, random_.permille(500)}, {});
    return;
  }
  MakeReservation make;
  make.caller = caller;
  make.name = name;
  make.create = random_.permille(700);
  make.start = timeline_.now() + random_.duration(Duration{}, Duration::from_s(20));
  make.duration = random_.duration(Duration::from_s(1), Duration::from_s(20));
  if (random_.permille(300)) {
    make.node_count = static_cast<std::uint32_t>(random_.between(1, options_.specs.nodes));
  } else {
    make.nodes = std::vector<std::string>{"n" + std::to_string(random_.between(1, options_.specs.nodes))};
  }
  make.maintenance = random_.permille(300);
  make.users = *make.maintenance ? std::vector<std::string>{}
                                 : std::vector<std::string>{"u" + std::to_string(random_.between(1, 3))};
  make.accounts = std::vector<std::string>{};
  make.ignore_jobs = random_.permille(500);
  ask(make, {});
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

// Accounts and QOS of few names, so that jobs meet them. Every limit lets one job run, so nothing waits for ever.
void Client::change_accounting() {
  ChangeAccounting change;
  change.caller = Caller{options_.user, true};
  const bool is_account = random_.permille(600);
  change.kind = is_account ? AccountingKind::kAccount : AccountingKind::kQos;
  change.name = is_account ? "a" + std::to_string(random_.below(3)) : "q" + std::to_string(random_.below(2));
  change.verb = random_.permille(450)   ? AccountingVerb::kAdd
                : random_.permille(800) ? AccountingVerb::kModify
                                        : AccountingVerb::kDelete;
  if (change.verb != AccountingVerb::kDelete) {
    if (is_account && random_.permille(500)) {
      change.settings.push_back({"parent", random_.permille(700) ? "a" + std::to_string(random_.below(3)) : ""});
    }
    if (random_.permille(500)) change.settings.push_back({"jobs", std::to_string(random_.between(1, 4))});
    if (random_.permille(300)) change.settings.push_back({"user.jobs", std::to_string(random_.between(1, 3))});
    change.settings.push_back(is_account ? AccountingSetting{"shares", std::to_string(random_.below(4))}
                                         : AccountingSetting{"usage_factor", std::to_string(random_.below(200))});
  }
  ask(change, {});  // refused as often as not: the account is there already, or has jobs
}

}  // namespace muster::sim

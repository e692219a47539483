#include "sim/controller.h"

#include <algorithm>
#include <utility>

#include "sim/state_codec.h"

namespace muster::sim {

Controller::Controller(Timeline& timeline, Random random, ControllerOptions options, Store& store,
                       std::vector<Link*> links)
    : timeline_(timeline), random_(random), options_(std::move(options)), store_(store), links_(std::move(links)) {}

void Controller::problem(std::string text) {
  if (watch.problem) watch.problem(std::move(text));
}

void Controller::after(Duration delay, void (Controller::*what)()) {
  timeline_.after(delay, [this, what, life = life_number_] {
    if (life_ != nullptr && life == life_number_) (this->*what)();
  });
}

// Never behind what is already in the journal, whatever the machine's clock says.
Instant Controller::wall_clock() const {
  return std::max(timeline_.now() + clock_offset_, life_->state.now);
}
bool Controller::idle() const {
  return up() && life_->open.empty() && !life_->writing;
}
void Controller::slow_disk(Duration until_from_now) {
  slow_until_ = timeline_.now() + until_from_now;
}

// ---- life

engine::State Controller::replay() {
  engine::State state;
  if (!store_.snapshot.empty()) {
    Result<engine::State> loaded = decode_state(store_.snapshot);
    if (!loaded.ok()) {
      problem("the snapshot cannot be read: " + loaded.error().message);
      return state;
    }
    state = std::move(*loaded);
  }
  for (std::size_t i = store_.snapshot_rows; i < store_.rows.size(); ++i) {
    const Result<Facts> facts = from_journal(store_.rows[i]);
    if (!facts.ok()) {
      problem("row " + std::to_string(i) + " of the journal cannot be read: " + facts.error().message);
      return state;
    }
    for (const Fact& fact : *facts) engine::evolve(state, fact);
  }
  return state;
}

void Controller::start(Duration clock_offset) {
  clock_offset_ = clock_offset;
  ++life_number_;
  ++version_;
  life_ = std::make_unique<Life>();
  life_->state = replay();
  life_->shadow = life_->state;
  life_->session_of_link.resize(links_.size());
  life_->node_of_link.resize(links_.size());
  life_->heard.resize(links_.size());
  request(StartTerm{}, {});
  after(options_.tick, &Controller::tick);
  for (Link* link : links_) link->set_controller_up(true);
}

void Controller::crash() {
  // What was being written when the power went may be on disk, with nobody told.
  if (life_->writing && random_.permille(500)) {
    std::vector<JobSummary> history;
    for (const Effect& effect : life_->writing->effects) {
      if (const auto* record = std::get_if<RecordHistory>(&effect)) history.push_back(record->summary);
    }
    store_.rows.push_back(std::move(life_->writing_row));
    store_.history.insert(store_.history.end(), history.begin(), history.end());
    if (watch.on_commit) watch.on_commit(life_->writing->facts, history);
  }
  life_.reset();
  for (Link* link : links_) link->set_controller_up(false);
}

// ---- commands

Result<engine::Decision> Controller::carry_out(const Command& command) {
  Result<engine::Decision> decision = engine::decide(life_->state, options_.policy, command, wall_clock());
  if (!decision.ok()) return decision;
  for (const Fact& fact : decision->facts) {
    if (fact.at < life_->state.now) problem("a fact is older than the one before it");
    if (watch.on_fact) watch.on_fact(life_->state, fact);
    engine::apply(life_->state, fact, life_->open.effects);
    life_->open.facts.push_back(fact);
  }
  if (!decision->facts.empty()) ++version_;
  life_->open.effects.insert(life_->open.effects.end(), decision->effects.begin(), decision->effects.end());
  open_batch();
  return decision;
}

// As the daemon does it: what the state does not know of the jobs that a dependency names, history does.
std::vector<EndedJob> Controller::look_up_ended(const Dependency& dependency) const {
  std::vector<EndedJob> all;
  std::vector<JobSummary> rows = store_.history;
  for (const Batch* batch : {life_->writing ? &*life_->writing : nullptr, &life_->open}) {
    for (const Effect& effect : batch != nullptr ? batch->effects : Effects{}) {
      if (const auto* record = std::get_if<RecordHistory>(&effect)) rows.push_back(record->summary);
    }
  }
  for (const DependencyTerm& term : dependency.terms) {
    const DependencyTarget& target = term.target;
    EndedJob ended{.target = target, .completed = true, .start = {}};
    bool found = false;
    for (const JobSummary& row : rows) {
      const bool array = row.array == target.job && row.array != JobId{};
      const bool single = row.id == target.job && row.array != row.id;
      bool meant = array || single;
      if (target.has_task) {
        const auto position = array ? row.spec->array->position_of(target.task) : std::nullopt;
        meant = position && *position >= row.array_position && *position < row.array_position + row.count;
      }
      if (!meant) continue;
      ended.start = std::max(ended.start, row.start_time);  // a start counts, whatever became of it
      if (row.requeued) continue;
      found = true;
      ended.completed = ended.completed && row.state == JobState::kCompleted;
      if (array) ended.array = row.spec->array;
      if (row.state != JobState::kCompleted) {
        add(ended.failed, {row.array_position, row.array_position + row.count});
      }
    }
    if (found) all.push_back(ended);
  }
  return all;
}

void Controller::request(Command command, Reply reply) {
  if (auto* submit = std::get_if<SubmitJob>(&command)) submit->ended = look_up_ended(submit->spec->dependency);
  if (auto* update = std::get_if<UpdateJobs>(&command)) update->ended = look_up_ended(update->change.values.dependency);
  Result<engine::Decision> decision = carry_out(command);
  if (reply) {
    // Also an answer that changed nothing waits, so that nobody sees what a crash could undo.
    life_->open.replies.push_back([reply = std::move(reply), decision = std::move(decision)] { reply(decision); });
    open_batch();
  }
}

void Controller::plan() {
  const sched::Plan plan = engine::plan(life_->state, options_.policy, options_.budget, wall_clock());
  ApplyPlan command = engine::apply_plan(life_->state, plan);
  const std::size_t effects_before = life_->open.effects.size();
  if (!command.placements.empty() || !command.promises.empty() || !command.preemptions.empty() ||
      !command.resumes.empty()) {
    const Result<engine::Decision> applied = carry_out(std::move(command));
    if (!applied.ok()) {
      problem("a plan was refused: " + applied.error().message);
    } else if (!applied->notes.empty()) {
      // Nothing came between planning and applying here, so every placement must stand.
      problem("a placement of a fresh plan was refused: " + applied->notes.front());
    }
  }
  // What starts may be what others wait for.
  const bool met =
      std::any_of(life_->open.effects.begin() + static_cast<std::ptrdiff_t>(effects_before), life_->open.effects.end(),
                  [](const Effect& effect) { return std::holds_alternative<DependencyMet>(effect); });
  life_->more_to_plan = !plan.complete || met;
  if (life_->more_to_plan) {
    if (plan.placements.empty() && plan.preemptions.empty() && plan.resumes.empty())
      problem("a plan is neither complete nor does it start anything");
  } else if (watch.on_planned) {
    watch.on_planned(life_->state);
  }
}

void Controller::open_batch() {
  if (life_->collecting || life_->writing) return;
  life_->collecting = true;
  after(random_.duration(Duration{}, options_.collect_max), &Controller::close_batch);
}

void Controller::close_batch() {
  if (life_->writing) return;  // commit() opens the next one
  plan();
  life_->collecting = false;
  if (life_->open.empty()) return;  // planning starts something or is complete
  life_->writing = std::exchange(life_->open, {});
  const Result<Facts> read_back = through_journal(life_->writing->facts, life_->writing_row);
  if (!read_back.ok()) {
    problem("a batch cannot be read back: " + read_back.error().message);
    return;
  }
  if (*read_back != life_->writing->facts) problem("a batch changes its meaning when it is encoded");
  for (const Fact& fact : *read_back) engine::evolve(life_->shadow, fact);
  if (life_->shadow != life_->state) problem("replaying the journal does not give the live state");
  Duration write = random_.duration(options_.write_min, options_.write_max);
  if (timeline_.now() < slow_until_) write = Duration{write.us * 50};
  after(write, &Controller::commit);
}

void Controller::commit() {
  Batch batch = std::move(*life_->writing);
  life_->writing.reset();
  std::vector<JobSummary> history;
  for (const Effect& effect : batch.effects) {
    if (const auto* record = std::get_if<RecordHistory>(&effect)) history.push_back(record->summary);
  }
  if (!batch.facts.empty()) store_.rows.push_back(std::move(life_->writing_row));
  store_.history.insert(store_.history.end(), history.begin(), history.end());
  if (watch.on_commit) watch.on_commit(batch.facts, history);
  for (const Effect& effect : batch.effects) perform(effect);
  for (const std::function<void()>& reply : batch.replies) reply();
  if (store_.rows.size() >= store_.snapshot_rows + options_.rows_per_snapshot) {
    // As the daemon's helper process does: from the rows on disk, not from the running state.
    const engine::State replayed = replay();
    std::string bytes = encode_state(replayed);
    const Result<engine::State> loaded = decode_state(bytes);
    if (!loaded.ok()) {
      problem("a snapshot cannot be read back: " + loaded.error().message);
    } else if (*loaded != replayed) {
      problem("a snapshot changes the state");
    }
    store_.snapshot = std::move(bytes);
    store_.snapshot_rows = store_.rows.size();
  }
  if (!life_->open.empty() || life_->more_to_plan) open_batch();
}

void Controller::tick() {
  for (std::size_t i = 0; i < links_.size(); ++i) {
    if (life_->session_of_link[i] != 0 && timeline_.now() - life_->heard[i] > options_.heartbeat_timeout) {
      life_->session_of_link[i] = 0;
      request(LoseNode{*life_->node_of_link[i]}, {});
    }
  }
  request(Tick{}, {});
  open_batch();  // what depends on time alone is planned
  after(options_.tick, &Controller::tick);
}

// ---- nodes

void Controller::send(NodeIndex node, ToNode message) {
  const auto link = life_->link_of_node.find(node);
  if (link == life_->link_of_node.end()) return;  // it will be told when it registers
  links_[link->second]->send_down(life_->session_of_link[link->second], std::move(message));
}

void Controller::perform(const Effect& effect) {
  const Term term = life_->state.term;
  if (const auto* launch = std::get_if<SendLaunch>(&effect)) {
    if (engine::is_owed(life_->state, launch->node, launch->order)) send(launch->node, ToNode{term, launch->order});
  } else if (const auto* stop = std::get_if<SendStop>(&effect)) {
    send(stop->node, ToNode{term, stop->order});
  } else if (const auto* limit = std::get_if<SendLimit>(&effect)) {
    send(limit->node, ToNode{term, limit->order});
  } else if (const auto* suspend = std::get_if<SendSuspend>(&effect)) {
    send(suspend->node, ToNode{term, suspend->order});
  } else if (const auto* ask = std::get_if<AskHealth>(&effect)) {
    send(ask->node, ToNode{term, RunChecks{}});
  } else if (const auto* acknowledge = std::get_if<AcknowledgeReport>(&effect)) {
    send(acknowledge->node, ToNode{term, Acknowledge{acknowledge->key}});
  }
  // History went with the facts. Announcements are for clients that wait; here they ask again instead.
}

void Controller::register_node(std::size_t link, Link::SessionId session, const NodeRegistration& registration) {
  const Result<engine::Decision> decision = carry_out(RegisterNode{registration});
  if (!decision.ok()) {
    problem("a registration was refused: " + decision.error().message);
    return;
  }
  if (decision->outdated_by != 0) {
    links_[link]->send_down(session, ToNode{life_->state.term, RegisterAgain{decision->outdated_by}});
    return;
  }
  // The session counts from now on, before the registration is on disk: what is sent to it meanwhile was owed anyway.
  life_->session_of_link[link] = session;
  life_->heard[link] = timeline_.now();
  life_->link_of_node[decision->node] = link;
  life_->node_of_link[link] = decision->node;
  life_->open.replies.push_back([this, link, session] {
    links_[link]->send_down(session, ToNode{life_->state.term, Registered{}});
  });
  open_batch();
}

void Controller::from_node(std::size_t link, Link::SessionId session, const ToController& message) {
  if (life_ == nullptr) return;
  if (const auto* registration = std::get_if<NodeRegistration>(&message)) {
    register_node(link, session, *registration);
    return;
  }
  if (life_->session_of_link[link] != session) {
    // A connection that has not registered in this term says nothing that counts.
    links_[link]->send_down(session, ToNode{life_->state.term, RegisterAgain{}});
    return;
  }
  life_->heard[link] = timeline_.now();
  if (const auto* reports = std::get_if<Reports>(&message)) {
    const std::string& name = life_->state.nodes[life_->node_of_link[link]->value].name;
    const Result<engine::Decision> decision = carry_out(ReportAttempts{name, reports->reports});
    if (!decision.ok()) problem("a report was refused: " + decision.error().message);
  } else if (const auto* health = std::get_if<Health>(&message)) {
    const std::string& name = life_->state.nodes[life_->node_of_link[link]->value].name;
    const Result<engine::Decision> decision = carry_out(ReportHealth{name, health->problems});
    if (!decision.ok()) problem("a report of its health was refused: " + decision.error().message);
  } else {
    links_[link]->send_down(session, ToNode{life_->state.term, HeartbeatReply{}});
  }
}

}  // namespace muster::sim

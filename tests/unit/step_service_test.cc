// Steps over two nodes: real sockets and keys, and supervisors that are played by the test.
#include "noded/step_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <deque>
#include <map>

#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/zap.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/step_coordinator.h"
#include "noded/ticket.h"
#include "tests/support/machine.h"
#include "tests/support/slowness.h"

namespace muster::noded {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const AttemptKey kKey{JobId(42), Attempt(1)};

// The attempts of one node, and all that their supervisors were told.
class FakeAttempts : public Attempts {
 public:
  FakeAttempts() = default;

  NodeIdentity me;
  std::map<AttemptKey, AttemptInfo> attempts;
  std::vector<Frame> sent;
  std::map<std::uint32_t, OnStepFrame> followers;
  std::vector<Outcome> finished;
  std::vector<std::pair<Verdict, bool>> proven;
  OnRunning running_callback;
  OnEnded ended_callback;

  Result<AttemptInfo> find(AttemptKey key) const override {
    const auto it = attempts.find(key);
    if (it == attempts.end()) {
      return make_error(ErrorCode::kNotFound, "no such attempt");
    }
    return it->second;
  }
  Result<AttemptInfo> find_job(JobId job) const override { return find({job, Attempt(1)}); }
  Status send(AttemptKey key, const Frame& frame) override {
    if (!attempts.contains(key)) {
      return make_error(ErrorCode::kNotFound, "no such attempt");
    }
    sent.push_back(frame);
    return ok_status();
  }
  void subscribe(AttemptKey /*key*/, std::uint32_t step, OnStepFrame callback) override {
    followers[step] = std::move(callback);
  }
  void unsubscribe(AttemptKey /*key*/, std::uint32_t step) override { followers.erase(step); }
  Status finish(AttemptKey /*key*/, const Outcome& outcome) override {
    finished.push_back(outcome);
    return ok_status();
  }
  void prove(AttemptKey /*key*/, const Verdict& verdict, bool more) override { proven.emplace_back(verdict, more); }
  void on_running(OnRunning callback) override { running_callback = std::move(callback); }
  void on_ended(OnEnded callback) override { ended_callback = std::move(callback); }
  const NodeIdentity& identity() const override { return me; }

  void tell(std::uint32_t step, const Frame& frame) {
    const auto it = followers.find(step);
    ASSERT_NE(it, followers.end()) << "nobody follows step " << step;
    const OnStepFrame callback = it->second;
    callback(frame);
  }
  template <typename T>
  std::vector<T> frames() const {
    std::vector<T> found;
    for (const Frame& frame : sent) {
      if (const T* one = std::get_if<T>(&frame)) {
        found.push_back(*one);
      }
    }
    return found;
  }
};

struct TestNode {
  io::Key key = io::generate_node_key();
  FakeAttempts attempts;
  std::optional<io::ZmqSocket> router;
  std::unique_ptr<StepService> service;
  std::string endpoint;
};

class StepServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/muster-steps-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    auto zap = io::ZapHandler::accept_any(context_);
    ASSERT_TRUE(zap.ok());
    zap_ = std::move(*zap);
    for (int i = 0; i < 2; ++i) {
      nodes_.push_back(std::make_unique<TestNode>());
      TestNode& node = *nodes_.back();
      bind(node);
      node.attempts.me.name = "n" + std::to_string(i + 1);
      node.attempts.me.endpoint = node.endpoint;
      node.attempts.me.public_key = node.key.pub.curve_public;
    }
    io::ZmqOptions options;
    options.curve_client = io::CurveClient{.public_key = client_key_.pub.curve_public,
                                           .secret_key = client_key_.curve_secret,
                                           .server_key = nodes_[0]->key.pub.curve_public};
    auto client = io::ZmqSocket::create(loop_, context_, io::ZmqSocket::Type::kDealer, options,
                                        [this](const io::ZmqMessage& message) {
                                          pb::NodeReply reply;
                                          ASSERT_GE(message.frames.size(), 2U);
                                          ASSERT_TRUE(reply.ParseFromString(message.frames[1]));
                                          replies_.push_back(std::move(reply));
                                        });
    ASSERT_TRUE(client.ok());
    client_.emplace(std::move(*client));
    ASSERT_TRUE(client_->connect(nodes_[0]->endpoint).ok());
  }

  void TearDown() override {
    client_.reset();
    for (auto& node : nodes_) {
      node->service.reset();
      node->router.reset();
    }
    zap_.reset();
    (void)io::remove_tree(directory_);
  }

  void bind(TestNode& node) {
    io::ZmqOptions options;
    options.curve_server = io::CurveServer{.secret_key = node.key.curve_secret};
    TestNode* where = &node;
    auto router =
        io::ZmqSocket::create(loop_, context_, io::ZmqSocket::Type::kRouter, options,
                              [where](const io::ZmqMessage& message) { where->service->on_message(message); });
    ASSERT_TRUE(router.ok());
    node.router.emplace(std::move(*router));
    auto bound = node.router->bind(node.endpoint.empty() ? "tcp://127.0.0.1:*" : node.endpoint);
    ASSERT_TRUE(bound.ok()) << bound.error().message;
    node.endpoint = *bound;
    start_service(node);
  }

  void start_service(TestNode& node) {
    StepServiceOptions options;
    options.loop = &loop_;
    options.context = &context_;
    options.attempts = &node.attempts;
    options.node_key = node.key;
    options.cluster_key = cluster_.pub;
    options.send = [where = &node](const std::string& peer, const std::vector<std::string>& frames) {
      return where->router->send_to(peer, frames);
    };
    options.client_awaited = client_awaited_;
    options.client_lost_after = client_lost_after_;
    options.peer_start_patience = Duration::from_s(5 * test::kSlowness);
    options.part_keepalive = Duration::from_ms(100);
    node.service = std::make_unique<StepService>(std::move(options));
  }

  // The job runs on both nodes with two tasks each.
  void launch(JobKind kind = JobKind::kBatch) {
    for (int i = 0; i < 2; ++i) {
      launch_on(i, kind);
    }
  }
  void launch_on(int i, JobKind kind = JobKind::kBatch) {
    auto spec = std::make_shared<JobSpec>();
    spec->kind = kind;
    spec->user = "someone";
    spec->uid = 1234;
    auto order = std::make_shared<LaunchOrder>();
    order->key = kKey;
    order->node = nodes_[i]->attempts.me.name;
    order->node_rank = static_cast<std::uint32_t>(i);
    order->spec = spec;
    order->share.cores = cores_;
    for (auto& node : nodes_) {
      order->peers.push_back({.name = node->attempts.me.name,
                              .endpoint = node->endpoint,
                              .public_key = node->key.pub.curve_public,
                              .tasks = 2,
                              .cpus = 2});
    }
    AttemptInfo info;
    info.order = order;
    info.directory = directory_;
    info.running = true;
    nodes_[i]->attempts.attempts[kKey] = info;
    nodes_[i]->attempts.running_callback(kKey, {});
  }

  pb::Ticket ticket(const std::function<void(pb::TicketBody&)>& change = {}) {
    pb::TicketBody body;
    wire::to_pb(kKey, *body.mutable_key());
    body.set_user("someone");
    body.set_uid(1234);
    body.set_client_key(client_key_.pub.curve_public);
    body.set_expires_us((io::wall_now() + Duration::from_s(600)).us);
    if (change) {
      change(body);
    }
    pb::Ticket ticket;
    ticket.set_body(body.SerializeAsString());
    ticket.set_signature(io::sign(cluster_, ticket.body()));
    return ticket;
  }

  void send(const pb::NodeRequest& request, const std::string& stream = "streamid") {
    ASSERT_TRUE(
        client_->send({wire::header(wire::MessageKind::kNodeRequest), request.SerializeAsString(), stream}).ok());
  }
  pb::NodeRequest exact_request(std::uint32_t ntasks) {
    pb::NodeRequest request = run_request();
    request.mutable_run()->mutable_spec()->set_sharing(1);
    request.mutable_run()->mutable_spec()->set_ntasks(ntasks);
    return request;
  }
  pb::NodeRequest run_request() {
    pb::NodeRequest request;
    *request.mutable_run()->mutable_ticket() = ticket();
    request.mutable_run()->mutable_spec()->add_argv("hostname");
    request.mutable_run()->mutable_spec()->set_work_dir("/");
    return request;
  }

  pb::NodeRequest hold_request() {
    pb::NodeRequest request;
    *request.mutable_hold_allocation()->mutable_ticket() = ticket();
    return request;
  }
  static pb::NodeRequest release_request(std::int32_t exit_code) {
    pb::NodeRequest request;
    Outcome outcome;
    outcome.exit_code = exit_code;
    wire::to_pb(outcome, *request.mutable_release_allocation()->mutable_outcome());
    return request;
  }

  bool wait(const std::function<bool()>& done) { return loop_.run_until(done, Duration::from_s(10 * test::kSlowness)); }
  // The next reply to the client but for keepalives and credits.
  pb::NodeReply next_reply() {
    const auto relevant = [&] {
      while (!replies_.empty() && (replies_.front().has_keepalive() || replies_.front().has_input_credit())) {
        replies_.pop_front();
      }
      return !replies_.empty();
    };
    if (!wait(relevant)) {
      ADD_FAILURE() << "no reply came";
      return {};
    }
    pb::NodeReply reply = std::move(replies_.front());
    replies_.pop_front();
    return reply;
  }

  // The next start of a step, whatever comes before it.
  pb::StepStarted next_started() {
    for (pb::NodeReply reply = next_reply(); reply.body_case() != pb::NodeReply::BODY_NOT_SET; reply = next_reply()) {
      if (reply.has_started()) {
        return reply.started();
      }
    }
    return {};
  }

  StepStartFrame start_of(int node) {
    EXPECT_TRUE(wait([&] { return !nodes_[node]->attempts.frames<StepStartFrame>().empty(); }));
    const auto frames = nodes_[node]->attempts.frames<StepStartFrame>();
    return frames.empty() ? StepStartFrame{} : frames.back();
  }
  void end_task(int node, std::uint32_t rank, int exit_code, int signal = 0) {
    Outcome outcome;
    outcome.exit_code = exit_code;
    outcome.signal = signal;
    outcome.cause = signal != 0 ? EndCause::kSignalled : EndCause::kExited;
    nodes_[node]->attempts.tell(0, StepTaskEndedFrame{.step = 0, .rank = rank, .outcome = outcome});
  }
  void output(int node, std::uint32_t rank, const std::string& data, std::uint64_t offset = 0) {
    nodes_[node]->attempts.tell(
        0, StepOutputFrame{.step = 0, .rank = rank, .stream = 1, .data = data, .eof = false, .offset = offset});
  }

  // Two packages of two cores on each node, all of which the job holds.
  void know_topology(bool pretended = false) {
    NodeTopology topology = test::Machine({.packages = 2, .numa = 1, .l3 = 1, .cores = 2}).topology();
    topology.pretended = pretended;
    for (auto& node : nodes_) {
      node->attempts.me.hardware = hardware_of(topology);
      node->attempts.me.topology = std::make_shared<const NodeTopology>(topology);
      node->attempts.me.node_class = std::make_shared<const topo::NodeClass>(topology);
    }
    cores_ = IndexSet::range(0, 4);
  }
  void bound(int node, std::uint32_t rank, const IndexSet& cpus) {
    StepTaskBoundFrame frame;
    frame.rank = rank;
    frame.cpus = cpus.words();
    nodes_[node]->attempts.tell(0, frame);
  }

  IndexSet cores_;
  Duration client_awaited_ = Duration::from_s(60);
  Duration client_lost_after_ = Duration::from_s(30);
  std::string directory_;
  io::Loop loop_;
  io::ZmqContext context_;
  std::unique_ptr<io::ZapHandler> zap_;
  io::Key cluster_ = io::generate_cluster_key();
  io::Key client_key_ = io::generate_user_key();
  std::vector<std::unique_ptr<TestNode>> nodes_;
  std::optional<io::ZmqSocket> client_;
  std::deque<pb::NodeReply> replies_;
};

TEST_F(StepServiceTest, RunsTasksOnBothNodesAndTellsTheWorstExit) {
  launch();
  send(run_request());
  const StepStartFrame first = start_of(0);
  const StepStartFrame second = start_of(1);
  EXPECT_THAT(first.argv, ElementsAre("hostname"));
  ASSERT_EQ(first.tasks.size(), 2U);
  ASSERT_EQ(second.tasks.size(), 2U);
  EXPECT_EQ(first.tasks[0].rank, 0U);
  EXPECT_EQ(second.tasks[1].rank, 3U);
  const pb::NodeReply started = next_reply();
  ASSERT_TRUE(started.has_started());
  EXPECT_EQ(started.started().job(), 42U);
  EXPECT_THAT(started.started().nodes(), ElementsAre("n1", "n2"));

  output(1, 2, "from the second node\n");
  const pb::NodeReply piece = next_reply();
  ASSERT_TRUE(piece.has_output());
  EXPECT_EQ(piece.output().rank(), 2U);
  EXPECT_EQ(piece.output().data(), "from the second node\n");

  end_task(0, 0, 0);
  end_task(0, 1, 3);
  end_task(1, 2, 0);
  end_task(1, 3, 0, 9);
  std::int32_t exit_code = -1;
  for (int i = 0; i < 5; ++i) {
    const pb::NodeReply reply = next_reply();
    if (reply.has_ended()) {
      exit_code = reply.ended().exit_code();
    } else {
      EXPECT_TRUE(reply.has_task_ended());
    }
  }
  EXPECT_EQ(exit_code, 137);
  EXPECT_TRUE(wait([&] {
    return !nodes_[0]->attempts.frames<StepForgetFrame>().empty() &&
           !nodes_[1]->attempts.frames<StepForgetFrame>().empty();
  }));
}

TEST_F(StepServiceTest, TasksAreBoundAndAClientThatAsksIsTold) {
  know_topology();
  launch();
  pb::NodeRequest request = run_request();
  request.mutable_run()->mutable_spec()->set_cpu_bind("verbose");
  send(request);
  const StepStartFrame second = start_of(1);
  ASSERT_EQ(second.tasks.size(), 2U);
  EXPECT_EQ(second.tasks[0].cpus, IndexSet::range(0, 2).words());
  EXPECT_EQ(second.tasks[1].cpus, IndexSet::range(2, 2).words());
  ASSERT_TRUE(next_reply().has_started());
  bound(1, 3, IndexSet::range(2, 2));
  const pb::NodeReply told = next_reply();
  ASSERT_TRUE(told.has_task_bound());
  EXPECT_EQ(told.task_bound().rank(), 3U);
  EXPECT_EQ(told.task_bound().node(), "n2");
  EXPECT_EQ(told.task_bound().cpus(), "2-3");
  EXPECT_EQ(told.task_bound().decided(), "2-3");
}

TEST_F(StepServiceTest, AMismatchIsToldToEverybody) {
  know_topology();
  launch();
  send(run_request());
  (void)start_of(0);
  ASSERT_TRUE(next_reply().has_started());
  bound(0, 0, IndexSet::range(0, 2));  // as decided: not a word
  bound(0, 1, IndexSet::range(2, 1));
  const pb::NodeReply told = next_reply();
  ASSERT_TRUE(told.has_task_bound());
  EXPECT_EQ(told.task_bound().rank(), 1U);
  EXPECT_EQ(told.task_bound().cpus(), "2");
  EXPECT_EQ(told.task_bound().decided(), "2-3");
  EXPECT_EQ(told.task_bound().fault(), "CPUs 2 in place of 2-3");
  const auto& proven = nodes_[0]->attempts.proven;
  ASSERT_EQ(proven.size(), 2U);
  EXPECT_TRUE(proven[0].first.proof.as_decided);
  EXPECT_TRUE(proven[0].second) << "another task is to come";
  EXPECT_EQ(proven[1].first.fault, "CPUs 2 in place of 2-3");
  EXPECT_FALSE(proven[1].second);
}

TEST_F(StepServiceTest, RanksAreDealtOutAsTheStepSays) {
  know_topology();
  launch();
  pb::NodeRequest request = run_request();
  request.mutable_run()->mutable_spec()->set_distribution("cyclic");
  request.mutable_run()->mutable_spec()->set_cpu_bind("verbose");
  send(request);
  const StepStartFrame first = start_of(0);
  const StepStartFrame second = start_of(1);
  ASSERT_EQ(first.tasks.size() + second.tasks.size(), 4U);
  EXPECT_EQ(first.tasks[1].rank, 2U);
  EXPECT_EQ(second.tasks[0].rank, 1U);
  EXPECT_EQ(second.tasks[1].rank, 3U);
  const pb::NodeReply started = next_reply();
  ASSERT_TRUE(started.has_started());
  EXPECT_EQ(started.started().rank_plane(), 1U);
  bound(0, 2, IndexSet::range(2, 2));
  const pb::NodeReply told = next_reply();
  ASSERT_TRUE(told.has_task_bound());
  EXPECT_EQ(told.task_bound().decided(), "2-3") << "the second task of its node";
  output(1, 1, "of the second node");
  EXPECT_EQ(next_reply().output().data(), "of the second node");
  output(0, 1, "of another node's rank");
  end_task(0, 0, 0);
  const pb::NodeReply ended = next_reply();
  ASSERT_TRUE(ended.has_task_ended()) << "output of a rank that is not the node's is dropped";
}

TEST_F(StepServiceTest, NothingIsBoundToAPretendedNode) {
  know_topology(true);
  launch();
  pb::NodeRequest request = run_request();
  request.mutable_run()->mutable_spec()->set_cpu_bind("v,cores");
  send(request);
  EXPECT_TRUE(start_of(0).tasks.front().cpus.empty());
  ASSERT_TRUE(next_reply().has_started());
  bound(0, 0, IndexSet::range(0, 64));
  const pb::NodeReply told = next_reply();
  ASSERT_TRUE(told.has_task_bound());
  EXPECT_TRUE(told.task_bound().pretended());
  EXPECT_EQ(told.task_bound().decided(), "0-1");
}

TEST_F(StepServiceTest, CreditOfTheClientReachesTheNodeThatWrote) {
  launch();
  send(run_request());
  (void)start_of(1);
  ASSERT_TRUE(next_reply().has_started());
  const std::string data(20'000, 'x');
  output(1, 2, data);
  output(0, 0, data);
  ASSERT_TRUE(next_reply().has_output());
  ASSERT_TRUE(next_reply().has_output());
  EXPECT_TRUE(nodes_[1]->attempts.frames<StepCreditFrame>().empty());
  pb::NodeRequest credit;
  credit.mutable_credit()->set_bytes(40'000);
  send(credit);
  for (int node = 0; node < 2; ++node) {
    ASSERT_TRUE(wait([&] { return !nodes_[node]->attempts.frames<StepCreditFrame>().empty(); }));
    EXPECT_EQ(nodes_[node]->attempts.frames<StepCreditFrame>()[0].bytes, 20'000 + kOutputFrameCost);
  }
}

TEST_F(StepServiceTest, ANodeThatHearsOfTheJobLateIsWaitedFor) {
  launch_on(0);
  send(run_request());
  (void)start_of(0);
  EXPECT_TRUE(next_reply().has_started());
  output(0, 1, "early");  // of a part that runs already
  EXPECT_EQ(next_reply().output().data(), "early");
  EXPECT_TRUE(replies_.empty());
  launch_on(1);
  (void)start_of(1);
  // Input is wanted when all of them run.
  EXPECT_TRUE(wait([&] { return !replies_.empty(); }));
  EXPECT_TRUE(replies_.front().has_input_credit());
}

TEST_F(StepServiceTest, ARestartedPeerIsTakenUpAgainWithoutLossOrRepetition) {
  launch();
  send(run_request());
  (void)start_of(1);
  ASSERT_TRUE(next_reply().has_started());
  output(1, 2, "one ");
  ASSERT_EQ(next_reply().output().data(), "one ");
  // Its daemon is new: it knows nothing, and its supervisor waits for a resume.
  nodes_[1]->service.reset();
  nodes_[1]->attempts.followers.clear();
  nodes_[1]->attempts.sent.clear();
  start_service(*nodes_[1]);
  ASSERT_TRUE(wait([&] { return !nodes_[1]->attempts.frames<StepResumeFrame>().empty(); }));
  const StepResumeFrame resume = nodes_[1]->attempts.frames<StepResumeFrame>()[0];
  EXPECT_THAT(resume.received, ElementsAre(StepReceived{.rank = 2, .stream = 1, .bytes = 4}));
  output(1, 2, "one two ", 0);
  EXPECT_EQ(next_reply().output().data(), "two ");
}

TEST_F(StepServiceTest, ARestartedCoordinatorIsToldByTheClient) {
  launch();
  send(run_request());
  (void)start_of(1);
  const pb::NodeReply started = next_reply();
  ASSERT_TRUE(started.has_started());
  for (auto& node : nodes_) {
    node->attempts.sent.clear();
  }
  nodes_[0]->service.reset();
  nodes_[0]->attempts.followers.clear();
  start_service(*nodes_[0]);
  pb::NodeRequest keepalive;
  keepalive.mutable_keepalive();
  send(keepalive);
  const pb::NodeReply refused = next_reply();
  ASSERT_TRUE(refused.has_refused());
  EXPECT_EQ(refused.refused().code(), static_cast<std::uint32_t>(ErrorCode::kNotFound));

  pb::NodeRequest request;
  auto& resume = *request.mutable_resume();
  *resume.mutable_ticket() = ticket();
  resume.set_step(0);
  *resume.mutable_nodes() = started.started().nodes();
  *resume.mutable_tasks() = started.started().tasks();
  auto& received = *resume.add_received();
  received.set_rank(3);
  received.set_stream(1);
  received.set_bytes(10);
  send(request);
  ASSERT_TRUE(next_reply().has_started());
  for (int node = 0; node < 2; ++node) {
    ASSERT_TRUE(wait([&] { return !nodes_[node]->attempts.frames<StepResumeFrame>().empty(); }));
  }
  EXPECT_THAT(nodes_[1]->attempts.frames<StepResumeFrame>()[0].received,
              ElementsAre(StepReceived{.rank = 3, .stream = 1, .bytes = 10}));
  output(1, 3, "more", 10);
  EXPECT_EQ(next_reply().output().data(), "more");
  end_task(0, 0, 0);
  end_task(0, 1, 0);
  end_task(1, 2, 5);
  end_task(1, 3, 0);
  ASSERT_TRUE(wait([&] { return !replies_.empty() && replies_.back().has_ended(); }));
  EXPECT_EQ(replies_.back().ended().exit_code(), 5);
}

// The daemon was killed after it had started the step, and before the client heard of it.
TEST_F(StepServiceTest, ARepeatedRequestAfterARestartIsTheSameStep) {
  launch(JobKind::kRun);
  send(run_request());
  (void)start_of(1);
  ASSERT_TRUE(next_reply().has_started());
  for (auto& node : nodes_) {
    node->attempts.sent.clear();
  }
  nodes_[0]->service.reset();
  nodes_[0]->attempts.followers.clear();
  start_service(*nodes_[0]);
  nodes_[0]->attempts.running_callback(kKey, {0});

  send(run_request());
  const pb::NodeReply started = next_reply();
  ASSERT_TRUE(started.has_started());
  EXPECT_EQ(started.started().step(), 0U);
  EXPECT_THAT(started.started().nodes(), ElementsAre("n1", "n2"));
  for (int node = 0; node < 2; ++node) {
    // Asked to start what its supervisor may know, and then to tell it from the beginning.
    ASSERT_TRUE(wait([&] { return !nodes_[node]->attempts.frames<StepResumeFrame>().empty(); }));
    EXPECT_EQ(nodes_[node]->attempts.frames<StepResumeFrame>()[0].step, 0U);
    EXPECT_TRUE(nodes_[node]->attempts.frames<StepResumeFrame>()[0].received.empty());
    for (const StepStartFrame& frame : nodes_[node]->attempts.frames<StepStartFrame>()) {
      EXPECT_EQ(frame.step, 0U);
      EXPECT_EQ(frame.tasks.size(), 2U);
    }
  }
  // Its supervisor did not hear of a peer's part twice.
  EXPECT_TRUE(nodes_[1]->attempts.frames<StepStartFrame>().empty());
  output(1, 2, "all of it", 0);
  EXPECT_EQ(next_reply().output().data(), "all of it");
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    end_task(static_cast<int>(rank / 2), rank, 0);
  }
  // It is the job's step still.
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  EXPECT_EQ(nodes_[0]->attempts.finished[0].exit_code, 0);
}

TEST_F(StepServiceTest, ARepeatedRequestForAStepThatIsOverStartsNothing) {
  launch();
  send(run_request());
  (void)start_of(1);
  ASSERT_TRUE(next_reply().has_started());
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    end_task(static_cast<int>(rank / 2), rank, rank == 3 ? 5 : 0);
  }
  ASSERT_TRUE(wait([&] { return !replies_.empty() && replies_.back().has_ended(); }));
  for (const bool restarted : {false, true}) {
    if (restarted) {
      nodes_[0]->service.reset();
      start_service(*nodes_[0]);
      nodes_[0]->attempts.running_callback(kKey, {});
    }
    replies_.clear();
    for (auto& node : nodes_) {
      node->attempts.sent.clear();
    }
    send(run_request());
    const pb::NodeReply reply = next_reply();
    ASSERT_TRUE(reply.has_ended());
    EXPECT_EQ(reply.ended().exit_code(), 5);
    for (auto& node : nodes_) {
      EXPECT_TRUE(node->attempts.frames<StepStartFrame>().empty());
    }
  }
  // A request of its own has the next number.
  ASSERT_TRUE(
      client_->send({wire::header(wire::MessageKind::kNodeRequest), run_request().SerializeAsString(), "another!"})
          .ok());
  const pb::NodeReply next = next_reply();
  ASSERT_TRUE(next.has_started());
  EXPECT_EQ(next.started().step(), 1U);
}

TEST_F(StepServiceTest, TicketsAreChecked) {
  launch();
  const auto refusal = [&](const pb::Ticket& ticket) {
    pb::NodeRequest request = run_request();
    *request.mutable_run()->mutable_ticket() = ticket;
    send(request);
    return next_reply().refused().message();
  };
  EXPECT_THAT(refusal({}), HasSubstr("carries no ticket"));
  pb::Ticket forged = ticket();
  forged.mutable_body()->back() ^= 1;
  EXPECT_THAT(refusal(forged), HasSubstr("not signed by this cluster"));
  EXPECT_THAT(refusal(ticket([](pb::TicketBody& b) { b.set_expires_us(1); })), HasSubstr("expired"));
  EXPECT_THAT(refusal(ticket([](pb::TicketBody& b) { b.set_client_key(std::string(40, 'a')); })),
              HasSubstr("made for another key"));
  EXPECT_THAT(refusal(ticket([](pb::TicketBody& b) { b.set_uid(7); })), HasSubstr("another user"));
  EXPECT_THAT(refusal(ticket([](pb::TicketBody& b) { b.mutable_key()->set_attempt(9); })), HasSubstr("does not run"));
}

TEST_F(StepServiceTest, OnlyTheFirstNodeMayStartParts) {
  launch();
  pb::NodeRequest request;
  auto& start = *request.mutable_peer_start();
  wire::to_pb(kKey, *start.mutable_step()->mutable_key());
  start.mutable_spec()->add_argv("true");
  start.add_nodes("n1");
  start.add_tasks(1);
  send(request);
  const pb::NodeReply reply = next_reply();
  ASSERT_TRUE(reply.has_peer_refused());
  EXPECT_EQ(reply.peer_refused().error().code(), static_cast<std::uint32_t>(ErrorCode::kPermissionDenied));
  EXPECT_TRUE(nodes_[0]->attempts.sent.empty());
}

TEST_F(StepServiceTest, GarbageIsDropped) {
  launch();
  ASSERT_TRUE(client_->send({"x"}).ok());
  ASSERT_TRUE(client_->send({"MUS1s", "\xff\xff\xff", "streamid"}).ok());
  ASSERT_TRUE(client_->send({"MUS1s", "", "streamid", "more"}).ok());
  send(run_request());
  EXPECT_TRUE(next_reply().has_started());
}

TEST_F(StepServiceTest, TheStepOfARunJobIsTheJob) {
  launch(JobKind::kRun);
  send(run_request());
  (void)start_of(1);
  ASSERT_TRUE(next_reply().has_started());
  end_task(0, 0, 0);
  end_task(0, 1, 0);
  end_task(1, 2, 4);
  EXPECT_TRUE(nodes_[0]->attempts.finished.empty());
  end_task(1, 3, 0);
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  EXPECT_EQ(nodes_[0]->attempts.finished[0].exit_code, 4);
  EXPECT_EQ(nodes_[0]->attempts.finished[0].cause, EndCause::kExited);
}

// ---- steps that wait for each other

TEST_F(StepServiceTest, AnExactStepStartsWhenTheOneBeforeHasEnded) {
  cores_ = IndexSet::range(4, 2);
  launch();
  send(exact_request(4));
  ASSERT_TRUE(next_reply().has_started());
  (void)start_of(1);
  send(exact_request(1), "another1");
  const pb::NodeReply waits = next_reply();
  ASSERT_TRUE(waits.has_step_waits()) << waits.ShortDebugString();
  EXPECT_EQ(waits.step_waits().reason(), "step 42.0 holds 2 of 2 cores of n1, step 42.0 holds 2 of 2 cores of n2");
  // The same request again, as after a lost connection, is the same step.
  send(exact_request(1), "another1");
  ASSERT_TRUE(next_reply().has_step_waits());
  // A whole step does not wait.
  send(run_request(), "another2");
  const pb::NodeReply whole = next_reply();
  ASSERT_TRUE(whole.has_started());
  EXPECT_EQ(whole.started().step(), 1U);
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    end_task(static_cast<int>(rank / 2), rank, 0);
  }
  const pb::StepStarted started = next_started();
  EXPECT_EQ(started.step(), 2U);
  EXPECT_THAT(started.nodes(), ElementsAre("n1"));
}

TEST_F(StepServiceTest, AfterARestartExactStepsHaveTheirCores) {
  launch();
  send(exact_request(4));
  ASSERT_TRUE(next_reply().has_started());
  (void)start_of(1);
  nodes_[0]->service.reset();
  nodes_[0]->attempts.followers.clear();
  start_service(*nodes_[0]);
  nodes_[0]->attempts.running_callback(kKey, {0});
  send(exact_request(1), "another1");
  EXPECT_THAT(next_reply().step_waits().reason(), HasSubstr("step 42.0 holds 2 of 2 cores of n1"));
}

TEST_F(StepServiceTest, AStepThatWaitsIsGivenUpByItsClient) {
  launch();
  send(exact_request(4));
  ASSERT_TRUE(next_reply().has_started());
  send(exact_request(1), "another1");
  ASSERT_TRUE(next_reply().has_step_waits());
  pb::NodeRequest kill;
  kill.mutable_signal()->set_signal(9);
  send(kill, "another1");
  const pb::NodeReply ended = next_reply();
  ASSERT_TRUE(ended.has_ended());
  EXPECT_THAT(ended.ended().detail(), HasSubstr("asked for it"));
}

TEST_F(StepServiceTest, AStepBeyondTheLimitWaitsForTheEndOfOne) {
  launch();
  const auto stream = [](std::size_t i) { return std::to_string(10'000'000 + i); };
  for (std::size_t i = 0; i < StepCoordinator::kStepsPerJobMax; ++i) {
    send(run_request(), stream(i));
    ASSERT_TRUE(next_reply().has_started());
  }
  send(run_request(), stream(StepCoordinator::kStepsPerJobMax));
  const pb::NodeReply waits = next_reply();
  ASSERT_TRUE(waits.has_step_waits()) << waits.ShortDebugString();
  EXPECT_THAT(waits.step_waits().reason(), HasSubstr("the job runs 1024 steps"));
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    end_task(static_cast<int>(rank / 2), rank, 0);
  }
  EXPECT_EQ(next_started().step(), StepCoordinator::kStepsPerJobMax);
}

TEST_F(StepServiceTest, WhatNeverFitsIsRefusedAndNotQueued) {
  launch();
  send(exact_request(5));
  const pb::NodeReply reply = next_reply();
  ASSERT_TRUE(reply.has_refused());
  EXPECT_THAT(reply.refused().message(), HasSubstr("--ntasks=5"));
}

// ---- `muster alloc`

TEST_F(StepServiceTest, AnAllocationEndsWithTheOutcomeOfItsClient) {
  launch(JobKind::kAlloc);
  send(hold_request());
  const pb::NodeReply held = next_reply();
  ASSERT_TRUE(held.has_allocation_held()) << held.ShortDebugString();
  EXPECT_THAT(held.allocation_held().environment(), Contains("MUSTER_JOB_ID=" + std::to_string(kKey.job.value)));
  EXPECT_THAT(held.allocation_held().environment(), Not(Contains(HasSubstr("HOSTNAME="))));
  // Steps run in it, and their ends are not its end.
  EXPECT_TRUE(nodes_[0]->attempts.finished.empty());
  send(release_request(7));
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  EXPECT_EQ(nodes_[0]->attempts.finished[0].exit_code, 7);
  EXPECT_EQ(nodes_[0]->attempts.finished[0].cause, EndCause::kExited);
  nodes_[0]->attempts.ended_callback(kKey, nodes_[0]->attempts.finished[0]);
  ASSERT_TRUE(next_reply().has_allocation_ended());
  // Twice, because the answer may have been lost.
  send(release_request(7));
  const pb::NodeReply gone = next_reply();
  ASSERT_TRUE(gone.has_refused());
  EXPECT_EQ(gone.refused().code(), static_cast<std::uint32_t>(ErrorCode::kNotFound));
}

// A client could have its node drained with an outcome that only nodes have.
TEST_F(StepServiceTest, AClientTellsOnlyHowItsCommandEnded) {
  launch(JobKind::kAlloc);
  send(hold_request());
  ASSERT_TRUE(next_reply().has_allocation_held());
  pb::NodeRequest forged = release_request(0);
  Outcome said;
  said.cause = EndCause::kShepherdDied;
  said.fault = NodeFault::kEpilog;
  said.fault_text = "out of order";
  wire::to_pb(said, *forged.mutable_release_allocation()->mutable_outcome());
  send(forged);
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  Outcome wanted;
  wanted.cause = EndCause::kCancelled;
  wanted.detail = "its client sent an outcome that no command has";
  EXPECT_EQ(nodes_[0]->attempts.finished[0], wanted);
}

TEST_F(StepServiceTest, WhatAClientSaysBesideTheExitCodeIsDropped) {
  launch(JobKind::kAlloc);
  send(hold_request());
  ASSERT_TRUE(next_reply().has_allocation_held());
  pb::NodeRequest forged = release_request(3);
  Outcome said;
  said.exit_code = 3;
  said.ran = Duration::from_s(1'000'000);
  said.fault = NodeFault::kSpool;
  said.fault_text = "no room";
  wire::to_pb(said, *forged.mutable_release_allocation()->mutable_outcome());
  send(forged);
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  Outcome wanted;
  wanted.exit_code = 3;
  EXPECT_EQ(nodes_[0]->attempts.finished[0], wanted);
}

TEST_F(StepServiceTest, OnlyAnAllocationCanBeHeld) {
  launch(JobKind::kBatch);
  send(hold_request());
  const pb::NodeReply reply = next_reply();
  ASSERT_TRUE(reply.has_refused());
  EXPECT_THAT(reply.refused().message(), HasSubstr("no job of `muster alloc`"));
  EXPECT_TRUE(nodes_[0]->attempts.finished.empty());
}

TEST_F(StepServiceTest, AnAllocationIsTakenUpAgainAfterARestart) {
  launch(JobKind::kAlloc);
  send(hold_request());
  ASSERT_TRUE(next_reply().has_allocation_held());
  nodes_[0]->service.reset();
  nodes_[0]->attempts.followers.clear();
  start_service(*nodes_[0]);
  nodes_[0]->attempts.running_callback(kKey, {});
  send(hold_request());
  ASSERT_TRUE(next_reply().has_allocation_held());
  EXPECT_TRUE(nodes_[0]->attempts.finished.empty());
}

TEST_F(StepServiceTest, KillOnBadExitEndsTheOthers) {
  launch();
  pb::NodeRequest request = run_request();
  request.mutable_run()->mutable_spec()->set_kill_on_bad_exit(true);
  send(request);
  (void)start_of(1);
  ASSERT_TRUE(next_reply().has_started());
  end_task(0, 1, 1);
  for (auto& node : nodes_) {
    ASSERT_TRUE(wait([&] { return !node->attempts.frames<StepSignalFrame>().empty(); }));
    EXPECT_EQ(node->attempts.frames<StepSignalFrame>()[0].signal, 0);
  }
}

class StepServiceImpatientTest : public StepServiceTest {
 protected:
  StepServiceImpatientTest() {
    client_awaited_ = Duration::from_ms(50);
    client_lost_after_ = Duration::from_ms(50);
  }
};

TEST_F(StepServiceImpatientTest, ARunJobWithoutAClientEnds) {
  launch(JobKind::kRun);
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  EXPECT_EQ(nodes_[0]->attempts.finished[0].cause, EndCause::kCancelled);
  EXPECT_THAT(nodes_[0]->attempts.finished[0].detail, HasSubstr("no client came"));
}

// A record whose step never started would keep its cores for ever.
TEST_F(StepServiceImpatientTest, ARecordedStepThatNobodyKnowsGivesItsCoresBack) {
  launch();
  send(exact_request(4));
  ASSERT_TRUE(next_reply().has_started());
  nodes_[0]->service.reset();
  nodes_[0]->attempts.followers.clear();
  client_lost_after_ = Duration::from_s(30);
  start_service(*nodes_[0]);
  nodes_[0]->attempts.running_callback(kKey, {});
  send(exact_request(1), "another1");
  ASSERT_TRUE(next_reply().has_step_waits());
  const pb::NodeReply started = next_reply();
  ASSERT_TRUE(started.has_started()) << started.ShortDebugString();
  EXPECT_EQ(started.started().step(), 1U);
}

TEST_F(StepServiceImpatientTest, WaitEndsTheTasksThatAreLeft) {
  client_lost_after_ = Duration::from_s(30);
  nodes_[0]->service.reset();
  start_service(*nodes_[0]);
  launch();
  pb::NodeRequest request = run_request();
  request.mutable_run()->mutable_spec()->set_wait_us(50'000);
  send(request);
  (void)start_of(1);
  ASSERT_TRUE(next_reply().has_started());
  end_task(0, 0, 0);
  for (auto& node : nodes_) {
    ASSERT_TRUE(wait([&] { return !node->attempts.frames<StepSignalFrame>().empty(); }));
    EXPECT_EQ(node->attempts.frames<StepSignalFrame>()[0].signal, 0);
  }
}

TEST_F(StepServiceImpatientTest, AnAllocationWithoutAClientEnds) {
  launch(JobKind::kAlloc);
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  EXPECT_EQ(nodes_[0]->attempts.finished[0].cause, EndCause::kCancelled);
  EXPECT_THAT(nodes_[0]->attempts.finished[0].detail, HasSubstr("no client came"));
}

TEST_F(StepServiceImpatientTest, AnAllocationWhoseClientIsSilentEnds) {
  launch(JobKind::kAlloc);
  send(hold_request());
  ASSERT_TRUE(next_reply().has_allocation_held());
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  EXPECT_THAT(nodes_[0]->attempts.finished[0].detail, HasSubstr("nothing was heard of its client"));
}

TEST_F(StepServiceImpatientTest, ADetachedAllocationNeedsNoClient) {
  launch(JobKind::kAllocDetached);
  // That a step's client is lost shows that the time in which one would have to come is over.
  send(run_request());
  for (auto& node : nodes_) {
    ASSERT_TRUE(wait([&] { return !node->attempts.frames<StepSignalFrame>().empty(); }));
  }
  EXPECT_TRUE(nodes_[0]->attempts.finished.empty());
}

TEST_F(StepServiceImpatientTest, AStepWhoseClientIsSilentIsEnded) {
  launch(JobKind::kRun);
  send(run_request());
  for (auto& node : nodes_) {
    ASSERT_TRUE(wait([&] { return !node->attempts.frames<StepSignalFrame>().empty(); }));
  }
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    end_task(static_cast<int>(rank / 2), rank, 0, 15);
  }
  ASSERT_TRUE(wait([&] { return !nodes_[0]->attempts.finished.empty(); }));
  EXPECT_EQ(nodes_[0]->attempts.finished[0].cause, EndCause::kCancelled);
}

}  // namespace
}  // namespace muster::noded

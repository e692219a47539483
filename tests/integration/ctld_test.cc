// The real muster-ctld with clients and a node that speak its protocol: what it acknowledges survives kill -9, what it
// is sent by mistake or malice harms nobody.
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"
#include "lib/io/keys.h"
#include "lib/io/process.h"
#include "lib/io/sync_dealer.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "tests/support/slowness.h"
#include "tests/support/temp_dir.h"

namespace muster::testing {
namespace {

using muster::test::TempDir;

constexpr Duration kPatience = Duration::from_s(60 * test::kSlowness);

std::string own_name() {
  const passwd* entry = getpwuid(getuid());
  return entry != nullptr ? entry->pw_name : std::to_string(getuid());
}

// Anybody with a key.
class Peer {
 public:
  Peer(const io::Key& key, const std::string& server_key, const std::string& endpoint) {
    io::SyncDealerOptions options;
    options.endpoints = {endpoint};
    options.curve = io::CurveClient{key.pub.curve_public, key.curve_secret, server_key};
    dealer = std::make_unique<io::SyncDealer>(std::move(options));
  }
  Status send(wire::MessageKind kind, const google::protobuf::MessageLite& message) {
    MUSTER_TRY(dealer->connect(kPatience));
    return dealer->send({wire::header(kind), message.SerializeAsString()});
  }
  std::unique_ptr<io::SyncDealer> dealer;
};

class User : public Peer {
 public:
  using Peer::Peer;
  // Asks until there is an answer; a restart in between is not noticed.
  pb::Reply ask(pb::Request request) {
    request.set_correlation(++correlation);
    const Duration deadline = io::boottime_now() + kPatience;
    while (io::boottime_now() < deadline) {
      if (!send(wire::MessageKind::kClientRequest, request).ok()) {
        continue;
      }
      while (auto reply = receive(Duration::from_s(10))) {
        if (reply->correlation() == correlation) {
          return *reply;
        }
      }
    }
    ADD_FAILURE() << "no answer to request " << request.body_case();
    return {};
  }
  std::optional<pb::Reply> receive(Duration timeout) {
    const auto frames = dealer->receive(timeout);
    pb::Reply reply;
    if (!frames.ok() || frames->size() != 2 || !reply.ParseFromString((*frames)[1])) {
      return std::nullopt;
    }
    return reply;
  }
  std::uint64_t correlation = 0;
};

class Node : public Peer {
 public:
  Node(const io::Key& key, const std::string& server_key, const std::string& endpoint, std::string name)
      : Peer(key, server_key, endpoint), name_(std::move(name)), public_key_(key.pub.curve_public) {}

  void register_with(const std::vector<AttemptReport>& attempts = {}, std::uint64_t sequence = 0) {
    NodeRegistration registration;
    registration.name = name_;
    registration.boot_id = "boot-1";
    registration.endpoint = "tcp://127.0.0.1:9";
    registration.public_key = public_key_;
    registration.attempts = attempts;
    registration.sequence = sequence;
    registration.hardware.mem_mib = 4'096;
    for (std::uint32_t i = 0; i < 4; ++i) {
      registration.hardware.cores.push_back(Core{0, 0, IndexSet::range(i, 1)});
    }
    pb::NodeMessage message;
    wire::to_pb(registration, *message.mutable_registration());
    EXPECT_TRUE(send(wire::MessageKind::kNodeMessage, message).ok());
  }
  void report(const pb::AttemptKey& key, bool ended, int exit_code = 0) {
    pb::NodeMessage message;
    auto& report = *message.mutable_reports()->add_reports();
    *report.mutable_key() = key;
    report.set_ended(ended);
    report.mutable_outcome()->set_exit_code(exit_code);
    EXPECT_TRUE(send(wire::MessageKind::kNodeMessage, message).ok());
  }
  // The next message of the wanted kind; others are passed over.
  std::optional<pb::ControllerMessage> expect(pb::ControllerMessage::BodyCase wanted) {
    const Duration deadline = io::boottime_now() + kPatience;
    while (io::boottime_now() < deadline) {
      const auto frames = dealer->receive(Duration::from_s(10));
      pb::ControllerMessage message;
      if (frames.ok() && frames->size() == 2 && message.ParseFromString((*frames)[1]) &&
          message.body_case() == wanted) {
        return message;
      }
      if (!frames.ok() && !dealer->connected()) {
        break;
      }
    }
    ADD_FAILURE() << "the controller did not send message " << wanted;
    return std::nullopt;
  }

 private:
  std::string name_;
  std::string public_key_;
};

class CtldTest : public ::testing::Test {
 protected:
  CtldTest()
      : cluster_(io::generate_cluster_key()), user_key_(io::generate_user_key()), node_key_(io::generate_node_key()) {
    EXPECT_TRUE(io::write_key_files(dir_ / "cluster.key", cluster_).ok());
    std::ofstream(dir_ / "authorized") << "user " << own_name() << " " << user_key_.pub.curve_public << " admin\n"
                                       << "node n1 " << node_key_.pub.curve_public << "\n";
    std::ofstream(dir_ / "muster.toml") << "[cluster]\nname = \"test\"\nkey = \"cluster.key\"\n"
                                        << "[controller]\nlisten = \"tcp://127.0.0.1:*\"\nstate_dir = \"state\"\n"
                                        << "authorized = \"authorized\"\n";
  }
  ~CtldTest() override {
    if (pid_ > 0) {
      kill9();
    }
  }

  std::vector<std::string> command(const std::vector<std::string>& more) const {
    std::vector<std::string> argv = {MUSTER_CTLD, "--config", dir_ / "muster.toml"};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  void start(const std::vector<std::string>& more = {}) {
    io::SpawnOptions options;
    options.argv = command(more);
    const io::Fd log(open((dir_ / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    options.fds = {{log.get(), 2}};
    const auto pid = io::spawn(options);
    ASSERT_TRUE(pid.ok()) << pid.error().message;
    pid_ = *pid;
    const Duration deadline = io::boottime_now() + kPatience;
    while (!io::path_exists(dir_ / "state/endpoint") && io::boottime_now() < deadline && io::process_alive(pid_)) {
      usleep(2'000);
    }
    ASSERT_TRUE(io::path_exists(dir_ / "state/endpoint")) << log_text();
    endpoint_ = std::string(trim(*io::read_file(dir_ / "state/endpoint", 4'096)));
  }
  int wait_for_end() {
    const auto status = io::wait_child(pid_, kPatience);
    EXPECT_TRUE(status.ok() && status->has_value()) << log_text();
    pid_ = 0;
    return status.ok() && *status ? **status : -1;
  }
  void kill9() {
    kill(pid_, SIGKILL);
    wait_for_end();
  }
  int terminate() {
    kill(pid_, SIGTERM);
    return wait_for_end();
  }
  // Runs it to its end; what it said on standard error goes to `text`.
  int run(const std::vector<std::string>& more, std::string& text) {
    io::SpawnOptions options;
    options.argv = command(more);
    const std::string path = dir_ / "stderr";
    {
      const io::Fd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
      options.fds = {{file.get(), 2}};
      const auto pid = io::spawn(options);
      EXPECT_TRUE(pid.ok());
      const auto status = io::wait_child(*pid, kPatience);
      text = *io::read_file(path, 1 << 20);
      return status.ok() && *status ? WEXITSTATUS(**status) : -1;
    }
  }
  std::string log_text() const {
    const auto text = io::read_file(dir_ / "log", 16 << 20);
    return text.ok() ? *text : "";
  }
  bool log_says(const std::string& what) const {
    const Duration deadline = io::boottime_now() + kPatience;
    while (log_text().find(what) == std::string::npos && io::boottime_now() < deadline) {
      usleep(5'000);
    }
    return log_text().find(what) != std::string::npos;
  }

  std::unique_ptr<User> user() { return std::make_unique<User>(user_key_, cluster_.pub.curve_public, endpoint_); }
  std::unique_ptr<Node> node(const std::string& name = "n1") {
    return std::make_unique<Node>(node_key_, cluster_.pub.curve_public, endpoint_, name);
  }
  static pb::Request submission(std::uint64_t number, const std::string& script = "#!/bin/sh\ntrue\n") {
    JobSpec spec;
    spec.name = "job";
    spec.user = own_name();
    spec.uid = getuid();
    spec.gid = getgid();
    spec.ntasks = 1;
    spec.work_dir = "/tmp";
    pb::Request request;
    auto& submit = *request.mutable_submit();
    submit.mutable_request()->set_high(7);
    submit.mutable_request()->set_low(number);
    wire::to_pb(spec, *submit.mutable_spec());
    submit.set_script(script);
    submit.set_environment(std::string("PATH=/bin\0", 10));
    return request;
  }
  static pb::Request jobs_request(const std::vector<std::uint64_t>& ids, bool with_ended) {
    pb::Request request;
    request.mutable_jobs();
    for (const std::uint64_t id : ids) {
      request.mutable_jobs()->mutable_jobs()->add_items()->set_id(id);
    }
    request.mutable_jobs()->set_with_ended(with_ended);
    return request;
  }

  TempDir dir_;
  io::Key cluster_;
  io::Key user_key_;
  io::Key node_key_;
  pid_t pid_ = 0;
  std::string endpoint_;
};

TEST_F(CtldTest, AJobGoesFromSubmissionOverANodeToHistory) {
  start();
  const auto client = user();
  const auto n1 = node();
  n1->register_with();
  ASSERT_TRUE(n1->expect(pb::ControllerMessage::kRegistered));

  const auto submitted = client->ask(submission(1, "#!/bin/sh\necho hello\n"));
  ASSERT_TRUE(submitted.has_submit()) << submitted.error().message();
  EXPECT_EQ(submitted.submit().job(), 1U);
  const auto launched = n1->expect(pb::ControllerMessage::kLaunches);
  ASSERT_TRUE(launched);
  ASSERT_EQ(launched->launches().launches_size(), 1);
  EXPECT_EQ(launched->launches().blobs_size(), 2);
  const auto& launch = launched->launches().launches(0);
  EXPECT_EQ(launch.order().key().job(), 1U);
  EXPECT_TRUE(io::verify(cluster_.pub, launch.ticket().body(), launch.ticket().signature()));
  pb::TicketBody ticket;
  ASSERT_TRUE(ticket.ParseFromString(launch.ticket().body()));
  EXPECT_EQ(ticket.stdout_path(), "/tmp/muster-1.out");

  pb::Request wait;
  wait.mutable_wait()->set_job(1);
  n1->report(launch.order().key(), false);
  auto reply = client->ask(wait);
  ASSERT_EQ(reply.jobs().jobs_size(), 1) << reply.error().message();
  EXPECT_EQ(reply.jobs().jobs(0).state(), static_cast<std::uint32_t>(JobState::kRunning));

  pb::Request ask_ticket;
  ask_ticket.mutable_ticket()->set_job(1);
  ask_ticket.mutable_ticket()->set_client_key(user_key_.pub.curve_public);
  reply = client->ask(ask_ticket);
  ASSERT_TRUE(reply.has_ticket()) << reply.error().message();
  EXPECT_EQ(reply.ticket().endpoint(), "tcp://127.0.0.1:9");
  ASSERT_TRUE(ticket.ParseFromString(reply.ticket().ticket().body()));
  EXPECT_EQ(ticket.client_key(), user_key_.pub.curve_public);

  n1->report(launch.order().key(), true, 7);
  const auto acked = n1->expect(pb::ControllerMessage::kAcks);
  ASSERT_TRUE(acked);
  EXPECT_EQ(acked->acks().keys(0).job(), 1U);
  wait.mutable_wait()->set_until_ended(true);
  reply = client->ask(wait);
  ASSERT_EQ(reply.jobs().jobs_size(), 1) << reply.error().message();
  EXPECT_EQ(reply.jobs().jobs(0).exit_code(), 7);

  pb::Request history;
  history.mutable_history();
  reply = client->ask(history);
  ASSERT_EQ(reply.jobs().jobs_size(), 1);
  EXPECT_EQ(reply.jobs().jobs(0).state(), static_cast<std::uint32_t>(JobState::kFailed));
  EXPECT_EQ(client->ask(jobs_request({1}, false)).jobs().jobs_size(), 0);
  reply = client->ask(jobs_request({1, 99}, true));
  EXPECT_EQ(reply.jobs().jobs_size(), 1);
  ASSERT_EQ(reply.jobs().notes_size(), 1);
  EXPECT_NE(reply.jobs().notes(0).find("job 99"), std::string::npos);
}

TEST_F(CtldTest, ANodeThatLacksABlobGetsItAndARestartedControllerSendsItAgain) {
  start();
  const auto client = user();
  ASSERT_TRUE(client->ask(submission(1, "#!/bin/sh\necho stored\n")).has_submit());
  kill9();
  start();  // the blob is only in the database now
  auto n1 = node();
  n1->register_with();
  const auto launched = n1->expect(pb::ControllerMessage::kLaunches);
  ASSERT_TRUE(launched);
  ASSERT_EQ(launched->launches().blobs_size(), 2);
  EXPECT_EQ(launched->launches().blobs(0).data(), "#!/bin/sh\necho stored\n");
  pb::NodeMessage need;
  *need.mutable_need_blobs()->add_launches() = launched->launches().launches(0).order().key();
  need.mutable_need_blobs()->add_digests(launched->launches().blobs(1).digest());
  ASSERT_TRUE(n1->send(wire::MessageKind::kNodeMessage, need).ok());
  const auto again = n1->expect(pb::ControllerMessage::kLaunches);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->launches().launches_size(), 1);
  ASSERT_EQ(again->launches().blobs_size(), 1);
  EXPECT_EQ(again->launches().blobs(0).digest(), launched->launches().blobs(1).digest());
}

TEST_F(CtldTest, ARetryMakesNoSecondJobAlsoAfterAKill) {
  start();
  const auto client = user();
  const auto first = client->ask(submission(5));
  EXPECT_EQ(client->ask(submission(5)).submit().job(), first.submit().job());
  kill9();
  start();
  const auto again = user();
  EXPECT_EQ(again->ask(submission(5)).submit().job(), first.submit().job());
  EXPECT_NE(again->ask(submission(6)).submit().job(), first.submit().job());
}

TEST_F(CtldTest, WhatWasAcknowledgedInAStormSurvivesKills) {
  start({"--set", "controller.snapshot_every_batches=20"});
  const std::string endpoint = endpoint_;
  constexpr std::uint64_t kJobs = 1'500;
  std::map<std::uint64_t, std::uint64_t> acknowledged;  // request -> job
  const std::uint64_t seed = io::random_u64();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::uint64_t random = seed;
  for (int round = 0; round < 6; ++round) {
    ASSERT_EQ(endpoint_, endpoint) << "a restart must keep the port";
    const auto client = user();
    std::uint64_t sent = 0;
    for (std::uint64_t number = 1; number <= kJobs; ++number) {
      if (!acknowledged.contains(number)) {
        auto request = submission(number, "#!/bin/sh\n# " + std::to_string(number % 50) + "\n");
        request.set_correlation(number);
        ASSERT_TRUE(client->send(wire::MessageKind::kClientRequest, request).ok());
        ++sent;
      }
    }
    random = random * 6364136223846793005U + 1442695040888963407U;
    const std::uint64_t enough = round == 5 ? sent : random % std::max<std::uint64_t>(sent, 1);
    for (std::uint64_t got = 0; got < enough;) {
      const auto reply = client->receive(kPatience);
      ASSERT_TRUE(reply) << "round " << round << " got " << got << " of " << enough << "\n" << log_text();
      ASSERT_TRUE(reply->has_submit()) << reply->error().message();
      const auto [known, is_new] = acknowledged.emplace(reply->correlation(), reply->submit().job());
      ASSERT_EQ(known->second, reply->submit().job());
      ++got;
    }
    kill9();
    start({"--set", "controller.snapshot_every_batches=20"});
  }
  ASSERT_EQ(acknowledged.size(), kJobs);
  std::set<std::uint64_t> ids;
  for (const auto& [request, job] : acknowledged) {
    EXPECT_TRUE(ids.insert(job).second) << "id " << job << " was given twice";
  }
  const auto client = user();
  pb::Request all;
  all.mutable_jobs();
  all.set_correlation(1);
  ASSERT_TRUE(client->send(wire::MessageKind::kClientRequest, all).ok());
  std::set<std::uint64_t> found;
  for (bool more = true; more;) {
    const auto reply = client->receive(kPatience);
    ASSERT_TRUE(reply);
    more = reply->more();
    for (const auto& job : reply->jobs().jobs()) {
      found.insert(job.id());
    }
  }
  EXPECT_EQ(found, ids);
  EXPECT_EQ(log_text().find("a snapshot was not made"), std::string::npos) << log_text();
}

TEST_F(CtldTest, SnapshotsAreMadeComparedAndUsed) {
  start({"--set", "controller.snapshot_every_batches=5"});
  const auto client = user();
  for (std::uint64_t number = 1; number <= 12; ++number) {
    ASSERT_TRUE(client->ask(submission(number)).has_submit());
  }
  ASSERT_TRUE(log_says("snapshot made")) << log_text();
  EXPECT_NE(log_text().find("compared=true"), std::string::npos) << log_text();
  EXPECT_EQ(terminate(), 0);
  start();
  EXPECT_EQ(log_text().find("a snapshot was not made"), std::string::npos) << log_text();
  pb::Request ping;
  ping.mutable_ping();
  EXPECT_EQ(user()->ask(ping).ping().jobs_pending(), 12U);
}

TEST_F(CtldTest, GarbageHarmsNobody) {
  start();
  const auto client = user();
  const auto vandal = user();
  ASSERT_TRUE(vandal->dealer->connect(kPatience).ok());
  const std::string header = wire::header(wire::MessageKind::kClientRequest);
  const std::vector<std::vector<std::string>> messages = {{""},
                                                          {"garbage"},
                                                          {"MUS1q"},
                                                          {"MUS9q", "x"},
                                                          {header},
                                                          {header, "\xff\xff\xff"},
                                                          {header, "", ""},
                                                          {header, std::string(100'000, '\xee')},
                                                          {wire::header(wire::MessageKind::kNodeMessage), "x"},
                                                          {wire::header(wire::MessageKind::kControllerMessage), ""},
                                                          {std::string(1'000'000, 'x'), "y"},
                                                          {header, ""}};
  for (const auto& message : messages) {
    ASSERT_TRUE(vandal->dealer->send(message).ok());
  }
  pb::Request ping;
  ping.mutable_ping();
  EXPECT_EQ(vandal->ask(ping).ping().cluster(), "test");
  // Too large: the connection ends, the daemon does not.
  ASSERT_TRUE(vandal->dealer->send({header, std::string(wire::kMessageBytesMax + 1'000, 'x')}).ok());
  EXPECT_EQ(client->ask(ping).ping().cluster(), "test");
  EXPECT_TRUE(log_says("a message is dropped"));
  EXPECT_TRUE(io::process_alive(pid_));
}

TEST_F(CtldTest, BadSubmissionsAreRefusedWithTheReason) {
  start();
  const auto client = user();
  const auto refused = [&](const pb::Request& request) {
    const auto reply = client->ask(request);
    EXPECT_TRUE(reply.has_error()) << reply.error().message();
    return reply.error().message();
  };
  EXPECT_NE(refused(submission(1, "")).find("no script"), std::string::npos);
  EXPECT_NE(refused(submission(1, "echo\n")).find("#!"), std::string::npos);
  EXPECT_NE(refused(submission(1, "#!/bin/sh\r\ntrue\r\n")).find("carriage return"), std::string::npos);
  EXPECT_NE(refused(submission(1, std::string("#!/bin/sh\n\0", 11))).find("NUL"), std::string::npos);
  EXPECT_NE(refused(submission(1, "#!/bin/sh\n" + std::string(10 << 20, 'x'))).find("limit"), std::string::npos);
  auto request = submission(1);
  request.mutable_submit()->clear_request();
  EXPECT_NE(refused(request).find("request id"), std::string::npos);
  request = submission(1);
  request.mutable_submit()->mutable_spec()->set_uid(getuid() + 1);
  EXPECT_NE(refused(request).find("uid"), std::string::npos);
  request = submission(1);
  request.mutable_submit()->mutable_spec()->set_queue("nowhere");
  EXPECT_NE(refused(request).find("nowhere"), std::string::npos);
  pb::Request empty;
  EXPECT_NE(refused(empty).find("does not know"), std::string::npos);
  pb::Request cancel;
  cancel.mutable_cancel();
  EXPECT_NE(refused(cancel).find("no job is selected"), std::string::npos);
  auto& item = *cancel.mutable_cancel()->mutable_jobs()->add_items();
  item.set_id(1);
  item.set_has_indices(true);
  item.add_indices()->set_last(1'999'999);
  item.mutable_indices(0)->set_step(1);
  EXPECT_NE(refused(cancel).find("tasks are named by index"), std::string::npos);
  // Tested only, and nothing was made by all this.
  request = submission(2);
  request.mutable_submit()->set_test_only(true);
  EXPECT_TRUE(client->ask(request).has_submit());
  pb::Request ping;
  ping.mutable_ping();
  EXPECT_EQ(client->ask(ping).ping().jobs_pending(), 0U);
}

TEST_F(CtldTest, TheConfiguredNumberOfJobsIsTheLimit) {
  start({"--set", "controller.queue_max_jobs=1"});
  const auto client = user();
  ASSERT_TRUE(client->ask(submission(1)).has_submit());
  const auto reply = client->ask(submission(2));
  EXPECT_EQ(reply.error().code(), static_cast<std::uint32_t>(ErrorCode::kLimitReached)) << reply.ShortDebugString();
  EXPECT_NE(reply.error().message().find("its limit is 1 (controller.queue_max_jobs)"), std::string::npos);
  EXPECT_EQ(client->ask(submission(1)).submit().job(), 1U);
}

TEST_F(CtldTest, KeysDecideWhoIsWho) {
  start();
  User stranger(io::generate_user_key(), cluster_.pub.curve_public, endpoint_);
  const Status refused = stranger.dealer->connect(Duration::from_s(5));
  EXPECT_FALSE(refused.ok());
  User wrong_server(user_key_, io::generate_cluster_key().pub.curve_public, endpoint_);
  EXPECT_FALSE(wrong_server.dealer->connect(Duration::from_s(2)).ok());
  // A node's key asks for a job, and claims to be another node.
  User node_as_user(node_key_, cluster_.pub.curve_public, endpoint_);
  ASSERT_TRUE(node_as_user.send(wire::MessageKind::kClientRequest, submission(1)).ok());
  const auto reply = node_as_user.receive(kPatience);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->error().code(), static_cast<std::uint32_t>(ErrorCode::kPermissionDenied));
  const auto liar = node("n2");
  liar->register_with();
  const auto answer = liar->expect(pb::ControllerMessage::kRefused);
  ASSERT_TRUE(answer);
  EXPECT_NE(answer->refused().message().find("uses the key of node n1"), std::string::npos);
  // Heard only after it registered.
  const auto n1 = node();
  pb::NodeMessage heartbeat;
  heartbeat.mutable_heartbeat()->set_sequence(3);
  ASSERT_TRUE(n1->send(wire::MessageKind::kNodeMessage, heartbeat).ok());
  EXPECT_TRUE(n1->expect(pb::ControllerMessage::kRegisterAgain));
  n1->register_with();
  EXPECT_TRUE(n1->expect(pb::ControllerMessage::kRegistered));
  ASSERT_TRUE(n1->send(wire::MessageKind::kNodeMessage, heartbeat).ok());
  const auto beat = n1->expect(pb::ControllerMessage::kHeartbeat);
  ASSERT_TRUE(beat);
  EXPECT_EQ(beat->heartbeat().sequence(), 3U);
}

TEST_F(CtldTest, ASilentNodeBecomesUnreachableAndItsJobsGoOn) {
  start({"--set", "controller.node_timeout=1s"});
  const auto client = user();
  auto n1 = node();
  n1->register_with();
  ASSERT_TRUE(n1->expect(pb::ControllerMessage::kRegistered));
  ASSERT_TRUE(client->ask(submission(1)).has_submit());
  const auto launched = n1->expect(pb::ControllerMessage::kLaunches);
  ASSERT_TRUE(launched);
  const auto key = launched->launches().launches(0).order().key();
  n1->report(key, false);
  pb::Request nodes;
  nodes.mutable_nodes();
  const Duration deadline = io::boottime_now() + kPatience;
  std::string state;
  while (state != "unreachable" && io::boottime_now() < deadline) {
    state = client->ask(nodes).nodes().nodes(0).state();
  }
  EXPECT_EQ(state, "unreachable");
  EXPECT_EQ(client->ask(jobs_request({1}, false)).jobs().jobs(0).state(),
            static_cast<std::uint32_t>(JobState::kRunning));
  // It comes back with the job's end.
  n1 = node();
  AttemptReport ended;
  ended.key = wire::from_pb(key);
  ended.ended = true;
  n1->register_with({ended});
  ASSERT_TRUE(n1->expect(pb::ControllerMessage::kRegistered));
  const auto reply = client->ask(jobs_request({1}, true));
  ASSERT_EQ(reply.jobs().jobs_size(), 1);
  EXPECT_EQ(reply.jobs().jobs(0).state(), static_cast<std::uint32_t>(JobState::kCompleted));
}

TEST_F(CtldTest, ALateRegistrationDoesNotTakeTheNodeFromItsConnection) {
  start();
  const auto client = user();
  const auto old = node();
  old->register_with({}, 1);
  ASSERT_TRUE(old->expect(pb::ControllerMessage::kRegistered));
  const auto current = node();
  current->register_with({}, 3);
  ASSERT_TRUE(current->expect(pb::ControllerMessage::kRegistered));
  ASSERT_TRUE(client->ask(submission(1)).has_submit());
  const auto launched = current->expect(pb::ControllerMessage::kLaunches);
  ASSERT_TRUE(launched);
  current->report(launched->launches().launches(0).order().key(), false);
  pb::Request wait;
  wait.mutable_wait()->set_job(1);
  ASSERT_EQ(client->ask(wait).jobs().jobs(0).state(), static_cast<std::uint32_t>(JobState::kRunning));

  old->register_with({}, 2);
  const auto again = old->expect(pb::ControllerMessage::kRegisterAgain);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->register_again().sequence_above(), 3U);
  EXPECT_EQ(client->ask(jobs_request({1}, false)).jobs().jobs(0).state(),
            static_cast<std::uint32_t>(JobState::kRunning));
  current->report(launched->launches().launches(0).order().key(), true);
  EXPECT_TRUE(current->expect(pb::ControllerMessage::kAcks)) << "the newer connection is still the node's";
}

TEST_F(CtldTest, StopsOnRequestAndComesBackOnTheSamePort) {
  start();
  const std::string endpoint = endpoint_;
  ASSERT_TRUE(user()->ask(submission(1)).has_submit());
  EXPECT_EQ(terminate(), 0) << log_text();
  start();
  EXPECT_EQ(endpoint_, endpoint);
  EXPECT_EQ(user()->ask(jobs_request({1}, false)).jobs().jobs_size(), 1);
  std::string text;
  EXPECT_EQ(run({}, text), 1);
  EXPECT_NE(text.find("muster-ctld: "), std::string::npos) << text;
  EXPECT_NE(text.find(std::to_string(pid_)), std::string::npos) << "the second one names the first: " << text;
}

TEST_F(CtldTest, ADamagedJournalIsRefusedInOneLine) {
  start();
  ASSERT_TRUE(user()->ask(submission(1)).has_submit());
  EXPECT_EQ(terminate(), 0);
  const std::string path = dir_ / "state/journal.db";
  ASSERT_EQ(truncate(path.c_str(), 5'000), 0);
  std::string text;
  EXPECT_EQ(run({}, text), 1);
  EXPECT_NE(text.find("muster-ctld: "), std::string::npos) << text;
  EXPECT_NE(text.find(path), std::string::npos) << text;
  EXPECT_NE(text.find("restore a copy"), std::string::npos) << text;
}

TEST_F(CtldTest, SaysWhatIsWrongWithItsSetup) {
  std::string text;
  EXPECT_EQ(run({"--check"}, text), 0) << text;
  EXPECT_EQ(run({"--check", "--set", "cluster.key=" + (dir_ / "nothing")}, text), 1);
  EXPECT_NE(text.find("nothing"), std::string::npos) << text;
  EXPECT_EQ(run({"--set", "controller.lisen=x"}, text), 1);
  EXPECT_NE(text.find("listen"), std::string::npos) << text;
  EXPECT_EQ(run({"--frobnicate"}, text), 2);
  EXPECT_NE(text.find("--frobnicate"), std::string::npos) << text;
}

}  // namespace
}  // namespace muster::testing

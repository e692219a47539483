// ControllerLink with a controller that is played by the test.
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "lib/io/clock.h"
#include "lib/io/zap.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/controller_link.h"
#include "tests/support/slowness.h"
#include "tests/support/temp_dir.h"

namespace muster::noded {
namespace {

class ControllerLinkTest : public testing::Test {
 protected:
  void SetUp() override {
    auto zap = io::ZapHandler::accept_any(context_);
    ASSERT_TRUE(zap.ok());
    zap_ = std::move(*zap);
    io::ZmqOptions zmq;
    zmq.curve_server = io::CurveServer{.secret_key = controller_key_.curve_secret};
    auto router = io::ZmqSocket::create(loop_, context_, io::ZmqSocket::Type::kRouter, zmq,
                                        [this](const io::ZmqMessage& message) {
                                          node_ = message.peer;
                                          pb::NodeMessage body;
                                          ASSERT_EQ(message.frames.size(), 2U);
                                          ASSERT_TRUE(body.ParseFromString(message.frames[1]));
                                          if (body.has_registration()) {
                                            pb::ControllerMessage reply;
                                            reply.mutable_registered()->set_cluster("test");
                                            say(std::move(reply));
                                            registered_ = true;
                                          }
                                          if (body.has_registration()) {
                                            for (const auto& p : body.registration().problems()) {
                                              said_.push_back(p.check());
                                            }
                                          }
                                          for (const auto& p : body.health().problems()) {
                                            said_.push_back(p.check());
                                          }
                                          if (body.has_heartbeat()) {
                                            pb::ControllerMessage reply;
                                            reply.mutable_heartbeat()->set_sequence(body.heartbeat().sequence());
                                            reply.mutable_heartbeat()->set_now_us(io::wall_now().us - kBehind.us);
                                            say(std::move(reply));
                                          }
                                          for (const auto& report : body.reports().reports()) {
                                            reports_.push_back(wire::from_pb(report).value());
                                          }
                                        });
    ASSERT_TRUE(router.ok());
    router_.emplace(std::move(*router));
    auto bound = router_->bind("tcp://127.0.0.1:*");
    ASSERT_TRUE(bound.ok());

    AttemptTableOptions table;
    table.loop = &loop_;
    table.boot_id = "boot-1";
    table.shepherd = "/no/such/muster-shepherd";
    table.identity.name = "n1";
    table.report = [this](const AttemptReport& report) { link_->report(report); };
    auto spool = Spool::open(directory_ / "spool");
    ASSERT_TRUE(spool.ok());
    table_.emplace(std::move(table), std::move(*spool));
    ASSERT_TRUE(table_->recover().ok());

    ControllerLinkOptions options;
    options.loop = &loop_;
    options.context = &context_;
    options.attempts = &*table_;
    options.endpoints = {*bound};
    options.key = io::generate_node_key();
    options.controller_key = controller_key_.pub.curve_public;
    options.heartbeat_interval = Duration::from_ms(100);
    options.boot_id = "boot-1";
    options.health = [this] { return problems_; };
    options.check_health = [this] {
      problems_.push_back({"gpu", "gone"});
      link_->report_health();
    };
    options.clock = [this](Duration ahead, Duration round_trip) {
      ahead_ = ahead;
      round_trip_ = round_trip;
    };
    link_.emplace(std::move(options));
    ASSERT_TRUE(link_->start().ok());
    ASSERT_TRUE(loop_.run_until([&] { return registered_; }, Duration::from_s(20 * test::kSlowness)));
  }

  void TearDown() override {
    link_.reset();
    router_.reset();
    zap_.reset();
  }

  void say(pb::ControllerMessage message) {
    message.set_term(1);
    ASSERT_TRUE(
        router_->send_to(node_, {wire::header(wire::MessageKind::kControllerMessage), message.SerializeAsString()})
            .ok());
  }

  test::TempDir directory_;
  io::Loop loop_;
  io::ZmqContext context_;
  std::unique_ptr<io::ZapHandler> zap_;
  io::Key controller_key_ = io::generate_cluster_key();
  std::optional<io::ZmqSocket> router_;
  std::optional<AttemptTable> table_;
  std::optional<ControllerLink> link_;
  std::string node_;
  bool registered_ = false;
  std::vector<AttemptReport> reports_;
  static constexpr Duration kBehind = Duration::from_s(90);  // the controller's clock
  std::vector<HealthProblem> problems_ = {{"disk", "full"}};
  std::vector<std::string> said_;  // the checks that the controller was told of
  std::optional<Duration> ahead_;
  Duration round_trip_;
};

TEST_F(ControllerLinkTest, TheClockIsMeasuredByHeartbeats) {
  ASSERT_TRUE(loop_.run_until([&] { return ahead_.has_value(); }, Duration::from_s(20 * test::kSlowness)));
  const Duration wrong{ahead_->us - kBehind.us};
  EXPECT_LE(wrong.us < 0 ? -wrong.us : wrong.us, round_trip_.us / 2 + 1'000) << "more than its round trip explains";
}

TEST_F(ControllerLinkTest, ARegistrationSaysWhatTheChecksFindAndSoDoesTheAnswerToAQuestion) {
  EXPECT_EQ(said_, (std::vector<std::string>{"disk"}));
  pb::ControllerMessage ask;
  ask.mutable_ask_health();
  say(std::move(ask));
  ASSERT_TRUE(loop_.run_until([&] { return said_.size() == 3; }, Duration::from_s(20 * test::kSlowness)));
  EXPECT_EQ(said_, (std::vector<std::string>{"disk", "disk", "gpu"}));
}

TEST_F(ControllerLinkTest, ALaunchThatCannotBeReadIsReportedAsFailed) {
  pb::ControllerMessage message;
  auto& without_key = *message.mutable_launches()->add_launches();
  without_key.mutable_order()->set_node("n1");
  auto& without_job = *message.mutable_launches()->add_launches();
  wire::to_pb(AttemptKey{JobId{41}, Attempt{1}}, *without_job.mutable_order()->mutable_key());
  without_job.mutable_order()->mutable_share();
  auto& damaged = *message.mutable_launches()->add_launches();
  wire::to_pb(AttemptKey{JobId{42}, Attempt{3}}, *damaged.mutable_order()->mutable_key());
  damaged.mutable_order()->mutable_share();
  damaged.mutable_order()->mutable_spec()->set_kind(99);
  say(std::move(message));
  ASSERT_TRUE(loop_.run_until([&] { return reports_.size() >= 2; }, Duration::from_s(20 * test::kSlowness)));
  ASSERT_EQ(reports_.size(), 2U);
  EXPECT_EQ(reports_[0].key, (AttemptKey{JobId{41}, Attempt{1}}));
  EXPECT_EQ(reports_[1].key, (AttemptKey{JobId{42}, Attempt{3}}));
  for (const AttemptReport& report : reports_) {
    EXPECT_TRUE(report.ended);
    EXPECT_EQ(report.outcome.cause, EndCause::kLaunchFailed);
    EXPECT_NE(report.outcome.detail.find("cannot read the launch"), std::string::npos) << report.outcome.detail;
  }
}

}  // namespace
}  // namespace muster::noded

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <deque>
#include <optional>
#include <thread>

#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/keys.h"
#include "lib/io/sync_dealer.h"
#include "lib/io/zap.h"
#include "lib/io/zmq_socket.h"
#include "tests/support/slowness.h"
#include "tests/support/temp_dir.h"

namespace muster::io {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr Duration kDeadline = Duration::from_s(60 * test::kSlowness);

using Type = ZmqSocket::Type;

ZmqSocket make(Loop& loop, ZmqContext& context, Type type, const ZmqOptions& options, ZmqSocket::OnMessage on_message) {
  auto socket = ZmqSocket::create(loop, context, type, options, std::move(on_message));
  EXPECT_TRUE(socket.ok());
  return std::move(socket).value();
}

ZmqOptions server_options(const Key& key) {
  ZmqOptions options;
  options.curve_server = CurveServer{key.curve_secret};
  return options;
}

CurveClient client_keys(const Key& own, const Key& server) {
  return {own.pub.curve_public, own.curve_secret, server.pub.curve_public};
}

ZmqOptions client_options(const Key& own, const Key& server) {
  ZmqOptions options;
  options.curve_client = client_keys(own, server);
  return options;
}

class ZmqTest : public testing::Test {
 protected:
  test::TempDir dir_;
  Loop loop_;
  ZmqContext context_;
};

TEST_F(ZmqTest, CarriesFramesBothWaysOverIpc) {
  ZmqMessage request;
  std::optional<ZmqSocket> server;
  server = make(loop_, context_, Type::kRouter, {}, [&](ZmqMessage message) {
    request = message;
    EXPECT_TRUE(server->send_to(message.peer, {"answer", "", std::string("\0b", 2)}).ok());
  });
  const std::string endpoint = "ipc://" + dir_.path() + "/s";
  ASSERT_EQ(*server->bind(endpoint), endpoint);
  struct stat info {};
  ASSERT_EQ(::stat((dir_.path() + "/s").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  std::vector<std::string> answer;
  ZmqSocket client = make(loop_, context_, Type::kDealer, {}, [&](ZmqMessage message) { answer = message.frames; });
  ASSERT_TRUE(client.connect(endpoint).ok());
  ASSERT_TRUE(client.send({"request", "second"}).ok());
  ASSERT_TRUE(loop_.run_until([&] { return !answer.empty(); }, kDeadline));
  EXPECT_THAT(request.frames, ElementsAre("request", "second"));
  EXPECT_EQ(request.user_id, "");
  EXPECT_THAT(answer, ElementsAre("answer", "", std::string("\0b", 2)));
}

TEST_F(ZmqTest, RefusesUnencryptedTcpAndBadEndpoints) {
  ZmqSocket router = make(loop_, context_, Type::kRouter, {}, [](ZmqMessage) {});
  for (const char* endpoint : {"tcp://127.0.0.1:*", "", "udp://x", "tcp:/", "pgm://x"}) {
    EXPECT_FALSE(router.bind(endpoint).ok()) << endpoint;
    EXPECT_FALSE(router.connect(endpoint).ok()) << endpoint;
  }
  const auto too_long = router.bind("ipc:///tmp/" + std::string(200, 'x'));
  ASSERT_FALSE(too_long.ok());
  EXPECT_THAT(too_long.error().message, HasSubstr("at most 107"));
  ZmqOptions bad;
  bad.curve_server = CurveServer{"short"};
  EXPECT_FALSE(ZmqSocket::create(loop_, context_, Type::kRouter, bad, [](ZmqMessage) {}).ok());
}

TEST_F(ZmqTest, SendingToNobodyIsAnErrorNotASilence) {
  ZmqSocket router = make(loop_, context_, Type::kRouter, {}, [](ZmqMessage) {});
  const Status sent = router.send_to("nobody", {"x"});
  ASSERT_FALSE(sent.ok());
  EXPECT_EQ(sent.error().code, ErrorCode::kNotFound);

  ZmqOptions options;
  options.only_connected = true;
  ZmqSocket dealer = make(loop_, context_, Type::kDealer, options, [](ZmqMessage) {});
  ASSERT_TRUE(dealer.connect("ipc://" + dir_.path() + "/none").ok());
  const Status early = dealer.send({"x"});
  ASSERT_FALSE(early.ok());
  EXPECT_EQ(early.error().code, ErrorCode::kLimitReached);
}

TEST_F(ZmqTest, AFullQueueIsReported) {
  ZmqOptions options;
  options.send_queue_max = 10;
  ZmqSocket dealer = make(loop_, context_, Type::kDealer, options, [](ZmqMessage) {});
  ASSERT_TRUE(dealer.connect("ipc://" + dir_.path() + "/none").ok());
  int sent = 0;
  while (sent < 1000 && dealer.send({"x"}).ok()) ++sent;
  EXPECT_EQ(sent, 10);
  EXPECT_EQ(dealer.send({"x", "y"}).error().code, ErrorCode::kLimitReached);
}

TEST_F(ZmqTest, NamesTheAddressThatIsInUse) {
  const Key key = generate_cluster_key();
  ZmqSocket first = make(loop_, context_, Type::kRouter, server_options(key), [](ZmqMessage) {});
  ZmqSocket second = make(loop_, context_, Type::kRouter, server_options(key), [](ZmqMessage) {});
  const auto endpoint = first.bind("tcp://127.0.0.1:*");
  ASSERT_TRUE(endpoint.ok());
  EXPECT_THAT(*endpoint, testing::StartsWith("tcp://127.0.0.1:"));
  const auto again = second.bind(*endpoint);
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, ErrorCode::kAlreadyExists);
  EXPECT_THAT(again.error().message, HasSubstr(*endpoint));
}

// Bursts of many messages, sends from within callbacks, and more than one turn's worth waiting at a time: exactly the
// cases in which the edge of ZMQ_FD is consumed without anybody looking.
TEST_F(ZmqTest, NoWakeUpIsLostIn100000Messages) {
  constexpr int kMessages = 100'000;
  constexpr int kWindow = 5'000;
  std::optional<ZmqSocket> server;
  int served = 0;
  server = make(loop_, context_, Type::kRouter, {}, [&](ZmqMessage message) {
    ++served;
    ASSERT_TRUE(server->send_to(message.peer, {message.frames[0]}).ok());
  });
  const std::string endpoint = "ipc://" + dir_.path() + "/s";
  ASSERT_TRUE(server->bind(endpoint).ok());
  int sent = 0;
  int received = 0;
  std::optional<ZmqSocket> client;
  const auto fill = [&](int burst) {
    for (; burst > 0 && sent < kMessages && sent - received < kWindow; --burst) {
      ASSERT_TRUE(client->send({std::to_string(sent)}).ok());
      ++sent;
    }
  };
  client = make(loop_, context_, Type::kDealer, {}, [&](ZmqMessage message) {
    ASSERT_EQ(message.frames[0], std::to_string(received));
    ++received;
    // Sometimes nothing, so that the pipe runs dry, sometimes a burst.
    fill(received % 7 == 0 ? 13 : received % 3);
    if (sent == received) fill(kWindow);
  });
  ASSERT_TRUE(client->connect(endpoint).ok());
  fill(kWindow);
  ASSERT_TRUE(loop_.run_until([&] { return received == kMessages; }, Duration::from_s(120 * test::kSlowness)))
      << "sent " << sent << " served " << served << " received " << received;
}

// zmq_send empties the socket's mailbox, and with it goes the edge of an answer that came just before: without a look
// after the send, that answer would lie there until the next message comes.
TEST_F(ZmqTest, ASendThatConsumesTheEdgeLosesNothing) {
  const std::string endpoint = "ipc://" + dir_.path() + "/s";
  std::atomic<int> answered{0};
  std::atomic<bool> bound{false};
  Loop server_loop;
  std::thread server_thread([&] {
    std::optional<ZmqSocket> server;
    server = make(server_loop, context_, Type::kRouter, {}, [&](ZmqMessage message) {
      if (message.frames[0] != "question") return;
      EXPECT_TRUE(server->send_to(message.peer, {"answer"}).ok());
      ++answered;
    });
    EXPECT_TRUE(server->bind(endpoint).ok());
    bound = true;
    server_loop.run();
  });
  while (!bound) std::this_thread::yield();
  int received = 0;
  ZmqSocket client = make(loop_, context_, Type::kDealer, {}, [&](ZmqMessage) { ++received; });
  ASSERT_TRUE(client.connect(endpoint).ok());
  for (int round = 1; round <= 20; ++round) {
    EXPECT_TRUE(client.send({"question"}).ok());
    // The answer travels while this loop stands still. ZeroMQ looks into the mailbox in zmq_send only some milliseconds
    // after it last did, so a part of the rounds must take longer than that for the test to bite.
    const Duration until = boottime_now() + Duration::from_ms(5);
    while (answered < round || boottime_now() < until) std::this_thread::yield();
    EXPECT_TRUE(client.send({"remark"}).ok());
    if (loop_.run_until([&] { return received == round; }, kDeadline)) continue;
    ADD_FAILURE() << "the answer of round " << round << " was not handed out";
    break;
  }
  server_loop.stop();
  server_thread.join();
}

TEST_F(ZmqTest, AFloodLeavesTimersTheirTurn) {
  std::optional<ZmqSocket> a;
  std::optional<ZmqSocket> b;
  int messages = 0;
  a = make(loop_, context_, Type::kRouter, {}, [&](ZmqMessage m) {
    ++messages;
    static_cast<void>(a->send_to(m.peer, {"x"}));
  });
  b = make(loop_, context_, Type::kDealer, {}, [&](ZmqMessage) { static_cast<void>(b->send({"x"})); });
  ASSERT_TRUE(a->bind("inproc://flood").ok());
  ASSERT_TRUE(b->connect("inproc://flood").ok());
  for (int i = 0; i < 500; ++i) ASSERT_TRUE(b->send({"x"}).ok());
  int ticks = 0;
  Timer timer(loop_, [&] { ++ticks; });
  timer.start_repeating(Duration::from_ms(1));
  EXPECT_TRUE(loop_.run_until([&] { return ticks >= 20 && messages > 5000; }, kDeadline));
}

TEST_F(ZmqTest, ACallbackMayDestroyItsSocket) {
  std::optional<ZmqSocket> server;
  int got = 0;
  server = make(loop_, context_, Type::kRouter, {}, [&](ZmqMessage) {
    ++got;
    server.reset();
  });
  ASSERT_TRUE(server->bind("inproc://x").ok());
  ZmqSocket client = make(loop_, context_, Type::kDealer, {}, [](ZmqMessage) {});
  ASSERT_TRUE(client.connect("inproc://x").ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client.send({"x"}).ok());
  ASSERT_TRUE(loop_.run_until([&] { return !server; }, kDeadline));
  EXPECT_EQ(got, 1);
}

TEST_F(ZmqTest, PausingHoldsMessagesBack) {
  int got = 0;
  ZmqSocket server = make(loop_, context_, Type::kRouter, {}, [&](ZmqMessage) { ++got; });
  ASSERT_TRUE(server.bind("inproc://x").ok());
  server.pause();
  ZmqSocket client = make(loop_, context_, Type::kDealer, {}, [](ZmqMessage) {});
  ASSERT_TRUE(client.connect("inproc://x").ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client.send({"x"}).ok());
  EXPECT_FALSE(loop_.run_until([&] { return got > 0; }, Duration::from_ms(20)));
  server.resume();
  EXPECT_TRUE(loop_.run_until([&] { return got == 3; }, kDeadline));
}

TEST_F(ZmqTest, MessagesWithTooManyFramesAreDropped) {
  std::vector<std::size_t> sizes;
  ZmqSocket server = make(loop_, context_, Type::kRouter, {}, [&](ZmqMessage m) { sizes.push_back(m.frames.size()); });
  ASSERT_TRUE(server.bind("inproc://x").ok());
  ZmqSocket client = make(loop_, context_, Type::kDealer, {}, [](ZmqMessage) {});
  ASSERT_TRUE(client.connect("inproc://x").ok());
  ASSERT_TRUE(client.send(std::vector<std::string>(ZmqSocket::kFramesMax + 1, "x")).ok());
  ASSERT_TRUE(client.send(std::vector<std::string>(ZmqSocket::kFramesMax, "x")).ok());
  ASSERT_TRUE(loop_.run_until([&] { return !sizes.empty(); }, kDeadline));
  EXPECT_THAT(sizes, ElementsAre(ZmqSocket::kFramesMax));
}

class CurveTest : public ZmqTest {
 protected:
  void write_authorized(const std::string& text) { ASSERT_TRUE(write_file_atomic(authorized_, text, 0644).ok()); }

  void start_server() {
    auto handler = ZapHandler::authorized_file(context_, authorized_);
    ASSERT_TRUE(handler.ok()) << handler.error().message;
    handler_ = std::move(handler).value();
    server_ = make(loop_, context_, Type::kRouter, server_options(cluster_), [this](ZmqMessage message) {
      users_.push_back(message.user_id);
      ASSERT_TRUE(server_->send_to(message.peer, message.frames).ok());
    });
    const auto endpoint = server_->bind("tcp://127.0.0.1:*");
    ASSERT_TRUE(endpoint.ok()) << endpoint.error().message;
    endpoint_ = *endpoint;
  }

  // Runs a blocking client beside the server's loop.
  template <typename Body>
  void with_client(Body body) {
    std::atomic<bool> finished{false};
    std::thread thread([&] {
      body();
      finished = true;
      loop_.post([] {});
    });
    EXPECT_TRUE(loop_.run_until([&] { return finished.load(); }, kDeadline));
    thread.join();
  }

  SyncDealer client_of(const Key& own, std::vector<std::string> endpoints) {
    SyncDealerOptions options;
    options.endpoints = std::move(endpoints);
    options.curve = client_keys(own, cluster_);
    return SyncDealer(std::move(options));
  }

  std::string authorized_ = dir_.path() + "/authorized";
  Key cluster_ = generate_cluster_key();
  Key node_ = generate_node_key();
  Key user_ = generate_user_key();
  Key stranger_ = generate_user_key();
  std::unique_ptr<ZapHandler> handler_;
  std::optional<ZmqSocket> server_;
  std::string endpoint_;
  std::vector<std::string> users_;
};

TEST_F(CurveTest, NamesEveryPeerByItsKey) {
  write_authorized("# keys\nnode n1 " + node_.pub.curve_public + "\nuser joe " + user_.pub.curve_public +
                   " admin # the boss\n");
  start_server();
  for (const Key& key : {node_, user_}) {
    int answers = 0;
    ZmqSocket client =
        make(loop_, context_, Type::kDealer, client_options(key, cluster_), [&](ZmqMessage) { ++answers; });
    ASSERT_TRUE(client.connect(endpoint_).ok());
    ASSERT_TRUE(client.send({"hello"}).ok());
    ASSERT_TRUE(loop_.run_until([&] { return answers == 1; }, kDeadline));
  }
  EXPECT_THAT(users_, ElementsAre("node:n1", "admin:joe"));
}

TEST_F(CurveTest, AStrangerIsToldSoAndMayBeAddedWhileTheServerRuns) {
  write_authorized("");
  start_server();
  with_client([&] {
    SyncDealer client = client_of(stranger_, {endpoint_});
    const auto refused = client.exchange({"x"}, Duration::from_s(20 * test::kSlowness));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
    EXPECT_THAT(refused.error().message, HasSubstr("authorize"));
    write_authorized("user new " + stranger_.pub.curve_public + "\n");
    const auto answer = client.exchange({"x"}, Duration::from_s(20 * test::kSlowness));
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    // A broken file later leaves the last good table.
    write_authorized("nonsense\n");
    client.close();
    EXPECT_TRUE(client.exchange({"x"}, Duration::from_s(20 * test::kSlowness)).ok());
    write_authorized("");
    client.close();
    EXPECT_EQ(client.exchange({"x"}, Duration::from_s(20 * test::kSlowness)).error().code,
              ErrorCode::kPermissionDenied);
  });
  EXPECT_THAT(users_, ElementsAre("user:new", "user:new"));
}

TEST_F(CurveTest, AWrongServerKeyIsSaidToBePossible) {
  write_authorized("user joe " + user_.pub.curve_public + "\n");
  start_server();
  with_client([&] {
    SyncDealerOptions options;
    options.endpoints = {endpoint_};
    options.curve = client_keys(user_, generate_cluster_key());
    SyncDealer client(std::move(options));
    const auto answer = client.exchange({"x"}, Duration::from_s(20 * test::kSlowness));
    ASSERT_FALSE(answer.ok());
    EXPECT_EQ(answer.error().code, ErrorCode::kUnavailable);
    EXPECT_THAT(answer.error().message, HasSubstr("key may not be the configured one"));
  });
  EXPECT_TRUE(users_.empty());
}

TEST_F(CurveTest, TriesEveryAddressInTurn) {
  write_authorized("user joe " + user_.pub.curve_public + "\n");
  start_server();
  with_client([&] {
    SyncDealer client = client_of(user_, {"tcp://127.0.0.1:1", endpoint_});
    const auto answer = client.exchange({"x"}, Duration::from_s(20 * test::kSlowness));
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    EXPECT_EQ(client.endpoint(), endpoint_);
    EXPECT_TRUE(client.connected());
  });
}

TEST_F(CurveTest, NamesEveryAddressThatFailed) {
  SyncDealer client = client_of(user_, {"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"});
  const auto answer = client.exchange({"x"}, Duration::from_ms(300));
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(answer.error().message,
              HasSubstr("tcp://127.0.0.1:1 (no connection); tcp://127.0.0.1:2 (no connection)"));
  SyncDealer nowhere = client_of(user_, {});
  EXPECT_EQ(nowhere.connect(Duration::from_s(1)).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(CurveTest, ALostConnectionIsMadeAgainAndTheRequestRepeated) {
  write_authorized("user joe " + user_.pub.curve_public + "\n");
  start_server();
  // The first request takes the server down, as a crash would; a new one is there a moment later.
  server_.reset();
  std::vector<std::string> requests;
  std::optional<ZmqSocket> second;
  server_ = make(loop_, context_, Type::kRouter, server_options(cluster_), [&](ZmqMessage message) {
    requests.push_back("first " + message.frames[0]);
    server_.reset();
    loop_.defer([&] {
      second = make(loop_, context_, Type::kRouter, server_options(cluster_), [&](ZmqMessage again) {
        requests.push_back("second " + again.frames[0]);
        ASSERT_TRUE(second->send_to(again.peer, {"done"}).ok());
      });
      // The old listener is closed by another thread.
      while (!second->bind(endpoint_).ok()) std::this_thread::yield();
    });
  });
  while (!server_->bind(endpoint_).ok()) std::this_thread::yield();
  with_client([&] {
    SyncDealer client = client_of(user_, {endpoint_});
    const auto answer = client.exchange({"r"}, Duration::from_s(30 * test::kSlowness));
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    EXPECT_THAT(*answer, ElementsAre("done"));
  });
  EXPECT_THAT(requests, ElementsAre("first r", "second r"));
}

TEST_F(CurveTest, SyncDealerReceivesInOrderAndTimesOut) {
  write_authorized("user joe " + user_.pub.curve_public + "\n");
  start_server();
  with_client([&] {
    SyncDealer client = client_of(user_, {endpoint_});
    EXPECT_FALSE(client.send({"x"}).ok());
    ASSERT_TRUE(client.connect(kDeadline).ok());
    for (int i = 0; i < 2000; ++i) ASSERT_TRUE(client.send({std::to_string(i), "y"}).ok());
    for (int i = 0; i < 2000; ++i) {
      const auto got = client.receive(kDeadline);
      ASSERT_TRUE(got.ok()) << got.error().message;
      ASSERT_THAT(*got, ElementsAre(std::to_string(i), "y"));
    }
    const auto none = client.receive(Duration::from_ms(5));
    ASSERT_FALSE(none.ok());
    EXPECT_EQ(none.error().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(client.connected());
    EXPECT_GE(client.fd(), 0);
  });
}

TEST_F(CurveTest, SyncDealerNoticesALostConnectionWhileItWaits) {
  write_authorized("user joe " + user_.pub.curve_public + "\n");
  start_server();
  with_client([&] {
    SyncDealer client = client_of(user_, {endpoint_});
    ASSERT_TRUE(client.exchange({"x"}, kDeadline).ok());
    loop_.post([&] { server_.reset(); });
    const Duration before = boottime_now();
    const auto got = client.receive(kDeadline);
    ASSERT_FALSE(got.ok());
    EXPECT_FALSE(client.connected());
    EXPECT_THAT(got.error().message, HasSubstr("was lost"));
    EXPECT_LT(boottime_now() - before, Duration::from_s(30 * test::kSlowness));
  });
}

// A kill of the controller at any moment of a handshake once left the I/O thread waiting for a monitor that was gone.
TEST_F(CurveTest, ServersThatHangUpDoNotStopSyncDealer) {
  write_authorized("user joe " + user_.pub.curve_public + "\n");
  start_server();
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener, 64), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  std::thread hangs_up([listener] {
    while (true) {
      const int peer = ::accept(listener, nullptr, nullptr);
      if (peer < 0) return;
      ::close(peer);
    }
  });
  with_client([&] {
    SyncDealerOptions options;
    options.endpoints = {"tcp://127.0.0.1:" + std::to_string(ntohs(address.sin_port)), endpoint_};
    options.curve = client_keys(user_, cluster_);
    SyncDealer client(std::move(options));
    for (int i = 0; i < 300; ++i) {
      const auto answer = client.exchange({"x"}, Duration::from_s(30 * test::kSlowness));
      ASSERT_TRUE(answer.ok()) << "round " << i << ": " << answer.error().message;
      client.close();
    }
  });
  ::shutdown(listener, SHUT_RDWR);
  hangs_up.join();
  ::close(listener);
}

// Reading a socket's state may be interrupted; muster-noded once ended with SIGABRT when a child's end fell there.
TEST_F(CurveTest, SignalsDoNotHarmASocket) {
  write_authorized("user joe " + user_.pub.curve_public + "\n");
  start_server();
  struct sigaction action {};
  action.sa_handler = [](int) {};
  struct sigaction before {};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  const pthread_t loop_thread = ::pthread_self();
  std::atomic<bool> over{false};
  std::thread signals([&] {
    while (!over) {
      ::pthread_kill(loop_thread, SIGUSR1);
      std::this_thread::yield();
    }
  });
  with_client([&] {
    SyncDealer client = client_of(user_, {endpoint_});
    for (int i = 0; i < 3000; ++i) {
      const auto answer = client.exchange({"x"}, kDeadline);
      ASSERT_TRUE(answer.ok()) << answer.error().message;
    }
  });
  over = true;
  signals.join();
  ASSERT_EQ(::sigaction(SIGUSR1, &before, nullptr), 0);
}

TEST_F(CurveTest, AcceptAnyNamesThePublicKey) {
  auto handler = ZapHandler::accept_any(context_);
  ASSERT_TRUE(handler.ok());
  handler_ = std::move(handler).value();
  server_ = make(loop_, context_, Type::kRouter, server_options(cluster_),
                 [&](ZmqMessage m) { users_.push_back(m.user_id); });
  endpoint_ = *server_->bind("tcp://127.0.0.1:*");
  ZmqSocket client = make(loop_, context_, Type::kDealer, client_options(stranger_, cluster_), [](ZmqMessage) {});
  ASSERT_TRUE(client.connect(endpoint_).ok());
  ASSERT_TRUE(client.send({"x"}).ok());
  ASSERT_TRUE(loop_.run_until([&] { return !users_.empty(); }, kDeadline));
  EXPECT_THAT(users_, ElementsAre(stranger_.pub.curve_public));
}

TEST_F(CurveTest, WithoutAHandlerNothingIsDelivered) {
  int got = 0;
  server_ = make(loop_, context_, Type::kRouter, server_options(cluster_), [&](ZmqMessage) { ++got; });
  endpoint_ = *server_->bind("tcp://127.0.0.1:*");
  ZmqSocket client = make(loop_, context_, Type::kDealer, client_options(stranger_, cluster_), [](ZmqMessage) {});
  ASSERT_TRUE(client.connect(endpoint_).ok());
  ASSERT_TRUE(client.send({"x"}).ok());
  EXPECT_FALSE(loop_.run_until([&] { return got > 0; }, Duration::from_ms(300)));
}

TEST_F(CurveTest, GarbageAndOversizedFramesHarmNobodyElse) {
  write_authorized("user joe " + user_.pub.curve_public + "\n");
  auto handler = ZapHandler::authorized_file(context_, authorized_);
  ASSERT_TRUE(handler.ok());
  handler_ = std::move(handler).value();
  ZmqOptions options = server_options(cluster_);
  options.message_bytes_max = 1000;
  server_ = make(loop_, context_, Type::kRouter, options, [&](ZmqMessage m) {
    users_.push_back(m.user_id);
    static_cast<void>(server_->send_to(m.peer, {"ok"}));
  });
  endpoint_ = *server_->bind("tcp://127.0.0.1:*");
  // A raw connection that sends garbage is closed by the server.
  const Fd raw(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(endpoint_.substr(endpoint_.rfind(':') + 1))));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(raw.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const std::string garbage = "GET / HTTP/1.1\r\n" + std::string(500, '\xff');
  ASSERT_EQ(::send(raw.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL), static_cast<ssize_t>(garbage.size()));

  ZmqSocket large = make(loop_, context_, Type::kDealer, client_options(user_, cluster_), [](ZmqMessage) {});
  ASSERT_TRUE(large.connect(endpoint_).ok());
  ASSERT_TRUE(large.send({std::string(100'000, 'x')}).ok());
  int answers = 0;
  ZmqSocket client =
      make(loop_, context_, Type::kDealer, client_options(user_, cluster_), [&](ZmqMessage) { ++answers; });
  ASSERT_TRUE(client.connect(endpoint_).ok());
  ASSERT_TRUE(client.send({"x"}).ok());
  ASSERT_TRUE(loop_.run_until([&] { return answers == 1; }, kDeadline));
  EXPECT_THAT(users_, ElementsAre("user:joe"));
}

TEST(AuthorizedKeys, NamesFileAndLineOfWhatIsWrong) {
  const std::string a = generate_node_key().pub.curve_public;
  const std::string b = generate_node_key().pub.curve_public;
  const auto good =
      parse_authorized_keys("\n# x\nnode n1 " + a + "\r\n  user joe\t" + b + " admin\nnode n1 " + a + "\n", "f");
  ASSERT_TRUE(good.ok()) << good.error().message;
  EXPECT_EQ(good->at(a), "node:n1");
  EXPECT_EQ(good->at(b), "admin:joe");
  const struct {
    std::string text;
    const char* said;
  } cases[] = {{"nodes n1 " + a, "f:1: a line begins with"},
               {"\nnode n1", "f:2: a node line is too short"},
               {"node n1 short", "f:1: the key of n1 is damaged"},
               {"node n1 " + a + " admin", "f:1: \"admin\" after the key"},
               {"user joe " + a + " root", "f:1: \"root\" after the key"},
               {"node -n " + a, "f:1: \"-n\" is no node name"},
               {"user a:b " + a, "f:1: \"a:b\" is no user name"},
               {"user \x1b[0m " + a, "f:1: \"\\x1b[0m\" is no user name"},
               {"node n1 " + a + "\nnode n2 " + a, "f:2: the key of node:n2 is already that of node:n1"}};
  for (const auto& c : cases) {
    const auto keys = parse_authorized_keys(c.text, "f");
    ASSERT_FALSE(keys.ok()) << c.text;
    EXPECT_THAT(keys.error().message, HasSubstr(c.said));
  }
}

TEST(AuthorizedKeys, UserIdsAreTakenApart) {
  EXPECT_EQ(parse_user_id("node:n1").kind, PeerIdentity::Kind::kNode);
  EXPECT_EQ(parse_user_id("user:joe").name, "joe");
  EXPECT_EQ(parse_user_id("admin:root").kind, PeerIdentity::Kind::kAdmin);
  EXPECT_EQ(parse_user_id("other").kind, PeerIdentity::Kind::kKey);
}

TEST(ZapHandler, RefusesToStartWithoutItsFile) {
  ZmqContext context;
  EXPECT_EQ(ZapHandler::authorized_file(context, "/nonexistent/authorized").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace muster::io

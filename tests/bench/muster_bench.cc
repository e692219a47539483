// muster-bench: the measurements of script/bench that need a program of their own. Each prints one JSON object.
//
//   muster-bench spawn COUNT             posix_spawn and wait of /bin/true, two at a time: spawns per second
//   muster-bench launch COUNT            launches with and without control groups in turn: what they add to each
//   muster-bench fsync DIR COUNT         append 4 KiB and fdatasync: syncs per second
//   muster-bench roundtrip COUNT         one request and its reply at a time over a CURVE ROUTER and DEALER
//   muster-bench submit COUNT WINDOW [held]  durable submissions over one connection, WINDOW of them unanswered at a time
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"
#include "lib/io/keys.h"
#include "lib/io/loop.h"
#include "lib/io/sync_dealer.h"
#include "lib/io/zap.h"
#include "lib/io/zmq_socket.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "tests/bench/launch_bench.h"

extern char** environ;

namespace muster::bench {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void die(const std::string& message) {
  std::fprintf(stderr, "muster-bench: %s\n", message.c_str());
  std::exit(1);
}

int spawn_rate(std::uint64_t count) {
  const auto start = Clock::now();
  std::uint64_t running = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    pid_t pid = 0;
    std::string path = "/bin/true";
    char* argv[] = {path.data(), nullptr};
    if (posix_spawn(&pid, path.c_str(), nullptr, nullptr, argv, environ) != 0) {
      die("cannot spawn /bin/true");
    }
    if (++running == 2) {
      wait(nullptr);
      --running;
    }
  }
  while (running-- > 0) {
    wait(nullptr);
  }
  std::printf("{\"per_second\": %.1f}\n", static_cast<double>(count) / seconds_since(start));
  return 0;
}

int fsync_rate(const std::string& dir, std::uint64_t count) {
  const std::string path = dir + "/muster-bench-fsync";
  const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) {
    die(io::errno_text("open", path, errno));
  }
  const std::string block(4096, 'x');
  const auto start = Clock::now();
  for (std::uint64_t i = 0; i < count; ++i) {
    if (write(fd, block.data(), block.size()) < 0 || fdatasync(fd) != 0) {
      die(io::errno_text("write", path, errno));
    }
  }
  const double rate = static_cast<double>(count) / seconds_since(start);
  close(fd);
  unlink(path.c_str());
  std::printf("{\"per_second\": %.1f}\n", rate);
  return 0;
}

int round_trip(std::uint64_t count) {
  const io::Key server = io::generate_node_key();
  const io::Key client = io::generate_user_key();
  io::ZmqContext context;
  auto zap = io::ZapHandler::accept_any(context);
  if (!zap.ok()) {
    die(zap.error().message);
  }
  io::Loop loop;
  io::ZmqOptions options;
  options.curve_server = io::CurveServer{server.curve_secret};
  io::ZmqSocket* router = nullptr;
  auto made = io::ZmqSocket::create(loop, context, io::ZmqSocket::Type::kRouter, options,
                                    [&](io::ZmqMessage m) { (void)router->send_to(m.peer, m.frames); });
  if (!made.ok()) {
    die(made.error().message);
  }
  router = &*made;
  auto bound = router->bind("tcp://127.0.0.1:*");
  if (!bound.ok()) {
    die(bound.error().message);
  }
  double us = 0;
  std::thread asker([&] {
    io::SyncDealerOptions o;
    o.endpoints = {*bound};
    o.curve = io::CurveClient{client.pub.curve_public, client.curve_secret, server.pub.curve_public};
    io::SyncDealer dealer(o);
    const auto start = Clock::now();
    for (std::uint64_t i = 0; i < count; ++i) {
      if (!dealer.exchange({"ping"}, Duration::from_s(5)).ok()) {
        die("no reply");
      }
    }
    us = seconds_since(start) * 1e6 / static_cast<double>(count);
    loop.stop();
  });
  loop.run();
  asker.join();
  std::printf("{\"us\": %.1f}\n", us);
  return 0;
}

// As many submissions as the window allows are under way; each is answered only when it is on disk.
int submissions(std::uint64_t count, std::uint64_t window, bool held) {
  auto path = config::find_config_path("");
  if (!path.ok()) {
    die(path.error().message);
  }
  auto cfg = config::load(*path);
  if (!cfg.ok()) {
    die(cfg.error().message);
  }
  const char* key_env = std::getenv("MUSTER_KEY");
  auto key = io::load_key(key_env != nullptr ? key_env : cfg->cluster.key);
  auto server = io::load_public_key(cfg->cluster.controller_key);
  if (!key.ok() || !server.ok()) {
    die(key.ok() ? server.error().message : key.error().message);
  }
  io::SyncDealerOptions o;
  o.endpoints = cfg->cluster.controller;
  o.curve = io::CurveClient{key->pub.curve_public, key->curve_secret, server->curve_public};
  io::SyncDealer dealer(o);
  if (auto s = dealer.connect(Duration::from_s(10)); !s.ok()) {
    die(s.error().message);
  }
  pb::Request request;
  pb::SubmitRequest& submit = *request.mutable_submit();
  submit.set_script("#!/bin/sh\ntrue\n");
  std::string environment = "PATH=/usr/bin:/bin";
  environment.push_back('\0');
  submit.set_environment(environment);
  pb::JobSpec& spec = *submit.mutable_spec();
  spec.set_name("bench");
  const char* user = std::getenv("USER");
  spec.set_user(user != nullptr && *user != 0 ? user : "root");
  spec.set_uid(getuid());
  spec.set_gid(getgid());
  spec.set_work_dir("/tmp");
  spec.set_stdout_path("/dev/null");
  spec.set_script_name("bench.sh");
  spec.set_hold(held);
  RequestId base;
  const std::string random = io::random_bytes(sizeof base.high);
  std::memcpy(&base.high, random.data(), sizeof base.high);
  const std::string head = wire::header(wire::MessageKind::kClientRequest);
  const auto start = Clock::now();
  std::uint64_t sent = 0;
  std::uint64_t answered = 0;
  while (answered < count) {
    while (sent < count && sent - answered < window) {
      request.set_correlation(sent + 1);
      submit.mutable_request()->set_high(base.high);
      submit.mutable_request()->set_low(sent + 1);
      if (auto s = dealer.send({head, request.SerializeAsString()}); !s.ok()) {
        die(s.error().message);
      }
      ++sent;
    }
    auto got = dealer.receive(Duration::from_s(30));
    if (!got.ok()) {
      die(got.error().message);
    }
    pb::Reply reply;
    if (got->size() < 2 || !reply.ParseFromString((*got)[1]) || !reply.has_submit()) {
      die("refused: " + reply.error().message());
    }
    ++answered;
  }
  const double s = seconds_since(start);
  std::printf("{\"count\": %llu, \"seconds\": %.3f, \"per_second\": %.1f}\n", static_cast<unsigned long long>(count), s,
              static_cast<double>(count) / s);
  return 0;
}

std::uint64_t count_argument(const char* text) {
  auto n = parse_count(text, "COUNT", {1, 100'000'000});
  if (!n.ok()) {
    die(n.error().message);
  }
  return *n;
}

int run(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "spawn" && argc == 3) {
    return spawn_rate(count_argument(argv[2]));
  }
  if (what == "fsync" && argc == 4) {
    return fsync_rate(argv[2], count_argument(argv[3]));
  }
  if (what == "roundtrip" && argc == 3) {
    return round_trip(count_argument(argv[2]));
  }
  if (what == "submit" && (argc == 4 || argc == 5)) {
    return submissions(count_argument(argv[2]), count_argument(argv[3]),
                       argc == 5 && std::strcmp(argv[4], "held") == 0);
  }
  if (what == "launch" && argc == 3) {
    return launch_cost(count_argument(argv[2]));
  }
  die("usage: muster-bench spawn COUNT | launch COUNT | fsync DIR COUNT | roundtrip COUNT | submit COUNT WINDOW "
      "[held]");
}

}  // namespace
}  // namespace muster::bench

int main(int argc, char** argv) {
  return muster::bench::run(argc, argv);
}

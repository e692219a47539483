#include "lib/io/zap.h"

#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <thread>
#include <utility>
#include <vector>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/log.h"

namespace muster::io {
namespace {

constexpr const char kZapEndpoint[] = "inproc://zeromq.zap.01";  // fixed by ZeroMQ RFC 27
constexpr std::size_t kCurveKeyBytes = 32;
constexpr std::size_t kZ85Length = 40;
constexpr std::size_t kZapFramesMax = 16;
constexpr Duration kLogInterval = Duration::from_s(60);
constexpr std::size_t kLoggedKeysMax = 10'000;  // remembered so that one key is not logged at every attempt

bool is_curve_key(const std::string& text) {
  std::array<std::uint8_t, kCurveKeyBytes> bytes;
  return text.size() == kZ85Length && zmq_z85_decode(bytes.data(), text.c_str()) != nullptr;
}

// As for node names, and so also fit for user names.
bool is_valid_user_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && name.find_first_of(":/#\"'\\") == std::string_view::npos &&
         printable(name) == name;
}

std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  for (std::size_t at = 0; (at = line.find_first_not_of(" \t\r", at)) != std::string_view::npos;) {
    const std::size_t end = std::min(line.find_first_of(" \t\r", at), line.size());
    words.emplace_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

struct AuthorizedLine {
  std::string key;
  std::string user_id;
};

Result<AuthorizedLine> parse_line(std::vector<std::string> words) {
  // A word that begins with # after the three fields begins a comment.
  for (std::size_t i = 3; i < words.size(); ++i) {
    if (words[i].front() == '#') words.resize(i);
  }
  const std::string shown = printable(words[0].substr(0, 40));
  if (words[0] != "node" && words[0] != "user") {
    return invalid_argument("a line begins with \"" + shown + "\": begin it with node, user or #");
  }
  const bool is_node = words[0] == "node";
  if (words.size() < 3)
    return invalid_argument("a " + shown + " line is too short: write " + shown + " NAME PUBLIC_KEY");
  const bool is_admin = !is_node && words.size() == 4 && words[3] == "admin";
  if (words.size() > 3 && !is_admin) {
    return invalid_argument("\"" + printable(words[3].substr(0, 40)) + "\" after the key is not understood: " +
                            (is_node ? "end the line there" : "only admin may stand there"));
  }
  const std::string name = printable(words[1].substr(0, 80));
  if (is_node && !is_valid_node_name(words[1]))
    return invalid_argument("\"" + name + "\" is no node name: use letters, digits, '_', '.', '-'");
  if (!is_node && !is_valid_user_name(words[1]))
    return invalid_argument("\"" + name + "\" is no user name: give a login name");
  if (!is_curve_key(words[2])) {
    return invalid_argument("the key of " + name +
                            " is damaged: copy the 40 characters after curve_public = in its .pub file");
  }
  return AuthorizedLine{words[2], (is_admin ? "admin:" : words[0] + ":") + words[1]};
}

// What tells one state of a file from another.
struct FileState {
  ino_t inode = 0;
  off_t size = 0;
  std::int64_t modified_ns = 0;
  friend bool operator==(const FileState&, const FileState&) = default;
};

std::optional<FileState> state_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return FileState{info.st_ino, info.st_size,
                   static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec};
}

}  // namespace

Result<AuthorizedKeys> parse_authorized_keys(std::string_view text, const std::string& file) {
  AuthorizedKeys keys;
  std::size_t number = 0;
  for (const std::string_view raw : split(text, '\n')) {
    ++number;
    const std::vector<std::string> words = words_of(raw);
    if (words.empty() || words[0].front() == '#') continue;
    const std::string place = printable(file) + ":" + std::to_string(number) + ": ";
    auto line = parse_line(words);
    if (!line.ok()) return invalid_argument(place + line.error().message);
    const auto [known, inserted] = keys.emplace(line->key, line->user_id);
    if (!inserted && known->second != line->user_id) {
      return invalid_argument(place + "the key of " + line->user_id + " is already that of " + known->second +
                              ": give each its own key");
    }
  }
  return keys;
}

PeerIdentity parse_user_id(std::string_view user_id) {
  const auto rest = [&](std::string_view head) { return std::string(user_id.substr(head.size())); };
  if (user_id.starts_with("node:")) return {PeerIdentity::Kind::kNode, rest("node:")};
  if (user_id.starts_with("user:")) return {PeerIdentity::Kind::kUser, rest("user:")};
  if (user_id.starts_with("admin:")) return {PeerIdentity::Kind::kAdmin, rest("admin:")};
  return {PeerIdentity::Kind::kKey, std::string(user_id)};
}

struct ZapHandler::Impl {
  std::string path;  // empty: accept any
  AuthorizedKeys keys;
  std::optional<FileState> seen;
  std::map<std::string, Duration> logged;
  void* socket = nullptr;
  Fd stop_event;
  std::thread thread;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    if (thread.joinable()) {
      const std::uint64_t one = 1;
      MUSTER_CHECK(::write(stop_event.get(), &one, sizeof one) == sizeof one);
      thread.join();
    }
    if (socket != nullptr) zmq_close(socket);
  }

  Status load() {
    const auto state = state_of(path);
    MUSTER_ASSIGN(const std::string text, read_file(path, kAuthorizedBytesMax));
    MUSTER_ASSIGN(keys, parse_authorized_keys(text, path));
    seen = state;
    return ok_status();
  }

  void load_again_if_changed() {
    const auto state = state_of(path);
    if (state == seen) return;
    if (const Status loaded = load(); !loaded.ok()) {
      seen = state;
      log_error("authorized keys not read, the last good ones stay", {{"error", loaded.error().message}});
      return;
    }
    log_info("authorized keys read", {{"file", path}, {"keys", keys.size()}});
  }

  void run() {
    while (true) {
      zmq_pollitem_t items[] = {{socket, 0, ZMQ_POLLIN, 0}, {nullptr, stop_event.get(), ZMQ_POLLIN, 0}};
      if (zmq_poll(items, 2, -1) < 0) continue;
      if (items[1].revents != 0) return;
      if ((items[0].revents & ZMQ_POLLIN) != 0) answer();
    }
  }

  void answer() {
    const std::vector<std::string> request = receive();
    // version, request id, domain, address, routing id, mechanism, credentials
    if (request.size() != 7 || request[0] != "1.0") {
      reply(request.size() > 1 ? request[1] : "", "500", "malformed request", "");
      return;
    }
    if (request[5] != "CURVE" || request[6].size() != kCurveKeyBytes) {
      reply(request[1], "400", "only CURVE is accepted", "");
      return;
    }
    char key[kZ85Length + 1];
    MUSTER_CHECK(zmq_z85_encode(key, reinterpret_cast<const std::uint8_t*>(request[6].data()), kCurveKeyBytes) !=
                 nullptr);
    if (path.empty()) {
      reply(request[1], "200", "OK", key);
      return;
    }
    load_again_if_changed();
    const auto known = keys.find(key);
    if (known != keys.end()) {
      reply(request[1], "200", "OK", known->second);
      return;
    }
    log_refusal(key, request[3]);
    reply(request[1], "400", "key not authorized", "");
  }

  void log_refusal(const std::string& key, const std::string& address) {
    const Duration now = boottime_now();
    const auto last = logged.find(key);
    if (last != logged.end() && now - last->second < kLogInterval) return;
    if (logged.size() >= kLoggedKeysMax) logged.clear();
    logged[key] = now;
    log_warning("connection refused: key not authorized", {{"key", key}, {"address", address}, {"file", path}});
  }

  std::vector<std::string> receive() {
    std::vector<std::string> frames;
    bool more = true;
    while (more) {
      zmq_msg_t msg;
      zmq_msg_init(&msg);
      if (zmq_msg_recv(&msg, socket, ZMQ_DONTWAIT) < 0 && zmq_errno() != EINTR) {
        zmq_msg_close(&msg);
        return {};
      }
      if (frames.size() < kZapFramesMax) {
        frames.emplace_back(static_cast<const char*>(zmq_msg_data(&msg)), zmq_msg_size(&msg));
      }
      more = zmq_msg_more(&msg) != 0;
      zmq_msg_close(&msg);
    }
    return frames;
  }

  void reply(const std::string& id, const std::string& code, const std::string& text, const std::string& user_id) {
    const std::string frames[] = {"1.0", id, code, text, user_id, ""};
    for (std::size_t i = 0; i < std::size(frames); ++i) {
      static_cast<void>(
          zmq_send(socket, frames[i].data(), frames[i].size(), i + 1 < std::size(frames) ? ZMQ_SNDMORE : 0));
    }
  }
};

ZapHandler::ZapHandler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZapHandler::~ZapHandler() = default;

Result<std::unique_ptr<ZapHandler>> ZapHandler::accept_any(ZmqContext& context) {
  return start(context, "");
}

Result<std::unique_ptr<ZapHandler>> ZapHandler::authorized_file(ZmqContext& context, const std::string& path) {
  MUSTER_CHECK(!path.empty());
  return start(context, path);
}

Result<std::unique_ptr<ZapHandler>> ZapHandler::start(ZmqContext& context, const std::string& path) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  if (!path.empty()) MUSTER_TRY(impl->load());
  impl->socket = zmq_socket(context.handle(), ZMQ_REP);
  if (impl->socket == nullptr) return make_error(ErrorCode::kIo, "cannot create the socket of the key check");
  const int no_linger = 0;
  MUSTER_CHECK(zmq_setsockopt(impl->socket, ZMQ_LINGER, &no_linger, sizeof no_linger) == 0);
  // A second handler of one context is a bug.
  MUSTER_CHECK(zmq_bind(impl->socket, kZapEndpoint) == 0);
  impl->stop_event = Fd(::eventfd(0, EFD_CLOEXEC));
  if (!impl->stop_event.valid()) return errno_error("create", "an eventfd", errno);
  // Signals are for the thread of the loop: the new thread is born with all of them blocked.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  MUSTER_CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
  impl->thread = std::thread([raw = impl.get()] { raw->run(); });
  MUSTER_CHECK(pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
  return std::unique_ptr<ZapHandler>(new ZapHandler(std::move(impl)));
}

}  // namespace muster::io

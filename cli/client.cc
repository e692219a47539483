#include "cli/client.h"

#include <pwd.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"
#include "lib/io/keys.h"
#include "lib/io/sync_dealer.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

// A request without an answer for this long is sent again on a new connection: a message can be lost with a controller
// that died while the connection looked alive (its machine lost power).
constexpr Duration kSilenceMax = Duration::from_s(15);

ErrorCode code_of(std::uint32_t wire_code) {
  if (wire_code > static_cast<std::uint32_t>(ErrorCode::kInternal)) return ErrorCode::kInternal;
  return static_cast<ErrorCode>(wire_code);
}

Result<pb::Reply> decode_reply(const std::vector<std::string>& frames) {
  if (frames.size() != 2)
    return make_error(ErrorCode::kCorrupt, "the controller's answer has " + std::to_string(frames.size()) +
                                               " frames instead of 2: is that address a muster-ctld?");
  MUSTER_ASSIGN(const wire::MessageKind kind, wire::parse_header(frames[0]));
  pb::Reply reply;
  if (kind != wire::MessageKind::kClientReply || !reply.ParseFromString(frames[1])) {
    return make_error(ErrorCode::kCorrupt,
                      "the controller's answer cannot be read: is that address a muster-ctld of a like version?");
  }
  return reply;
}

std::string list_text(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

}  // namespace

struct Client::Impl {
  Duration timeout;
  io::Key key;
  std::vector<std::string> endpoints;
  std::unique_ptr<io::SyncDealer> dealer;
  std::uint64_t next_correlation = 1;

  // Sends until an answer begins, then hands out its parts.
  Status exchange(pb::Request& request, Duration patience, const std::function<Status(pb::Reply&)>& on_part,
                  const std::function<void()>& on_restart);
  // One attempt: parts of the answer until the last one. `again` is set when the attempt may be repeated.
  Status attempt(const std::vector<std::string>& frames, std::uint64_t correlation, Duration deadline,
                 Duration silence_max, const std::function<Status(pb::Reply&)>& on_part, bool& any_part, bool& again);
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() {
  // The orderly end of ZeroMQ's threads takes a good part of a short command's time. Every request was answered or
  // given up by now, and the process ends soon (main does so without exit handlers).
  (void)impl_->dealer.release();
}

Result<std::unique_ptr<Client>> Client::open(const ConnectOptions& options) {
  auto impl = std::make_unique<Impl>();
  MUSTER_ASSIGN(const std::string path, config::find_config_path(options.config_path));
  MUSTER_ASSIGN(const config::Config config, config::load(path));
  impl->timeout = options.timeout.value_or(config.controller.client_timeout);
  if (config.cluster.controller.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      path + ": cluster.controller is not set: name the controller's address, such as tcp://host:7411");
  }
  if (config.cluster.controller_key.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      path + ": cluster.controller_key is not set: name the file with the controller's public key");
  }
  std::string key_path = options.key_path;
  if (key_path.empty()) {
    const char* variable = getenv("MUSTER_KEY");
    if (variable != nullptr) key_path = variable;
  }
  if (key_path.empty()) key_path = config.cluster.key;
  if (key_path.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "no key of yours is known: set MUSTER_KEY to your key file (muster keygen user --out FILE makes "
                      "one), or cluster.key in " +
                          path);
  }
  MUSTER_ASSIGN(impl->key, io::load_key(key_path));
  MUSTER_ASSIGN(const io::PublicKey server, io::load_public_key(config.cluster.controller_key));
  impl->endpoints = config.cluster.controller;
  io::SyncDealerOptions dealer;
  dealer.endpoints = config.cluster.controller;
  io::CurveClient curve;
  curve.public_key = impl->key.pub.curve_public;
  curve.secret_key = impl->key.curve_secret;
  curve.server_key = server.curve_public;
  dealer.curve = std::move(curve);
  impl->dealer = std::make_unique<io::SyncDealer>(std::move(dealer));
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

const std::string& Client::public_key() const {
  return impl_->key.pub.curve_public;
}
const std::string& Client::secret_key() const {
  return impl_->key.curve_secret;
}
Duration Client::timeout() const {
  return impl_->timeout;
}

Status Client::Impl::attempt(const std::vector<std::string>& frames, std::uint64_t correlation, Duration deadline,
                             Duration silence_max, const std::function<Status(pb::Reply&)>& on_part, bool& any_part,
                             bool& again) {
  again = true;
  const auto left = [&] { return std::max(deadline - io::boottime_now(), Duration{}); };
  if (auto connected = dealer->connect(left()); !connected.ok()) {
    again = connected.error().code == ErrorCode::kUnavailable;
    return connected;
  }
  MUSTER_TRY(dealer->send(frames));
  while (true) {
    auto received = dealer->receive(std::min(left(), silence_max));
    if (!received.ok()) {
      if (dealer->connected()) dealer->close();  // silence
      return received.error();
    }
    auto reply = decode_reply(*received);
    if (!reply.ok()) {
      again = false;
      return reply.error();
    }
    if (reply->correlation() != correlation) continue;  // the answer to an earlier attempt
    if (reply->has_error()) {
      const ErrorCode code = code_of(reply->error().code());
      // "Unavailable" from a controller that answers means that it is starting or stopping; it will be there again.
      again = code == ErrorCode::kUnavailable || code == ErrorCode::kLimitReached;
      return make_error(code, reply->error().message());
    }
    any_part = true;
    const bool more = reply->more();
    if (auto status = on_part(*reply); !status.ok()) {
      again = false;
      return status;
    }
    if (!more) return ok_status();
  }
}

Status Client::Impl::exchange(pb::Request& request, Duration patience, const std::function<Status(pb::Reply&)>& on_part,
                              const std::function<void()>& on_restart) {
  const Duration start = io::boottime_now();
  Duration deadline = start + timeout;
  bool any_part = false;
  while (true) {
    // Another correlation for each attempt, so that late parts of a broken answer are told apart.
    request.set_correlation(next_correlation++);
    const std::vector<std::string> frames = {wire::header(wire::MessageKind::kClientRequest),
                                             request.SerializeAsString()};
    bool again = false;
    const Duration attempt_start = io::boottime_now();
    const bool patient = patience > timeout;
    // Whoever waits long for a late answer still finds out within the timeout that nobody is there.
    if (patient) MUSTER_TRY(dealer->connect(std::max(deadline - attempt_start, Duration{})));
    const Duration until = patient ? start + patience : deadline;
    auto status =
        attempt(frames, request.correlation(), until, patient ? patience : kSilenceMax, on_part, any_part, again);
    if (status.ok() || !again) return status;
    const Duration now = io::boottime_now();
    const bool lost = !dealer->connected();
    // A connection that held for a while was lost: the search for a controller begins anew.
    if (patient && lost && now - attempt_start > Duration::from_s(1)) deadline = now + timeout;
    if (now >= until || now >= deadline) {
      if (status.error().code == ErrorCode::kLimitReached) return status;
      return make_error(ErrorCode::kUnavailable, "no answer from the controller at " + list_text(endpoints) +
                                                     " within " + std::to_string(timeout.seconds()) + " s (" +
                                                     status.error().message + "): is muster-ctld running there?");
    }
    if (any_part && on_restart) on_restart();
    any_part = false;
    usleep(20'000);  // a controller that says "try again" is not asked in a tight loop
  }
}

Result<pb::Reply> Client::call(pb::Request& request, Duration patience) {
  pb::Reply result;
  MUSTER_TRY(impl_->exchange(request, patience,
                             [&](pb::Reply& reply) {
                               result = std::move(reply);
                               return ok_status();
                             },
                             {}));
  return result;
}

Status Client::call_parts(pb::Request& request, const std::function<Status(pb::Reply&)>& on_part,
                          const std::function<void()>& on_restart) {
  return impl_->exchange(request, {}, on_part, on_restart);
}

RequestId make_request_id() {
  return RequestId{io::random_u64(), io::random_u64()};
}

Result<pb::SubmitReply> submit_job(Client& client, JobSpec spec, std::string_view script, std::string_view environment,
                                   bool test_only) {
  spec.uid = getuid();
  spec.gid = getgid();
  if (spec.user.empty()) {
    const passwd* entry = getpwuid(spec.uid);
    spec.user = entry != nullptr ? entry->pw_name : std::to_string(spec.uid);
  }
  pb::Request request;
  pb::SubmitRequest& submit = *request.mutable_submit();
  const RequestId id = make_request_id();
  submit.mutable_request()->set_high(id.high);
  submit.mutable_request()->set_low(id.low);
  wire::to_pb(spec, *submit.mutable_spec());
  submit.set_script(script.data(), script.size());
  submit.set_environment(environment.data(), environment.size());
  submit.set_test_only(test_only);
  MUSTER_ASSIGN(pb::Reply reply, client.call(request));
  if (!reply.has_submit())
    return make_error(ErrorCode::kCorrupt,
                      "the controller's answer to a submission is of another kind: are both of a like version?");
  return std::move(*reply.mutable_submit());
}

}  // namespace muster::cli

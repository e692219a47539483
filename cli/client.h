// Client: a command's connection to the controller: finds configuration and key, sends a request, waits for the reply.
//
// Requests are sent again after a silence and after a reconnection until the timeout passes, so that a controller that
// restarts is not noticed. That is safe because each of them may be repeated: reads and operations by nature,
// submissions by their request id (make_request_id once, keep it over retries). One thread; blocking.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cli/run_options.h"
#include "lib/base/result.h"
#include "lib/model/ids.h"
#include "lib/model/job_spec.h"

namespace muster::pb {
class Request;
class Reply;
class SubmitReply;
}  // namespace muster::pb

namespace muster::cli {

class Client {
 public:
  // Reads the configuration and the user's key; does not wait for the controller.
  static Result<std::unique_ptr<Client>> open(const ConnectOptions& options);
  // Leaves the connection to the end of the process, which the program brings about at once.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Sends `request` (its correlation is filled in) and returns the one reply. An ErrorInfo in the reply becomes the
  // error. kUnavailable: no controller answered within the timeout, or within `patience` if that is longer (for
  // requests that the controller answers late, such as WaitRequest).
  Result<pb::Reply> call(pb::Request& request, Duration patience = {});
  // As call, for answers in several parts (`more`): each part is given to on_part. When the connection is lost in the
  // middle the request is sent again and on_restart tells the caller to forget the parts it has.
  Status call_parts(pb::Request& request, const std::function<Status(pb::Reply&)>& on_part,
                    const std::function<void()>& on_restart = {});

  // The caller's CURVE key pair, for the sockets of nodes (tickets name the public key).
  [[nodiscard]] const std::string& public_key() const;
  [[nodiscard]] const std::string& secret_key() const;
  [[nodiscard]] Duration timeout() const;

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

RequestId make_request_id();

// Submits: spec (user, uid and gid are filled in here), the script's bytes (empty for kRun) and the environment as
// NAME=value\0... Returns the controller's answer; never makes a second job, however often it had to send.
Result<pb::SubmitReply> submit_job(Client& client, JobSpec spec, std::string_view script, std::string_view environment,
                                   bool test_only = false);

}  // namespace muster::cli

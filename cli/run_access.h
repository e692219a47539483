// How `muster run` reaches the job in which a step is to run: its first node's address and a ticket. Inside of the job
// the environment names both; from outside the controller gives them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cli/client.h"
#include "cli/run_stream.h"
#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::cli {

// What a step needs to begin: a node to speak with and the right to.
struct Access {
  std::string ticket;  // bytes of pb::Ticket
  NodeAddress node;
  ClientKey key;
  std::uint64_t job = 0;
  // Tickets for clients are short-lived: one that a long step needs again after that time is asked for anew. Empty: the
  // job's own ticket, which lives as long as the job.
  std::function<Result<std::string>()> renew;
  Duration obtained;
  // Asks the controller whether the job has ended, for at most this long: how, in words; nothing while it has not; an
  // error when the controller does not answer. Empty inside of a job: the tasks there end with it.
  std::function<Result<std::optional<std::string>>(Duration)> job_end;
};

// Whether this process runs inside of the job.
bool is_inside(std::uint64_t job);
// The job's own ticket, which its environment names.
Result<Access> access_inside(std::uint64_t job);
// `client` must live as long as the access.
Result<Access> access_by_controller(Client& client, std::uint64_t job);

}  // namespace muster::cli

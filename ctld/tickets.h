// Tickets: the controller's signed word that somebody may talk to a node about a job. Nodes check them offline.
#pragma once

#include <string>

#include "lib/base/time.h"
#include "lib/io/keys.h"
#include "lib/model/job.h"
#include "lib/model/orders.h"

namespace muster::pb {
class Ticket;
}

namespace muster::ctld {

// How long a client may use a ticket to open streams to a node; open streams outlive it.
inline constexpr Duration kClientTicketLife = Duration::from_s(3'600);
// How much longer than the job's time limit its own ticket lives: clocks differ, and jobs are suspended.
inline constexpr Duration kJobTicketSlack = Duration::from_s(7 * 86'400);

class Tickets {
 public:
  explicit Tickets(io::Key cluster_key) : key_(std::move(cluster_key)) {}

  // The job's own, for steps started inside it: whoever holds it may use it.
  void for_job(const LaunchOrder& order, Instant now, pb::Ticket& out) const;
  // For a client with this key: of a job that runs, or (attempt 0) only to read the files of one that has ended.
  void for_client(const Job& job, const std::string& node, const std::string& client_key, Instant now,
                  pb::Ticket& out) const;
  void for_client(const JobSummary& job, const std::string& client_key, Instant now, pb::Ticket& out) const;

 private:
  io::Key key_;
};

}  // namespace muster::ctld

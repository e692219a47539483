// Questions to the controller that several commands ask.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/client.h"
#include "lib/base/result.h"
#include "lib/model/command.h"

namespace muster::pb {
class JobView;
class NodeView;
class OperationReply;
}  // namespace muster::pb

namespace muster::cli {

// Sends a JobQuery or HistoryQuery (or WaitRequest) and collects all parts of the answer. Notes are problems with
// single ids ("job 99: no such job: ...").
Status fetch_jobs(Client& client, pb::Request& request, std::vector<pb::JobView>& jobs,
                  std::vector<std::string>& notes);
// The jobs with this id, also when they have ended: one, or all tasks of an array. kNotFound when there is none.
Result<std::vector<pb::JobView>> find_job(Client& client, const JobSelector::Item& item, bool with_placement,
                                          bool with_explanation = false);
// Nodes by name; all without names. Unknown names are kNotFound.
Result<std::vector<pb::NodeView>> fetch_nodes(Client& client, const std::vector<std::string>& names,
                                              bool with_topology = false);
// Prints the notes of an operation, returns the exit status.
int report_operation(const pb::OperationReply& reply, bool json);
// Returns when the job (of an array: all its tasks) has ended.
Status wait_until_ended(Client& client, std::uint64_t job);
// The exit status that stands for the ended job; of several the highest.
int exit_status_of_jobs(const std::vector<pb::JobView>& jobs);

}  // namespace muster::cli

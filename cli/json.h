// The JSON of cli.md. One object on one line, keys in snake_case, times as Unix seconds; a key that is absent is
// unknown. Bytes that are no UTF-8 are replaced, so that the output can always be parsed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/time.h"

namespace muster::pb {
class AccountingList;
class PriorityView;
class ConfigReply;
class JobView;
class SubmitReply;
class NodeView;
class OperationReply;
class ReservationList;
class LicenseList;
class PingReply;
}  // namespace muster::pb

namespace muster::cli {

std::string jobs_json(const std::vector<pb::JobView>& jobs, bool with_placement);
std::string why_json(const pb::JobView& job);
std::string nodes_json(const std::vector<pb::NodeView>& nodes);
std::string operation_json(const pb::OperationReply& reply);
std::string reservations_json(const pb::ReservationList& list);
std::string licenses_json(const pb::LicenseList& list);
std::string config_json(const pb::ConfigReply& reply);

struct QueueView {
  std::string name;
  std::string state;  // up, drain, down, inactive
  std::int64_t priority = 0;
  Duration max_time;         // zero or infinite: no limit
  Duration default_time;     // zero: the cluster's
  std::int64_t factor = 0;   // points of its jobs
  std::string placement;     // pack, spread
  std::string preempt_mode;  // off, requeue, cancel, checkpoint, suspend
  Duration preempt_grace;
  Duration preempt_exempt;
  std::map<std::string, std::uint64_t> limits;             // "max_nodes", ...: those that there are
  std::map<std::string, std::vector<std::string>> access;  // "allow_users", ...: those that there are
  std::vector<std::string> overridden;                     // keys that were changed at run time
  bool made_at_run_time = false;
  std::uint64_t jobs_pending = 0;
  std::uint64_t jobs_active = 0;
  std::vector<std::string> nodes;
};
std::string queues_json(const std::vector<QueueView>& queues);
std::string ping_json(const pb::PingReply& reply);
std::string submitted_json(const pb::SubmitReply& reply, bool test_only);
std::string version_json(std::string_view version);

std::string accounts_json(const pb::AccountingList& list);
std::string users_json(const pb::AccountingList& list);
std::string qos_list_json(const pb::AccountingList& list);
std::string priorities_json(const std::vector<pb::PriorityView>& jobs);

// What `muster alloc --no-shell` was given.
std::string allocated_json(std::uint64_t job, const std::vector<std::string>& nodes);

struct DaemonStatus {
  std::string name;
  std::int64_t pid = 0;  // 0: none
  bool up = false;
};
std::string daemons_json(const std::vector<DaemonStatus>& daemons);

}  // namespace muster::cli

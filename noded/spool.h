// Spool: what muster-noded keeps on local disk.
//
//   spool_dir/pid                         lock of the running daemon
//   spool_dir/term                        highest term of a controller heard
//   spool_dir/cgroup                      path of this node's cgroup; who stops a node whole removes it
//   spool_dir/cgroups                     paths of its groups of cgroup v1, one a line; removed likewise
//   spool_dir/attempts/<job>.<attempt>/   launch    boot id and order, made exclusively before anything is started
//                                         script, ticket   of the user
//                                         shepherd  ShepherdRecord, made exclusively by the shepherd
//                                         step.N    StepRecord (noded/step_records.h)
//                                         outcome   of an end that noded decided
//   spool_dir/scripts/<digest>.<uid>      scripts, which attempts link to
//   spool_dir/free/<n>/                   folders of ended attempts with what noded and shepherds wrote there, to be
//   used
//                                         again: file systems are slow at making and removing files
//
// The launch record is not synced: after a crash of the machine the boot id differs and nothing of it runs. Ends that
// noded itself decides, and terms, are synced. Loop thread only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/io/files.h"
#include "lib/model/orders.h"
#include "noded/shepherd_protocol.h"

namespace muster::noded {

// A launch with all that it needs.
struct LaunchData {
  std::shared_ptr<const LaunchOrder> order;
  std::string ticket;                              // bytes of pb::Ticket; may be empty
  std::shared_ptr<const std::string> script;       // null where no script runs
  std::shared_ptr<const std::string> environment;  // blob of the submission; null where it is not needed
};

struct FoundAttempt {
  AttemptKey key;
  std::shared_ptr<const LaunchOrder> order;  // null: no launch record, or not readable
  std::string ticket;
  std::string boot_id;
  std::optional<ShepherdRecord> shepherd;
  std::optional<Outcome> outcome;
};

// Paths of one prepared attempt.
struct PreparedAttempt {
  std::string directory;
  std::string script;       // empty: none
  std::string ticket_path;  // empty: no ticket
};

class Spool {
 public:
  // Makes the directories and takes the lock. kAlreadyExists names the process that holds it.
  static Result<Spool> open(const std::string& directory);

  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string attempt_dir(AttemptKey key) const;

  [[nodiscard]] Result<Term> read_term() const;
  Status write_term(Term term);

  // Every attempt on disk. What was prepared but never begun is removed and left out: the controller sends it again.
  Result<std::vector<FoundAttempt>> scan();

  // Writes the launch record (exclusively), script and ticket. After a failure nothing is left.
  Result<PreparedAttempt> prepare(const LaunchData& launch, const std::string& boot_id);

  [[nodiscard]] std::optional<Outcome> read_outcome(AttemptKey key) const;
  [[nodiscard]] std::optional<ShepherdRecord> read_shepherd(AttemptKey key) const;
  // `durable`: synced. Makes the attempt's directory when there is none.
  Status write_outcome(AttemptKey key, const Outcome& outcome, bool durable);
  void remove(AttemptKey key);

 private:
  // A script as it was written; a user who changes his own is noticed.
  struct Script {
    std::int64_t size = 0;
    std::int64_t changed_ns = 0;
  };

  // An attempt's folder that waits for its next use.
  struct Free {
    std::string path;
    std::optional<std::uint32_t> ticket_of;  // the user whose ticket is still in it; nobody else's may take its place
  };

  Spool(std::string directory, io::PidLock lock);
  bool withdraw(AttemptKey key);
  bool recycle(AttemptKey key);
  Status place_launch(const LaunchData& launch, const std::string& boot_id, const std::string& directory);
  Status place_ticket(const JobSpec& spec, const std::string& ticket, const std::string& path);
  void forget_free();
  void forget_scripts();
  Status place_script(const JobSpec& spec, const std::string& script, const std::string& path);
  std::string directory_;
  io::PidLock lock_;
  std::map<std::string, Script> scripts_;  // by path below scripts/
  std::vector<Free> free_;
  std::uint64_t next_free_ = 0;
};

// Whether the process of the record lives: the same pid with the same start time.
bool is_alive(const ShepherdRecord& record);

// Kills what an attempt whose shepherd died has left, found by its control groups, and by the variables MUSTER_JOB_ID,
// MUSTER_ATTEMPT and MUSTER_NODE_NAME of its processes. True when nothing is left; otherwise call it again soon.
bool kill_leftovers(AttemptKey key, const std::string& node, const std::vector<std::string>& groups);

}  // namespace muster::noded

#include "ctld/snapshotter.h"

#include <sys/wait.h>

#include <csignal>
#include <memory>
#include <utility>

#include "lib/io/files.h"
#include "lib/io/log.h"
#include "lib/io/process.h"

namespace muster::ctld {
namespace {

constexpr std::size_t kSnapshotsKept = 2;  // the older one is what is left when the newer one rots

}  // namespace

Snapshotter::Snapshotter(io::Loop& loop, Options options, const engine::State& state, Journal& journal,
                         std::uint64_t replayed)
    : loop_(loop), options_(std::move(options)), state_(state), journal_(journal), batches_(replayed) {}

Snapshotter::~Snapshotter() {
  if (pid_ > 0) {
    helper_.reset();
    kill(pid_, SIGKILL);
    (void)io::wait_child(pid_, Duration::from_s(5));
    (void)io::remove_tree(snapshot_path(options_.state_dir, wanted_) + ".part");
  }
}

void Snapshotter::closing(std::uint64_t seq, std::size_t facts) {
  ++batches_;
  facts_ += facts;
  if (wanted_ != 0 || (batches_ < options_.every_batches && facts_ < options_.every_facts)) {
    return;
  }
  wanted_ = seq;
  batches_ = 0;
  facts_ = 0;
  expected_.reset();
  if (state_.jobs.size() + state_.arrays.size() + state_.requests.size() <= options_.hashed_records_max) {
    expected_ = hash_state(state_);
  }
}

void Snapshotter::committed(std::uint64_t seq) {
  if (seq == wanted_) {
    start_helper();
  }
}

void Snapshotter::start_helper() {
  io::SpawnOptions spawn;
  spawn.argv = {options_.program, "--make-snapshot", options_.state_dir, "--upto", std::to_string(wanted_)};
  spawn.fds = {{2, 2}};
  spawn.new_process_group = true;
  const auto pid = io::spawn(spawn);
  if (!pid.ok()) {
    return give_up(pid.error().message);
  }
  auto watcher = io::ChildWatcher::start(loop_, *pid, [this](io::ChildExit exit) { on_exit(exit); });
  if (!watcher.ok()) {
    return give_up(watcher.error().message);
  }
  pid_ = *pid;
  helper_.emplace(std::move(*watcher));
}

void Snapshotter::on_exit(io::ChildExit exit) {
  pid_ = 0;
  if (!exit.status_known || !WIFEXITED(exit.wait_status) || WEXITSTATUS(exit.wait_status) != 0) {
    return give_up("the helper ended with " +
                   (exit.status_known ? io::describe_wait_status(exit.wait_status) : std::string("an unknown status")));
  }
  auto checked = std::make_shared<std::optional<Result<CheckedSnapshot>>>();
  const std::string path = snapshot_path(options_.state_dir, wanted_);
  loop_.run_in_worker([checked, path] { checked->emplace(check_snapshot(path)); },
                      [this, checked, guard = std::weak_ptr<int>(alive_)] {
                        if (!guard.expired()) {
                          on_checked(std::move(**checked));
                        }
                      });
}

void Snapshotter::on_checked(Result<CheckedSnapshot> checked) {
  if (!checked.ok()) {
    return give_up(checked.error().message);
  }
  const std::uint64_t seq = std::exchange(wanted_, 0);
  if (checked->info.position.seq != seq || (expected_ && checked->info.state_hash != *expected_)) {
    wanted_ = seq;
    return give_up("replaying the journal up to batch " + std::to_string(seq) +
                   " does not give the running daemon's state: this is a bug, please keep a copy of the folder");
  }
  io::log_info("snapshot made", {{"seq", seq}, {"compared", expected_.has_value()}});
  const auto seqs = list_snapshots(options_.state_dir);
  for (std::size_t i = 0; i + kSnapshotsKept < seqs.size(); ++i) {
    (void)io::remove_tree(snapshot_path(options_.state_dir, seqs[i]));
  }
  Compaction compaction;
  // Without the newest one the older one and the journal after it must still hold everything.
  compaction.facts_upto = seqs.size() >= kSnapshotsKept ? seqs[seqs.size() - kSnapshotsKept] : 0;
  compaction.blobs_upto = seq;
  compaction.blobs_in_use = std::move(checked->blobs);
  journal_.compact(std::move(compaction));
}

void Snapshotter::give_up(const std::string& why) {
  io::log_error("a snapshot was not made", {{"seq", wanted_}, {"error", why}});
  const std::string path = snapshot_path(options_.state_dir, std::exchange(wanted_, 0));
  (void)io::remove_tree(path);
  (void)io::remove_tree(path + ".part");
}

}  // namespace muster::ctld

// The embedded store with real SQLite: what is committed comes back, and what is damaged is noticed.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "lib/io/log.h"
#include "tests/support/ctld_store.h"
#include "tests/support/slowness.h"
#include "tests/support/temp_dir.h"

namespace muster::testing {
namespace {

using muster::test::TempDir;
namespace fs = std::filesystem;

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}
void write_all(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}
void copy_dir(const std::string& from, const std::string& to) {
  fs::remove_all(to);
  fs::copy(from, to, fs::copy_options::recursive);
}

std::unique_ptr<StoreHarness> must_open(const std::string& dir) {
  auto harness = StoreHarness::open(dir);
  EXPECT_TRUE(harness.ok()) << (harness.ok() ? "" : harness.error().message);
  return harness.ok() ? std::move(*harness) : nullptr;
}

JobSpec array_job(const std::string& indices) {
  JobSpec spec = job(1, 1);
  spec.array = *parse_array_spec(indices);
  return spec;
}

void add(StoreHarness& store, AccountingKind kind, const std::string& name,
         const std::vector<AccountingSetting>& settings) {
  store.run(ChangeAccounting{
      .caller = {"root", true}, .kind = kind, .verb = AccountingVerb::kAdd, .name = name, .settings = settings});
}

// Some of everything: a node, an account that is charged, a job that ended, one that runs, two arrays, pending jobs.
void live(StoreHarness& store) {
  store.run(RegisterNode{registration("n1", hardware(4))});
  store.run(ConfigureBilling{{.cpu = 300, .half_life = Duration::from_s(3600)}});
  add(store, AccountingKind::kQos, "normal", {{"priority", "2"}, {"user.cpus", "64"}});
  add(store, AccountingKind::kAccount, "physics", {{"default_qos", "normal"}, {"shares", "3"}});
  add(store, AccountingKind::kUser, "alice", {{"account", "physics"}, {"jobs", "50"}});
  store.submit(job(1, 1), "#!/bin/sh\necho one\n");
  store.end_all("n1");
  const JobId array = store.submit(array_job("0-9"), "#!/bin/sh\necho array\n");
  store.end_all("n1");
  store.run(CancelJobs{{"alice", false}, JobSelector{{{array, true, {{9, 9, 1}}}}, "", "", "", {}}, 0});
  for (int i = 0; i < 20; ++i) {
    store.submit(job(1, 4), "#!/bin/sh\necho " + std::to_string(i) + "\n");
  }
}

TEST(Store, CommittedBatchesComeBackAsTheSameState) {
  const TempDir dir;
  io::Hash before{};
  {
    const auto store = must_open(dir.path());
    live(*store);
    EXPECT_FALSE(store->performed.empty());
    before = ctld::hash_state(store->pipeline->state());
  }
  const auto recovered = ctld::recover_all(dir.path());
  ASSERT_TRUE(recovered.ok()) << recovered.error().message;
  EXPECT_EQ(ctld::hash_state(recovered->state), before);
  EXPECT_TRUE(engine::check_invariants(recovered->state).empty());
  const auto again = must_open(dir.path());
  EXPECT_EQ(again->pipeline->state().term, Term{2});
  EXPECT_EQ(again->journal->idle(), true);
}

TEST(Store, SnapshotAndJournalGiveTheSameStateAsTheJournalAlone) {
  const TempDir dir;
  const auto store = must_open(dir.path());
  live(*store);
  const std::uint64_t seq = store->committed;
  ASSERT_TRUE(ctld::make_snapshot(dir.path(), seq - 5).ok());
  const auto whole = ctld::recover(dir.path(), UINT64_MAX);
  ASSERT_TRUE(whole.ok()) << whole.error().message;
  EXPECT_EQ(whole->snapshot_seq, seq - 5);
  EXPECT_EQ(whole->batches_replayed, 5U);
  EXPECT_EQ(ctld::hash_state(whole->state), ctld::hash_state(store->pipeline->state()));
  EXPECT_EQ(whole->state.pending, store->pipeline->state().pending);
  EXPECT_EQ(whole->state.ledger, store->pipeline->state().ledger);
  EXPECT_TRUE(engine::check_invariants(whole->state).empty());
}

TEST(Store, ADamagedSnapshotIsPassedOverWhileTheJournalHoldsEverything) {
  const TempDir dir;
  const auto store = must_open(dir.path());
  live(*store);
  ASSERT_TRUE(ctld::make_snapshot(dir.path(), store->committed).ok());
  const std::string path = ctld::snapshot_path(dir.path(), store->committed);
  std::string bytes = read_all(path);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  write_all(path, bytes);
  const auto recovered = ctld::recover(dir.path(), UINT64_MAX);
  ASSERT_TRUE(recovered.ok()) << recovered.error().message;
  EXPECT_EQ(recovered->snapshot_seq, 0U);
  EXPECT_EQ(ctld::hash_state(recovered->state), ctld::hash_state(store->pipeline->state()));
}

TEST(Store, CompactionForgetsOldBatchesAndUnusedBlobsOnly) {
  const TempDir dir;
  const auto store = must_open(dir.path());
  live(*store);
  const std::uint64_t older = store->committed - 10;
  const std::uint64_t newer = store->committed;
  ASSERT_TRUE(ctld::make_snapshot(dir.path(), older).ok());
  ASSERT_TRUE(ctld::make_snapshot(dir.path(), newer).ok());
  auto checked = ctld::check_snapshot(ctld::snapshot_path(dir.path(), newer));
  ASSERT_TRUE(checked.ok()) << checked.error().message;
  store->submit(job(1, 4), "#!/bin/sh\necho later\n");
  store->journal->compact({older, newer, checked->blobs});
  const std::string ended = "#!/bin/sh\necho one\n";
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30 * test::kSlowness);
  while (store->blob(ended).ok() && std::chrono::steady_clock::now() < deadline) {
    store->run(Tick{});
  }
  const auto gone = store->blob(ended);
  ASSERT_FALSE(gone.ok());
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(store->blob("#!/bin/sh\necho 7\n").ok());
  EXPECT_TRUE(store->blob("#!/bin/sh\necho later\n").ok());
  const auto reader = ctld::JournalReader::open(dir.path());
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ((*reader)->bounds()->first, older + 1);
  const auto recovered = ctld::recover(dir.path(), UINT64_MAX);
  ASSERT_TRUE(recovered.ok()) << recovered.error().message;
  EXPECT_EQ(ctld::hash_state(recovered->state), ctld::hash_state(store->pipeline->state()));
  // Without the newest snapshot the older one must do.
  fs::remove(ctld::snapshot_path(dir.path(), newer));
  const auto older_only = ctld::recover(dir.path(), UINT64_MAX);
  ASSERT_TRUE(older_only.ok()) << older_only.error().message;
  EXPECT_EQ(ctld::hash_state(older_only->state), ctld::hash_state(store->pipeline->state()));
  fs::remove(ctld::snapshot_path(dir.path(), older));
  const auto nothing = ctld::recover(dir.path(), UINT64_MAX);
  ASSERT_FALSE(nothing.ok());
  EXPECT_NE(nothing.error().message.find("begins at batch"), std::string::npos) << nothing.error().message;
}

TEST(Store, AttemptsThatWentBackToTheQueueAreShownWhenAskedFor) {
  const TempDir dir;
  const auto store = must_open(dir.path());
  store->run(RegisterNode{registration("n1", hardware(8))});
  const JobId id = store->submit(job(1, 1), "#!/bin/sh\necho again\n");
  JobSpec spec = job(1, 1);
  spec.array = ArraySpec{{{0, 3, 1}}, 0};
  const JobId array = store->submit(spec, "#!/bin/sh\necho array\n");
  const auto requeue = [&](JobId one) {
    JobSelector selector;
    selector.items.push_back({one, false, {}});
    const Attempt attempt = store->pipeline->state().jobs.at(one).attempt;
    store->run(RequeueJobs{{"alice", false}, selector});
    AttemptReport report{{one, attempt}, true, {}};
    report.outcome.cause = EndCause::kCancelled;
    store->run(ReportAttempts{"n1", {report}});
  };
  const JobId task{array.value + 1};
  requeue(id);
  requeue(task);
  EXPECT_TRUE(store->history({}).jobs.empty()) << "no job has ended";
  ctld::HistoryFilter with{.items = {{id, false, {}}, {array, true, {{1, 1, 1}}}}, .with_requeued = true};
  ASSERT_EQ(store->history(with).jobs.size(), 2U);
  for (int i = 0; i < 1'000 && !store->pipeline->state().jobs.at(id).is_active(); ++i) {
    store->pipeline->want_plan();
    store->run(Tick{});
  }
  store->end_all("n1");
  const auto end = store->history({.items = {{id, false, {}}}});
  ASSERT_EQ(end.jobs.size(), 1U);
  EXPECT_EQ(end.jobs[0].state, JobState::kCompleted);
  EXPECT_EQ(end.jobs[0].attempt, Attempt{2});
  const auto rows = store->history({.items = {{id, false, {}}}, .with_requeued = true});
  ASSERT_EQ(rows.jobs.size(), 2U);
  EXPECT_TRUE(rows.jobs[0].requeued);
  EXPECT_EQ(rows.jobs[0].state, JobState::kCancelled);
  EXPECT_EQ(store->history({.items = {{task, false, {}}}}).jobs.size(), 1U);
  EXPECT_EQ(store->history({.items = {{task, false, {}}}, .with_requeued = true}).jobs.size(), 2U);
}

TEST(Store, HistoryAnswersByIdArrayUserAndTime) {
  const TempDir dir;
  const auto store = must_open(dir.path());
  live(*store);
  const auto all = store->history({});
  ASSERT_GE(all.jobs.size(), 6U);
  EXPECT_FALSE(all.cut);
  EXPECT_EQ(all.jobs.front().id, JobId{1});

  const auto one = store->history({.items = {{JobId{1}, false, {}}}});
  ASSERT_EQ(one.jobs.size(), 1U);
  EXPECT_EQ(one.jobs[0].state, JobState::kCompleted);

  const auto array = store->history({.items = {{JobId{2}, false, {}}}});
  EXPECT_EQ(array.jobs.size(), all.jobs.size() - 1);
  const auto task = store->history({.items = {{JobId{2}, true, {{9, 9, 1}}}}});
  ASSERT_EQ(task.jobs.size(), 1U);
  EXPECT_EQ(task.jobs[0].id, JobId{11});
  EXPECT_EQ(task.jobs[0].state, JobState::kCancelled);
  const auto raw = store->history({.items = {{JobId{3}, false, {}}}});
  ASSERT_EQ(raw.jobs.size(), 1U);
  EXPECT_EQ(raw.jobs[0].array_position, 1U);

  EXPECT_EQ(store->history({.user = "bob"}).jobs.size(), 0U);
  EXPECT_EQ(store->history({.user = "alice"}).jobs.size(), all.jobs.size());
  EXPECT_EQ(store->history({.states = {JobState::kCancelled}}).jobs.size(), 1U);
  EXPECT_EQ(store->history({.since = all.jobs.back().end_time + Duration::from_us(1)}).jobs.size(), 0U);
  const auto limited = store->history({.limit = 2});
  EXPECT_TRUE(limited.cut);
  ASSERT_EQ(limited.jobs.size(), 2U);
  EXPECT_EQ(limited.jobs.back().id, all.jobs.back().id);
  EXPECT_EQ(store->history({.items = {{JobId{999}, false, {}}}}).jobs.size(), 0U);
}

TEST(Store, ACancelledArrayIsOneRowThatReadsAsItsTasks) {
  const TempDir dir;
  const auto store = must_open(dir.path());
  const JobId array = store->submit(array_job("10-1009"), "#!/bin/sh\n");
  store->run(CancelJobs{{"alice", false}, JobSelector{{{array, false, {}}}, "", "", "", {}}, 0});
  EXPECT_EQ(store->history({.items = {{array, false, {}}}}).jobs.size(), 1'000U);
  const auto some = store->history({.items = {{array, true, {{20, 22, 1}}}}});
  ASSERT_EQ(some.jobs.size(), 3U);
  const auto limited = store->history({.limit = 7});
  EXPECT_EQ(limited.jobs.size(), 7U);
  EXPECT_EQ(limited.jobs.back().array_position, 999U);
}

TEST(Store, RefusesWhatIsNoDatabaseOfThisCluster) {
  const TempDir dir;
  write_all(dir / "journal.db", std::string(8'192, 'x'));
  const auto garbage = StoreHarness::open(dir.path());
  ASSERT_FALSE(garbage.ok());
  EXPECT_EQ(garbage.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(garbage.error().message.find(dir / "journal.db"), std::string::npos) << garbage.error().message;
  fs::remove(dir / "journal.db");
  must_open(dir.path());
  const Status other = ctld::prepare_store(dir.path(), "another");
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().message.find("belongs to cluster 'test'"), std::string::npos) << other.error().message;
}

TEST(Store, ALostDatabaseIsNotBegunAnew) {
  const TempDir dir;
  {
    const auto store = must_open(dir.path());
    live(*store);
  }
  fs::remove(dir / "journal.db");
  fs::remove(dir / "journal.db-wal");
  const auto reopened = StoreHarness::open(dir.path());
  ASSERT_FALSE(reopened.ok());
  EXPECT_NE(reopened.error().message.find("is missing although"), std::string::npos) << reopened.error().message;
  EXPECT_FALSE(fs::exists(dir / "journal.db"));
}

// The folder as a crash leaves it: the WAL holds the newest batches. The harness is still open while it is copied.
class Damage : public ::testing::Test {
 protected:
  void SetUp() override {
    // Each damaged file is logged; hundreds of them would hide what matters.
    ASSERT_TRUE(io::log_init(io::LogLevel::kOff, "").ok());
    const auto store = must_open(dir_ / "live");
    live(*store);
    ASSERT_TRUE(ctld::make_snapshot(dir_ / "live", store->committed - 3).ok());
    copy_dir(dir_ / "live", dir_ / "crashed");
    hash_ = ctld::hash_state(store->pipeline->state());
    seq_ = store->committed;
    store->close();
    copy_dir(dir_ / "live", dir_ / "stopped");
  }
  Damage() { fs::create_directory(dir_ / "live"); }
  ~Damage() override { (void)io::log_init(io::LogLevel::kInfo, ""); }

  // Refused with the folder's name in one line, or the very same state.
  void check(const std::string& what) {
    const std::string at = dir_ / "damaged";
    const Status prepared = ctld::prepare_store(at, "test");
    const auto recovered = prepared.ok() ? ctld::recover_all(at) : Result<ctld::Recovered>(prepared.error());
    if (recovered.ok()) {
      ++harmless_;
      ASSERT_EQ(recovered->position.seq, seq_) << what;
      ASSERT_EQ(ctld::hash_state(recovered->state), hash_) << what;
    } else {
      ++refused_;
      ASSERT_NE(recovered.error().message.find(at), std::string::npos) << what << ": " << recovered.error().message;
      ASSERT_EQ(recovered.error().message.find('\n'), std::string::npos) << what << ": " << recovered.error().message;
    }
  }
  void flip(const std::string& from, const std::string& file, std::size_t step) {
    const std::string bytes = read_all(dir_ / (from + "/" + file));
    ASSERT_FALSE(bytes.empty()) << file;
    for (std::size_t i = 0; i < bytes.size(); i += i < 128 ? 3 : step) {
      copy_dir(dir_ / from, dir_ / "damaged");
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 8)));
      write_all(dir_ / ("damaged/" + file), changed);
      check(file + " with a bit flipped at " + std::to_string(i));
      if (HasFatalFailure()) {
        return;
      }
    }
  }
  void cut(const std::string& from, const std::string& file, std::size_t step) {
    const std::string bytes = read_all(dir_ / (from + "/" + file));
    for (std::size_t size = 0; size < bytes.size(); size += step) {
      copy_dir(dir_ / from, dir_ / "damaged");
      write_all(dir_ / ("damaged/" + file), bytes.substr(0, size));
      check(file + " cut to " + std::to_string(size));
      if (HasFatalFailure()) {
        return;
      }
    }
  }

  TempDir dir_;
  io::Hash hash_{};
  std::uint64_t seq_ = 0;
  int refused_ = 0;
  int harmless_ = 0;
};

TEST_F(Damage, FlippedBitsOfTheDatabaseAreRefusedOrHarmless) {
  flip("stopped", "journal.db", 397);
  EXPECT_GT(refused_, 10);
}
TEST_F(Damage, FlippedBitsOfTheWalAreRefusedOrHarmless) {
  flip("crashed", "journal.db-wal", 2'503);
  EXPECT_GT(refused_, 10);
}
TEST_F(Damage, FlippedBitsOfTheSnapshotAreHarmlessWhileTheJournalIsWhole) {
  flip("stopped", "snapshot-" + ctld::snapshot_path("", seq_ - 3).substr(10), 97);
  EXPECT_EQ(refused_, 0);
}
TEST_F(Damage, FlippedBitsOfTheHeadAreHarmless) {
  flip("stopped", "journal.head", 3);
  EXPECT_EQ(refused_, 0);
}
TEST_F(Damage, ATruncatedDatabaseIsRefused) {
  cut("stopped", "journal.db", 1'777);
  EXPECT_EQ(harmless_, 0);
}
TEST_F(Damage, ATruncatedWalIsNoticedThoughSqliteTakesItForAnEarlierEnd) {
  cut("crashed", "journal.db-wal", 7'001);
  EXPECT_EQ(harmless_, 0);
}
TEST_F(Damage, DamagedHistoryRowsAreLeftOutAndSaid) {
  copy_dir(dir_ / "stopped", dir_ / "damaged");
  std::string bytes = read_all(dir_ / "damaged/journal.db");
  // Work directories appear in the facts, in the records of history, and nowhere else; those of history stand last.
  const std::size_t at = bytes.rfind("alice");
  ASSERT_NE(at, std::string::npos);
  std::size_t changed = 0;
  for (std::size_t i = bytes.find("alice"); i != std::string::npos; i = bytes.find("alice", i + 1)) {
    std::string damaged = bytes;
    damaged[i] = 'A';
    write_all(dir_ / "damaged/journal.db", damaged);
    const auto store = StoreHarness::open(dir_ / "damaged");
    if (store.ok()) {
      changed += (*store)->history({}).damaged;
      (*store)->close();
    }
    copy_dir(dir_ / "stopped", dir_ / "damaged");
  }
  EXPECT_GT(changed, 0U);
}

TEST(Store, AFullDiskStopsTheDaemonAndNothingIsAcknowledged) {
  const TempDir dir;
  const auto store = must_open(dir.path());
  live(*store);
  // A limit on the file size stands for the full disk: writes fail in the same place.
  const std::uint64_t before = store->committed;
  struct Restore {
    ~Restore() { std::signal(SIGXFSZ, SIG_DFL); }
  } restore;
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit small = old;
  small.rlim_cur = fs::file_size(dir / "journal.db-wal") + 4'096;
  setrlimit(RLIMIT_FSIZE, &small);
  bool answered = false;
  auto decision = store->pipeline->execute(
      SubmitJob{{"alice", false}, RequestId{9, 9}, std::make_shared<const JobSpec>(job(1, 1))});
  store->pipeline->add_blob(digest_of("big"), std::string(1 << 20, 'b'));
  store->pipeline->after_commit([&] { answered = true; });
  store->loop.run_until([&] { return store->failed.has_value(); }, Duration::from_s(20 * test::kSlowness));
  setrlimit(RLIMIT_FSIZE, &old);
  ASSERT_TRUE(decision.ok());
  ASSERT_TRUE(store->failed.has_value());
  EXPECT_FALSE(answered);
  EXPECT_EQ(store->committed, before);
  EXPECT_NE(store->failed->message.find(dir / "journal.db"), std::string::npos) << store->failed->message;
  store->close();
  const auto recovered = ctld::recover_all(dir.path());
  ASSERT_TRUE(recovered.ok()) << recovered.error().message;
  EXPECT_EQ(recovered->position.seq, before);
}

}  // namespace
}  // namespace muster::testing

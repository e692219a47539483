#include "ctld/snapshot.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/files.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

constexpr std::string_view kMagic = "MUSTSNP1";
constexpr std::string_view kPrefix = "snapshot-";
constexpr std::string_view kPartSuffix = ".part";
constexpr std::size_t kPartHeaderBytes = 5;
constexpr std::size_t kEndBytes = 8 + 2 * io::kHashBytes;
constexpr std::size_t kDigestsPerPart = 30'000;

enum class PartKind : char {
  kHeader = 'h',
  kNodes = 'n',
  kNodeClasses = 'c',
  kArrays = 'a',
  kJobs = 'j',
  kRequests = 'r',
  kAccounts = 'q',
  kReservations = 'v',
  kDigests = 'd',
  kEnd = 'e',
};

Error corrupt(const std::string& path, const std::string& what) {
  return make_error(ErrorCode::kCorrupt, path + " is damaged: " + what);
}

std::string_view view_of(const io::Hash& hash) {
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}

io::Hash to_hash(std::string_view bytes) {
  io::Hash hash{};
  std::memcpy(hash.data(), bytes.data(), hash.size());
  return hash;
}

void put_le(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) {
    out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  }
}
std::uint64_t get_le(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return value;
}

std::string frame(PartKind kind, std::string_view bytes) {
  std::string out;
  out.reserve(kPartHeaderBytes + bytes.size());
  out.push_back(static_cast<char>(kind));
  put_le(out, bytes.size(), 4);
  out += bytes;
  return out;
}

// ---------------------------------------------------------------- writing

using Sink = std::function<Status(std::string_view)>;

// Gives out framed parts of at most kSnapshotRecordsPerPart records.
class PartWriter {
 public:
  PartWriter(PartKind kind, const Sink& sink) : kind_(kind), sink_(sink) {}
  pb::SnapshotPart& part() { return part_; }
  Status added() { return ++records_ >= kSnapshotRecordsPerPart ? flush() : ok_status(); }
  Status flush() {
    if (records_ == 0) {
      return ok_status();
    }
    const Status status = sink_(frame(kind_, part_.SerializeAsString()));
    part_.Clear();
    records_ = 0;
    return status;
  }

 private:
  PartKind kind_;
  const Sink& sink_;
  pb::SnapshotPart part_;
  std::size_t records_ = 0;
};

Status encode_jobs(const engine::State& state, const Sink& sink) {
  PartWriter arrays(PartKind::kArrays, sink);
  for (const auto& [id, job] : state.arrays) {
    wire::to_pb(job, true, *arrays.part().add_jobs());
    MUSTER_TRY(arrays.added());
  }
  MUSTER_TRY(arrays.flush());
  PartWriter jobs(PartKind::kJobs, sink);
  for (const auto& [id, job] : state.jobs) {
    const Job* array = job.array.value != 0 ? engine::find_array(state, job.array) : nullptr;
    wire::to_pb(job, array == nullptr || array->spec != job.spec, *jobs.part().add_jobs());
    MUSTER_TRY(jobs.added());
  }
  return jobs.flush();
}

// Nothing at all where accounting was never used.
Status encode_accounts(const engine::State& state, const Sink& sink) {
  const sched::Accounts& accounts = state.accounts;
  PartWriter parts(PartKind::kAccounts, sink);
  if (accounts.billing() != BillingRules{}) {
    wire::to_pb(accounts.billing(), *parts.part().mutable_billing());
    MUSTER_TRY(parts.added());
  }
  for (const auto& [name, account] : accounts.accounts()) {
    wire::to_pb(account, *parts.part().add_accounts());
    MUSTER_TRY(parts.added());
  }
  for (const auto& [name, user] : accounts.users()) {
    wire::to_pb(user, *parts.part().add_users());
    MUSTER_TRY(parts.added());
  }
  for (const auto& [name, qos] : accounts.all_qos()) {
    wire::to_pb(qos, *parts.part().add_qos());
    MUSTER_TRY(parts.added());
  }
  for (const UsageRecord& record : accounts.usage_records()) {
    wire::to_pb(record, *parts.part().add_usage());
    MUSTER_TRY(parts.added());
  }
  return parts.flush();
}

Status encode_state(const engine::State& state, const Sink& sink) {
  pb::SnapshotPart header;
  header.set_term(state.term.value);
  header.set_now_us(state.now.us);
  header.set_next_job(state.next_job.value);
  for (const auto& [key, value] : state.settings) {
    pb::Setting& out = *header.add_settings();
    out.set_key(key);
    out.set_value(value);
  }
  MUSTER_TRY(sink(frame(PartKind::kHeader, header.SerializeAsString())));
  PartWriter nodes(PartKind::kNodes, sink);
  for (const auto& node : state.nodes) {
    wire::to_pb(node, *nodes.part().add_nodes());
    MUSTER_TRY(nodes.added());
  }
  MUSTER_TRY(nodes.flush());
  PartWriter classes(PartKind::kNodeClasses, sink);
  for (const auto& [hash, node_class] : state.node_classes) {
    wire::to_pb(NodeClassAdded{.hash = hash, .topology = node_class.get()->topology()},
                *classes.part().add_node_classes());
    MUSTER_TRY(classes.added());
  }
  MUSTER_TRY(classes.flush());
  MUSTER_TRY(encode_jobs(state, sink));
  PartWriter requests(PartKind::kRequests, sink);
  for (const auto& [id, known] : state.requests) {
    auto& out = *requests.part().add_requests();
    out.mutable_request()->set_high(id.high);
    out.mutable_request()->set_low(id.low);
    out.set_job(known.job.value);
    out.set_at_us(known.at.us);
    MUSTER_TRY(requests.added());
  }
  MUSTER_TRY(requests.flush());
  PartWriter reservations(PartKind::kReservations, sink);
  for (const auto& [name, reservation] : state.reservations) {
    wire::to_pb(reservation, *reservations.part().add_reservations());
    MUSTER_TRY(reservations.added());
  }
  MUSTER_TRY(reservations.flush());
  return encode_accounts(state, sink);
}

std::vector<Digest> digests_of(const engine::State& state) {
  std::vector<Digest> digests;
  const auto add = [&](const Job& job) {
    for (const Digest& digest : {job.spec->script, job.spec->environment}) {
      if (digest.is_set() && (digests.empty() || digests.back() != digest)) {
        digests.push_back(digest);
      }
    }
  };
  for (const auto& [id, job] : state.arrays) {
    add(job);
  }
  for (const auto& [id, job] : state.jobs) {
    add(job);
  }
  std::sort(digests.begin(), digests.end());
  digests.erase(std::unique(digests.begin(), digests.end()), digests.end());
  return digests;
}

// The file while it is written; removed again unless it was finished.
class SnapshotFile {
 public:
  explicit SnapshotFile(std::string path) : path_(std::move(path)), part_path_(path_ + std::string(kPartSuffix)) {}
  SnapshotFile(const SnapshotFile&) = delete;
  SnapshotFile& operator=(const SnapshotFile&) = delete;
  ~SnapshotFile() {
    if (file_ != nullptr) {
      std::fclose(file_);
      unlink(part_path_.c_str());
    }
  }

  Status open() {
    const int fd = ::open(part_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    file_ = fd >= 0 ? fdopen(fd, "w") : nullptr;
    return file_ != nullptr ? ok_status() : Status(io::errno_error("create", part_path_, errno));
  }
  Status write(std::string_view bytes) {
    hasher_.update(bytes);
    return write_raw(bytes);
  }
  // The hash, the sync, the name.
  Status finish() {
    MUSTER_TRY(write_raw(view_of(hasher_.finish())));
    if (std::fflush(file_) != 0 || fsync(fileno(file_)) != 0) {
      return io::errno_error("sync", part_path_, errno);
    }
    if (std::rename(part_path_.c_str(), path_.c_str()) != 0) {
      return io::errno_error("rename", part_path_, errno);
    }
    std::fclose(std::exchange(file_, nullptr));
    const std::string folder = path_.substr(0, path_.rfind('/'));
    const io::Fd dir(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return dir.valid() && fsync(dir.get()) == 0 ? ok_status() : Status(io::errno_error("sync", folder, errno));
  }

 private:
  Status write_raw(std::string_view bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) {
      return io::errno_error("write", part_path_, errno);
    }
    return ok_status();
  }
  std::string path_;
  std::string part_path_;
  std::FILE* file_ = nullptr;
  io::Hasher hasher_;
};

// ---------------------------------------------------------------- reading

struct Part {
  PartKind kind = PartKind::kEnd;
  std::string bytes;
};

// Parts of a file, one after another; checks lengths against what the file still has before it allocates.
class SnapshotReader {
 public:
  explicit SnapshotReader(std::string path) : path_(std::move(path)) {}

  Status open() {
    fd_.reset(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info {};
    if (!fd_.valid() || fstat(fd_.get(), &info) != 0) {
      return io::errno_error("open", path_, errno);
    }
    left_ = static_cast<std::uint64_t>(info.st_size);
    if (left_ < kMagic.size() + kPartHeaderBytes + kEndBytes + io::kHashBytes) {
      return corrupt(path_, "it is too short");
    }
    left_ -= io::kHashBytes;
    MUSTER_ASSIGN(const std::string magic, read(kMagic.size()));
    return magic == kMagic ? ok_status() : Status(corrupt(path_, "it does not begin as a snapshot does"));
  }

  // The next part; after the end part the file's hash has been checked.
  Result<Part> next() {
    MUSTER_ASSIGN(const std::string header, read(kPartHeaderBytes));
    Part part;
    part.kind = static_cast<PartKind>(header[0]);
    const std::uint64_t length = get_le(std::string_view(header).substr(1));
    if (length > kSnapshotPartBytesMax || length > left_) {
      return corrupt(path_, "a part is longer than the file");
    }
    MUSTER_ASSIGN(part.bytes, read(length));
    if (is_state(part.kind)) {
      state_hasher_.update(header);
      state_hasher_.update(part.bytes);
    } else if (part.kind == PartKind::kEnd) {
      MUSTER_TRY(finish(part));
    } else if (part.kind != PartKind::kDigests) {
      return corrupt(path_, "it has a part of unknown kind");
    }
    return part;
  }

  [[nodiscard]] const SnapshotInfo& info() const { return info_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  static bool is_state(PartKind kind) {
    return kind == PartKind::kHeader || kind == PartKind::kNodes || kind == PartKind::kArrays ||
           kind == PartKind::kJobs || kind == PartKind::kRequests || kind == PartKind::kAccounts ||
           kind == PartKind::kReservations || kind == PartKind::kNodeClasses;
  }

  Status finish(const Part& part) {
    if (part.bytes.size() != kEndBytes || left_ != 0) {
      return corrupt(path_, "its end is not where it should be");
    }
    const io::Hash expected = hasher_.finish();
    left_ = io::kHashBytes;
    MUSTER_ASSIGN(const std::string stored, read_raw(io::kHashBytes));
    if (stored != view_of(expected)) {
      return corrupt(path_, "its hash does not fit");
    }
    const std::string_view bytes(part.bytes);
    info_.position.seq = get_le(bytes.substr(0, 8));
    info_.position.chain = to_hash(bytes.substr(8, io::kHashBytes));
    info_.state_hash = to_hash(bytes.substr(8 + io::kHashBytes));
    if (state_hasher_.finish() != info_.state_hash) {
      return corrupt(path_, "the hash of its state does not fit");
    }
    return ok_status();
  }

  Result<std::string> read(std::uint64_t size) {
    auto bytes = read_raw(size);
    if (bytes.ok()) {
      hasher_.update(*bytes);
    }
    return bytes;
  }
  Result<std::string> read_raw(std::uint64_t size) {
    if (size > left_) {
      return corrupt(path_, "it ends too early");
    }
    std::string bytes(size, '\0');
    std::size_t done = 0;
    while (done < size) {
      const ssize_t n = ::read(fd_.get(), bytes.data() + done, size - done);
      if (n == 0) {
        return corrupt(path_, "it ends too early");
      }
      if (n < 0) {
        if (errno == EINTR) {
          continue;
        }
        return io::errno_error("read", path_, errno);
      }
      done += static_cast<std::size_t>(n);
    }
    left_ -= size;
    return bytes;
  }

  std::string path_;
  io::Fd fd_;
  std::uint64_t left_ = 0;
  io::Hasher hasher_;
  io::Hasher state_hasher_;
  SnapshotInfo info_;
};

// What one part says, decoded by a worker.
struct Decoded {
  PartKind kind = PartKind::kEnd;
  Term term;
  Instant now;
  JobId next_job;
  std::map<std::string, std::string> settings;
  std::vector<Node> nodes;
  std::vector<NodeClassAdded> node_classes;
  std::vector<Job> jobs;
  std::vector<std::pair<RequestId, engine::KnownRequest>> requests;
  std::vector<Account> accounts;
  std::vector<User> users;
  std::vector<Qos> qos;
  std::vector<UsageRecord> usage;
  std::optional<BillingRules> billing;
  std::vector<Reservation> reservations;
};

template <typename Message, typename Value>
Status decode_each(const Message& in, std::vector<Value>& out) {
  for (const auto& each : in) {
    MUSTER_ASSIGN(Value value, wire::from_pb(each));
    out.push_back(std::move(value));
  }
  return ok_status();
}

Result<Decoded> decode_part(const Part& part, const std::map<JobId, Job>& arrays) {
  google::protobuf::Arena arena;
  auto& message = *google::protobuf::Arena::CreateMessage<pb::SnapshotPart>(&arena);
  if (!message.ParseFromArray(part.bytes.data(), static_cast<int>(part.bytes.size()))) {
    return make_error(ErrorCode::kCorrupt, "a part is no message");
  }
  Decoded out;
  out.kind = part.kind;
  out.term = Term(message.term());
  out.now = Instant::from_us(message.now_us());
  out.next_job = JobId(message.next_job());
  for (const auto& in : message.settings()) {
    out.settings.emplace(in.key(), in.value());
  }
  for (const auto& in : message.nodes()) {
    MUSTER_ASSIGN(Node node, wire::from_pb(in));
    out.nodes.push_back(std::move(node));
  }
  MUSTER_TRY(decode_each(message.node_classes(), out.node_classes));
  out.jobs.reserve(static_cast<std::size_t>(message.jobs_size()));
  for (const auto& in : message.jobs()) {
    JobSpecPtr array_spec;
    if (in.spec_of_array()) {
      const auto array = arrays.find(JobId(in.array()));
      if (array == arrays.end()) {
        return make_error(ErrorCode::kCorrupt, "task " + std::to_string(in.id()) + " has no array");
      }
      array_spec = array->second.spec;
    }
    MUSTER_ASSIGN(Job job, wire::from_pb(in, array_spec));
    out.jobs.push_back(std::move(job));
  }
  for (const auto& in : message.requests()) {
    out.requests.emplace_back(RequestId{in.request().high(), in.request().low()},
                              engine::KnownRequest{Instant::from_us(in.at_us()), JobId(in.job())});
  }
  MUSTER_TRY(decode_each(message.accounts(), out.accounts));
  MUSTER_TRY(decode_each(message.users(), out.users));
  MUSTER_TRY(decode_each(message.qos(), out.qos));
  MUSTER_TRY(decode_each(message.usage(), out.usage));
  if (message.has_billing()) {
    MUSTER_ASSIGN(out.billing, wire::from_pb(message.billing()));
  }
  for (const auto& in : message.reservations()) {
    MUSTER_ASSIGN(Reservation reservation, wire::from_pb(in));
    out.reservations.push_back(std::move(reservation));
  }
  return out;
}

void merge(Decoded&& part, engine::State& state) {
  if (part.kind == PartKind::kHeader) {
    state.term = part.term;
    state.now = part.now;
    state.next_job = part.next_job;
    state.settings = std::move(part.settings);
  }
  for (auto& node : part.nodes) {
    state.nodes.push_back(std::move(node));
  }
  for (const auto& each : part.node_classes) {
    if (check_node_topology(each.topology).empty()) {
      state.node_classes.emplace_hint(state.node_classes.end(), each.hash, topo::SharedClass(each.topology));
    }
  }
  auto& records = part.kind == PartKind::kArrays ? state.arrays : state.jobs;
  for (auto& job : part.jobs) {
    const JobId id = job.id;
    records.emplace_hint(records.end(), id, std::move(job));
  }
  for (auto& [id, known] : part.requests) {
    state.requests.emplace_hint(state.requests.end(), id, known);
  }
  for (auto& account : part.accounts) {
    state.accounts.load(std::move(account));
  }
  for (auto& user : part.users) {
    state.accounts.load(std::move(user));
  }
  for (auto& qos : part.qos) {
    state.accounts.load(std::move(qos));
  }
  for (const auto& record : part.usage) {
    state.accounts.load(record);
  }
  if (part.billing) {
    state.accounts.load(*part.billing);
  }
  for (auto& reservation : part.reservations) {
    std::string name = reservation.name;
    state.reservations.emplace_hint(state.reservations.end(), std::move(name), std::move(reservation));
  }
}

// Two parts are decoded while a third is read: the start of a full controller is bound by this.
class Loader {
 public:
  static constexpr std::size_t kAhead = 3;

  explicit Loader(engine::State& state) : state_(state) {}

  Status add(Part part) {
    // Jobs refer to the array records, which must be in place before another thread looks at them.
    if (part.kind != last_kind_) {
      MUSTER_TRY(drain(0));
    }
    last_kind_ = part.kind;
    queue_.push_back(std::async(std::launch::async, [part = std::move(part), &arrays = std::as_const(state_.arrays)] {
      static const std::map<JobId, Job> none;
      return decode_part(part, part.kind == PartKind::kJobs ? arrays : none);
    }));
    return drain(kAhead);
  }
  Status drain(std::size_t keep) {
    while (queue_.size() > keep) {
      auto decoded = queue_.front().get();
      queue_.pop_front();
      if (!decoded.ok()) {
        return decoded.error();
      }
      merge(std::move(*decoded), state_);
    }
    return ok_status();
  }

 private:
  engine::State& state_;
  PartKind last_kind_ = PartKind::kHeader;
  std::deque<std::future<Result<Decoded>>> queue_;
};

// Nodes are found by their place in the list; a share that names another would be read outside of it.
Status check_references(const engine::State& state) {
  for (std::size_t i = 0; i < state.nodes.size(); ++i) {
    if (state.nodes[i].index.value != i) {
      return make_error(ErrorCode::kCorrupt, "its nodes are not in order");
    }
  }
  for (const auto& [id, job] : state.jobs) {
    if (const auto* active = std::get_if<Active>(&job.phase)) {
      for (const auto& on : active->nodes) {
        if (on.share.node.value >= state.nodes.size()) {
          return make_error(ErrorCode::kCorrupt, "job " + std::to_string(id.value) + " runs on an unknown node");
        }
      }
    }
  }
  return ok_status();
}

}  // namespace

std::string snapshot_path(const std::string& state_dir, std::uint64_t seq) {
  std::string digits = std::to_string(seq);
  digits.insert(0, 20 - digits.size(), '0');
  return state_dir + "/" + std::string(kPrefix) + digits;
}

std::vector<std::uint64_t> list_snapshots(const std::string& state_dir) {
  std::vector<std::uint64_t> seqs;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(state_dir.c_str()), &closedir);
  if (!dir) {
    return seqs;
  }
  while (const dirent* entry = readdir(dir.get())) {
    const std::string_view name(entry->d_name);
    if (name.substr(0, kPrefix.size()) != kPrefix || name.size() != kPrefix.size() + 20) {
      continue;
    }
    if (const auto seq = parse_count(name.substr(kPrefix.size()), "snapshot"); seq.ok()) {
      seqs.push_back(*seq);
    }
  }
  std::sort(seqs.begin(), seqs.end());
  return seqs;
}

void remove_partial_snapshots(const std::string& state_dir) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(state_dir.c_str()), &closedir);
  while (const dirent* entry = dir ? readdir(dir.get()) : nullptr) {
    const std::string_view name(entry->d_name);
    if (name.substr(0, kPrefix.size()) == kPrefix && name.size() > kPartSuffix.size() &&
        name.substr(name.size() - kPartSuffix.size()) == kPartSuffix) {
      unlink((state_dir + "/" + std::string(name)).c_str());
    }
  }
}

io::Hash hash_state(const engine::State& state) {
  io::Hasher hasher;
  const Status status = encode_state(state, [&](std::string_view part) {
    hasher.update(part);
    return ok_status();
  });
  MUSTER_CHECK(status.ok());
  return hasher.finish();
}

Result<SnapshotInfo> write_snapshot(const std::string& state_dir, const engine::State& state,
                                    const JournalPosition& position) {
  SnapshotFile file(snapshot_path(state_dir, position.seq));
  MUSTER_TRY(file.open());
  MUSTER_TRY(file.write(kMagic));
  io::Hasher state_hasher;
  MUSTER_TRY(encode_state(state, [&](std::string_view part) {
    state_hasher.update(part);
    return file.write(part);
  }));
  const auto digests = digests_of(state);
  for (std::size_t i = 0; i < digests.size(); i += kDigestsPerPart) {
    std::string bytes;
    for (std::size_t k = i; k < std::min(digests.size(), i + kDigestsPerPart); ++k) {
      bytes.append(reinterpret_cast<const char*>(digests[k].bytes.data()), digests[k].bytes.size());
    }
    MUSTER_TRY(file.write(frame(PartKind::kDigests, bytes)));
  }
  SnapshotInfo info{position, state_hasher.finish()};
  std::string end;
  put_le(end, position.seq, 8);
  end += view_of(position.chain);
  end += view_of(info.state_hash);
  MUSTER_TRY(file.write(frame(PartKind::kEnd, end)));
  MUSTER_TRY(file.finish());
  return info;
}

Result<LoadedSnapshot> load_snapshot(const std::string& path) {
  SnapshotReader reader(path);
  MUSTER_TRY(reader.open());
  LoadedSnapshot loaded;
  Loader loader(loaded.state);
  for (;;) {
    MUSTER_ASSIGN(Part part, reader.next());
    if (part.kind == PartKind::kEnd) {
      break;
    }
    if (part.kind == PartKind::kDigests) {
      continue;
    }
    if (const Status status = loader.add(std::move(part)); !status.ok()) {
      return corrupt(path, status.error().message);
    }
  }
  Status status = loader.drain(0);
  if (status.ok()) {
    status = check_references(loaded.state);
  }
  if (!status.ok()) {
    return corrupt(path, status.error().message);
  }
  loaded.info = reader.info();
  engine::rebuild_indexes(loaded.state);
  return loaded;
}

Result<CheckedSnapshot> check_snapshot(const std::string& path) {
  SnapshotReader reader(path);
  MUSTER_TRY(reader.open());
  CheckedSnapshot checked;
  for (;;) {
    MUSTER_ASSIGN(const Part part, reader.next());
    if (part.kind == PartKind::kEnd) {
      break;
    }
    if (part.kind == PartKind::kDigests) {
      for (std::size_t i = 0; i + io::kHashBytes <= part.bytes.size(); i += io::kHashBytes) {
        checked.blobs.push_back(Digest{to_hash(std::string_view(part.bytes).substr(i, io::kHashBytes))});
      }
    }
  }
  checked.info = reader.info();
  return checked;
}

}  // namespace muster::ctld

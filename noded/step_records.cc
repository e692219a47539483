#include "noded/step_records.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "lib/base/text.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"
#include "lib/io/log.h"

namespace muster::noded {
namespace {

constexpr std::string_view kMagic = "MUSS1";
constexpr std::string_view kPrefix = "step.";
// A record names each node of the step once.
constexpr std::size_t kRecordBytesMax = 16U << 20U;

// In one write, so that what a killed daemon leaves is all of it or nothing; what a full disk leaves is for the caller.
Status write_at_end(const std::string& path, int flags, const std::string& text) {
  const io::Fd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0600));
  if (!fd.valid()) {
    return io::errno_error("open", path, errno);
  }
  const ssize_t n = ::write(fd.get(), text.data(), text.size());
  if (n != static_cast<ssize_t>(text.size())) {
    return io::errno_error("write", path, n < 0 ? errno : ENOSPC);
  }
  return ok_status();
}

// "0-3,7"; "-" for none.
std::string indices_text(const IndexSet& set) {
  return set.empty() ? "-" : set.to_string();
}
Result<IndexSet> indices_of(std::string_view text) {
  return text == "-" ? Result<IndexSet>(IndexSet()) : IndexSet::parse(text);
}

std::string end_line(std::int32_t exit_code) {
  return "ended " + std::to_string(exit_code) + "\n";
}

std::optional<std::uint32_t> number_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) {
    return std::nullopt;
  }
  name.remove_prefix(kPrefix.size());
  std::uint32_t number = 0;
  const auto [rest, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || rest != name.data() + name.size()) {
    return std::nullopt;
  }
  return number;
}

}  // namespace

std::string encode_step_record(const StepRecord& record) {
  std::string text(kMagic);
  text += "\nclient " + record.client_key + " " + io::to_hex(record.stream) + " " +
          std::to_string(record.nodes.size()) + "\n";
  if (record.sharing != StepSharing::kWhole) {
    text += "sharing " + std::to_string(static_cast<unsigned>(record.sharing)) + "\n";
  }
  for (const StepRecord::Node& node : record.nodes) {
    text += "node " + node.name + " " + std::to_string(node.tasks);
    if (!node.cores.empty() || !node.gpus.empty()) {
      text += " " + indices_text(node.cores) + " " + indices_text(node.gpus);
    }
    text += "\n";
  }
  if (record.exit_code) {
    text += end_line(*record.exit_code);
  }
  return text;
}

Result<StepRecord> decode_step_record(std::string_view text) {
  const Error damaged = make_error(ErrorCode::kCorrupt, "the record of a step is damaged");
  StepRecord record;
  auto lines = split(text, '\n');
  lines.pop_back();  // empty, or a line that was cut
  if (lines.empty() || lines[0] != kMagic) {
    return damaged;
  }
  std::uint64_t nodes = 0;
  for (const std::string_view line : lines) {
    const auto words = split(line, ' ');
    if (words[0] == "client" && words.size() == 4) {
      record.client_key = std::string(words[1]);
      MUSTER_ASSIGN(record.stream, io::from_hex(words[2]));
      MUSTER_ASSIGN(nodes, parse_count(words[3], "nodes"));
    } else if (words[0] == "node" && (words.size() == 3 || words.size() == 5)) {
      MUSTER_ASSIGN(const std::uint64_t tasks, parse_count(words[2], "tasks", {.min = 1, .max = UINT32_MAX}));
      StepRecord::Node node{.name = std::string(words[1]), .tasks = static_cast<std::uint32_t>(tasks)};
      if (words.size() == 5) {
        MUSTER_ASSIGN(node.cores, indices_of(words[3]));
        MUSTER_ASSIGN(node.gpus, indices_of(words[4]));
      }
      record.nodes.push_back(std::move(node));
    } else if (words[0] == "sharing" && words.size() == 2) {
      MUSTER_ASSIGN(const std::uint64_t sharing,
                    parse_count(words[1], "sharing", {.min = 0, .max = static_cast<std::uint64_t>(kStepSharingLast)}));
      record.sharing = static_cast<StepSharing>(sharing);
    } else if (words[0] == "ended" && words.size() == 2) {
      MUSTER_ASSIGN(const std::int64_t code, parse_integer(words[1], "exit code", INT32_MIN, INT32_MAX));
      record.exit_code = static_cast<std::int32_t>(code);
    }
  }
  if (record.client_key.empty() || record.stream.empty() || nodes == 0 || record.nodes.size() != nodes) {
    return damaged;
  }
  return record;
}

Result<StepRecords> StepRecords::load(const std::string& directory) {
  StepRecords records(directory);
  DIR* dir = ::opendir(directory.c_str());
  if (dir == nullptr) {
    return io::errno_error("read folder", directory, errno);
  }
  std::vector<std::uint32_t> numbers;
  while (const dirent* entry = ::readdir(dir)) {
    if (const auto number = number_of(entry->d_name)) {
      numbers.push_back(*number);
    }
  }
  ::closedir(dir);
  std::sort(numbers.begin(), numbers.end());
  for (const std::uint32_t number : numbers) {
    records.next_ = number + 1;  // also when nothing can be read
    const Result<std::string> text = io::read_file(records.path_of(number), kRecordBytesMax);
    Result<StepRecord> record = text ? decode_step_record(*text) : Result<StepRecord>(text.error());
    if (!record) {
      io::log_warning("the record of a step cannot be read",
                      {{"path", records.path_of(number)}, {"error", record.error().message}});
      continue;
    }
    record->step = number;
    records.remember(std::move(*record));
  }
  return records;
}

std::string StepRecords::path_of(std::uint32_t step) const {
  return directory_ + "/" + std::string(kPrefix) + std::to_string(step);
}

void StepRecords::remember(StepRecord record) {
  const std::uint32_t step = record.step;
  by_client_[{record.client_key, record.stream}] = step;
  if (record.exit_code) {
    ended_.push_back(step);
  }
  records_[step] = std::move(record);
}

const StepRecord* StepRecords::find(const std::string& client_key, const std::string& stream) const {
  const auto it = by_client_.find({client_key, stream});
  return it == by_client_.end() ? nullptr : find(it->second);
}

const StepRecord* StepRecords::find(std::uint32_t step) const {
  const auto it = records_.find(step);
  return it == records_.end() ? nullptr : &it->second;
}

std::vector<const StepRecord*> StepRecords::running() const {
  std::vector<const StepRecord*> out;
  for (const auto& [step, record] : records_) {
    if (!record.exit_code) {
      out.push_back(&record);
    }
  }
  return out;
}

Result<std::uint32_t> StepRecords::add(StepRecord record) {
  if (next_ >= UINT32_MAX - 2) {
    return make_error(ErrorCode::kLimitReached, "the job has had as many steps as it may: submit another job");
  }
  record.step = next_;
  const std::string path = path_of(next_);
  if (const Status written = write_at_end(path, O_CREAT | O_EXCL, encode_step_record(record)); !written) {
    if (written.error().code != ErrorCode::kAlreadyExists) {
      (void)::unlink(path.c_str());
    }
    return written.error();
  }
  remember(std::move(record));
  return next_++;
}

Status StepRecords::end(std::uint32_t step, std::int32_t exit_code) {
  const auto it = records_.find(step);
  if (it == records_.end() || it->second.exit_code) {
    return ok_status();
  }
  it->second.exit_code = exit_code;
  const Status written = write_at_end(path_of(step), 0, end_line(exit_code));
  ended_.push_back(step);
  while (ended_.size() > kEndedMax) {
    const auto oldest = records_.find(ended_.front());
    ended_.pop_front();
    by_client_.erase({oldest->second.client_key, oldest->second.stream});
    (void)::unlink(path_of(oldest->first).c_str());
    records_.erase(oldest);
  }
  return written;
}

}  // namespace muster::noded

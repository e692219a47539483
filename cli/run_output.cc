#include "cli/run_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "lib/model/patterns.h"
#include "lib/model/step_ranks.h"

namespace muster::cli {
namespace {

// An incomplete line longer than this goes out as it is.
constexpr std::size_t kLineMax = 64U << 10U;
// A reader that has more than this to take gets no credit for more.
constexpr std::size_t kWaitingMax = 64U << 10U;
// What a pipe takes at once when poll says that it takes something (PIPE_BUF), so that the write cannot block; the
// descriptor itself is shared with others and stays blocking.
constexpr std::size_t kPipeWrite = 4096;
constexpr std::size_t kFileWrite = 1U << 20U;

}  // namespace

struct OutputRouter::Sink {
  int fd = -1;
  io::Fd owned;
  std::string name;  // for errors
  int error = 0;     // errno of a write that failed, until it was told
  bool pollable = true;
  bool failed = false;
  std::string waiting;
  std::size_t begin = 0;

  [[nodiscard]] std::size_t size() const { return waiting.size() - begin; }

  void append(std::string_view text) {
    if (failed) {
      return;
    }
    if (begin > (1U << 20U) || begin == waiting.size()) {
      waiting.erase(0, begin);
      begin = 0;
    }
    waiting += text;
  }

  // One write; false when nothing more can go now.
  bool write_some(bool may_block) {
    if (failed || size() == 0) {
      return false;
    }
    if (pollable && !may_block) {
      pollfd poll_fd{fd, POLLOUT, 0};
      if (::poll(&poll_fd, 1, 0) <= 0) {
        return false;
      }
    }
    const ssize_t n = ::write(fd, waiting.data() + begin, std::min(size(), pollable ? kPipeWrite : kFileWrite));
    if (n < 0) {
      if (errno == EINTR) {
        return true;
      }
      if (errno == EAGAIN) {  // somebody else made it non-blocking
        if (may_block) {
          pollfd poll_fd{fd, POLLOUT, 0};
          (void)::poll(&poll_fd, 1, 1000);
          return true;
        }
        return false;
      }
      failed = true;
      error = errno;
      waiting.clear();
      begin = 0;
      return false;
    }
    begin += static_cast<std::size_t>(n);
    return true;
  }
};

OutputRouter::OutputRouter() = default;
OutputRouter::~OutputRouter() = default;

Result<std::unique_ptr<OutputRouter>> OutputRouter::make(const OutputOptions& options) {
  std::unique_ptr<OutputRouter> router(new OutputRouter());
  std::uint32_t ranks = 0;
  for (const std::uint32_t tasks : options.tasks) {
    ranks += tasks;
  }
  router->label_ = options.label;
  router->lines_ = options.label || (ranks > 1 && !options.unbuffered);
  router->width_ = std::to_string(ranks > 0 ? ranks - 1 : 0).size();

  std::map<std::string, std::size_t> files;
  const auto open_file = [&](const std::string& path) -> Result<std::size_t> {
    if (const auto it = files.find(path); it != files.end()) {
      return it->second;
    }
    const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (options.append ? O_APPEND : O_TRUNC);
    auto sink = std::make_unique<Sink>();
    sink->owned.reset(::open(path.c_str(), flags, 0666));
    if (!sink->owned.valid()) {
      return io::errno_error("open the output file", path, errno);
    }
    sink->fd = sink->owned.get();
    sink->name = path;
    struct stat status {};
    sink->pollable = ::fstat(sink->fd, &status) == 0 && !S_ISREG(status.st_mode);
    router->sinks_.push_back(std::move(sink));
    files[path] = router->sinks_.size() - 1;
    return router->sinks_.size() - 1;
  };
  std::size_t standard[2] = {SIZE_MAX, SIZE_MAX};
  const auto open_standard = [&](int stream) -> std::size_t {
    std::size_t& index = standard[stream - 1];
    if (index == SIZE_MAX) {
      auto sink = std::make_unique<Sink>();
      sink->fd = stream;
      sink->name = stream == STDOUT_FILENO ? "standard output" : "standard error";
      struct stat status {};
      sink->pollable = ::fstat(stream, &status) == 0 && !S_ISREG(status.st_mode);
      router->sinks_.push_back(std::move(sink));
      index = router->sinks_.size() - 1;
    }
    return index;
  };

  router->by_rank_[0].resize(ranks);
  router->by_rank_[1].resize(ranks);
  const std::vector<std::vector<std::uint32_t>> dealt = deal_ranks(options.tasks, options.rank_plane);
  for (std::size_t node = 0; node < dealt.size(); ++node) {
    for (const std::uint32_t rank : dealt[node]) {
      const PatternValues values{.job = JobId(options.job),
                                 .array = JobId(options.job),
                                 .job_name = options.name,
                                 .user = options.user,
                                 .node = options.nodes[node],
                                 .node_rank = static_cast<std::uint32_t>(node),
                                 .task = rank};
      for (int stream = 1; stream <= 2; ++stream) {
        const std::string& own = stream == 1 ? options.output_path : options.error_path;
        const std::string& pattern = stream == 2 && own.empty() ? options.output_path : own;
        std::size_t index = 0;
        if (pattern.empty()) {
          index = open_standard(stream);
        } else {
          // %s is the step here, %J the step's id; the rest are the patterns that all output files know.
          std::string expanded;
          for (std::size_t k = 0; k < pattern.size(); ++k) {
            if (pattern[k] == '%' && k + 1 < pattern.size() && pattern[k + 1] == '%') {
              expanded += "%%";
              ++k;
            } else if (pattern[k] == '%' && k + 1 < pattern.size() && pattern[k + 1] == 's') {
              expanded += std::to_string(options.step);
              ++k;
            } else if (pattern[k] == '%' && k + 1 < pattern.size() && pattern[k + 1] == 'J') {
              expanded += std::to_string(options.job) + "." + std::to_string(options.step);
              ++k;
            } else {
              expanded += pattern[k];
            }
          }
          MUSTER_ASSIGN(index, open_file(resolve_path(options.work_dir, expand_pattern(expanded, values))));
        }
        router->by_rank_[stream - 1][rank] = index;
      }
    }
  }
  return router;
}

OutputRouter::Sink* OutputRouter::sink_of(std::uint32_t rank, std::uint32_t stream) {
  if (stream < 1 || stream > 2 || rank >= by_rank_[stream - 1].size()) {
    return nullptr;
  }
  return sinks_[by_rank_[stream - 1][rank]].get();
}

void OutputRouter::emit(std::uint32_t rank, std::uint32_t stream, std::string_view text) {
  Sink* sink = sink_of(rank, stream);
  if (sink == nullptr || text.empty()) {
    return;
  }
  if (!label_) {
    sink->append(text);
    return;
  }
  std::string prefix = std::to_string(rank);
  prefix.insert(0, width_ - std::min(width_, prefix.size()), ' ');
  prefix += ": ";
  std::string labelled;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    labelled += prefix;
    labelled += line;
    labelled += '\n';
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  sink->append(labelled);
}

void OutputRouter::put(std::uint32_t rank, std::uint32_t stream, std::string_view data) {
  owed_ += data.size();
  if (!lines_) {
    emit(rank, stream, data);
    return;
  }
  const auto key = std::make_pair(rank, stream);
  auto held = incomplete_.find(key);
  const std::size_t last = data.rfind('\n');
  if (last != std::string_view::npos) {
    if (held != incomplete_.end()) {
      held->second += data.substr(0, last + 1);
      emit(rank, stream, held->second);
      incomplete_.erase(held);
      held = incomplete_.end();
    } else {
      emit(rank, stream, data.substr(0, last + 1));
    }
    data.remove_prefix(last + 1);
  }
  if (data.empty()) {
    return;
  }
  std::string& line = incomplete_[key];
  line += data;
  if (line.size() >= kLineMax) {
    emit(rank, stream, line);
    incomplete_.erase(key);
  }
}

void OutputRouter::end(std::uint32_t rank) {
  for (std::uint32_t stream = 1; stream <= 2; ++stream) {
    if (const auto held = incomplete_.find({rank, stream}); held != incomplete_.end()) {
      emit(rank, stream, held->second);
      incomplete_.erase(held);
    }
  }
}

void OutputRouter::idle() {
  if (label_) {
    return;
  }
  for (const auto& [key, line] : incomplete_) {
    emit(key.first, key.second, line);
  }
  incomplete_.clear();
}

bool OutputRouter::has_incomplete_lines() const {
  return !label_ && !incomplete_.empty();
}

bool OutputRouter::flush() {
  bool all_there = true;
  for (const auto& sink : sinks_) {
    while (sink->write_some(false)) {
    }
    all_there = all_there && !sink->failed;
  }
  return all_there;
}

std::string OutputRouter::take_failure() {
  for (const auto& sink : sinks_) {
    const int error = std::exchange(sink->error, 0);
    if (error != 0 && error != EPIPE) {
      return "cannot write to " + sink->name + ": " + ::strerror(error);
    }
  }
  return "";
}

void OutputRouter::drain() {
  for (const auto& held : incomplete_) {
    emit(held.first.first, held.first.second, held.second);
  }
  incomplete_.clear();
  for (const auto& sink : sinks_) {
    while (sink->size() > 0 && !sink->failed) {
      (void)sink->write_some(true);
    }
  }
}

void OutputRouter::add_polls(std::vector<pollfd>& polls) const {
  for (const auto& sink : sinks_) {
    if (sink->size() > 0 && !sink->failed) {
      polls.push_back({sink->fd, POLLOUT, 0});
    }
  }
}

std::uint64_t OutputRouter::take_credit() {
  for (const auto& sink : sinks_) {
    if (sink->size() > kWaitingMax) {
      return 0;
    }
  }
  return std::exchange(owed_, 0);
}

}  // namespace muster::cli

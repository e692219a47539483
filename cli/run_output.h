// OutputRouter: brings the output of a step's tasks to the caller's descriptors or to files, in order for each task and
// stream. Nothing here blocks: what a slow reader does not take yet is kept, and the owner is told what was taken, so
// that it gives credit for no more than that.
#pragma once

#include <poll.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/result.h"
#include "lib/io/files.h"

namespace muster::cli {

struct OutputOptions {
  bool label = false;
  bool unbuffered = false;  // parts of lines are passed on as they come; labelled ones are lines all the same
  std::string output_path;  // pattern; empty: standard output
  std::string error_path;   // pattern; empty: standard error, or with output_path
  bool append = false;
  std::string work_dir;
  std::uint64_t job = 0;
  std::uint32_t step = 0;
  std::string user;
  std::string name;
  std::vector<std::string> nodes;
  std::vector<std::uint32_t> tasks;  // of each node
  std::uint32_t rank_plane = 0;      // how their ranks are dealt out (step_ranks.h)
};

class OutputRouter {
 public:
  // Opens the files.
  static Result<std::unique_ptr<OutputRouter>> make(const OutputOptions& options);
  ~OutputRouter();

  // Stream 1 or 2 of a task; ranks beyond the layout are ignored.
  void put(std::uint32_t rank, std::uint32_t stream, std::string_view data);
  // The task has ended: an incomplete last line of it goes out.
  void end(std::uint32_t rank);
  // Lets incomplete lines go that have waited while nothing came (a prompt, say). Not with labels.
  void idle();
  [[nodiscard]] bool has_incomplete_lines() const;

  // Writes what the descriptors take now. False: a write failed (the output of that descriptor is thrown away).
  bool flush();
  // Why writing failed, once for each descriptor: "cannot write to FILE: No space left on device". Empty: nothing to
  // tell; a reader that went away is none of the user's worries.
  std::string take_failure();
  // Writes all, waiting as long as it takes.
  void drain();
  // Adds what poll(2) should wait for.
  void add_polls(std::vector<pollfd>& polls) const;
  // Bytes given to put() that have been taken since the last call; those that wait in memory are not.
  std::uint64_t take_credit();

 private:
  struct Sink;
  OutputRouter();
  Sink* sink_of(std::uint32_t rank, std::uint32_t stream);
  void emit(std::uint32_t rank, std::uint32_t stream, std::string_view text);

  bool label_ = false;
  bool lines_ = false;  // whole lines only, because several tasks share a descriptor
  std::size_t width_ = 1;
  std::vector<std::unique_ptr<Sink>> sinks_;
  std::vector<std::size_t> by_rank_[2];  // index of the sink for stdout and stderr of each rank
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::string> incomplete_;
  std::uint64_t owed_ = 0;
};

}  // namespace muster::cli

// Controller: muster-ctld without its main(): recovers the state, takes up its term, serves clients and nodes, and
// ends on request or when the journal fails. One object in a process, on its loop's thread.
//
//   ROUTER -> decode -> Requests, Nodes -> Pipeline (decide, apply, plan) -> Journal -> replies and effects
//                                            |-> Snapshotter (helper process)
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/base/result.h"
#include "lib/config/config.h"
#include "lib/io/loop.h"

namespace muster::ctld {

class Controller {
 public:
  // Recovers the state (or says why not) and begins the new term. Serves as soon as that is on disk.
  // `finished` gets the exit status, once: 0 after stop(), 1 after a failure that was logged.
  static Result<std::unique_ptr<Controller>> start(io::Loop& loop, const config::Config& config,
                                                   std::function<void(int)> finished);
  ~Controller();

  // Takes no more requests, commits what is open, answers, and is finished.
  void stop();

  // Where it listens; empty until it serves.
  [[nodiscard]] const std::string& endpoint() const;

  struct Impl;

 private:
  explicit Controller(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// What can be checked without starting: keys, the table of authorized keys, queues, the state folder.
Status check_setup(const config::Config& config);

}  // namespace muster::ctld

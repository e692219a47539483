// The process in which the checks of a node's health run: a child of muster-noded, of the same program, so that neither a
// file system that hangs nor a health program that never ends holds up the daemon.
//
// It forks one process for the checks and one for the program, waits for both until the time is over, kills what is left,
// and writes what it found to its standard output: lines "problem CHECK TEXT", and last the line "done". It is the
// subreaper of what the program leaves behind, and kills that too. It ends with the daemon that started it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/model/health.h"
#include "noded/health_checks.h"

namespace muster::noded {

// The argument that makes muster-noded such a process.
inline constexpr const char* kRunChecksOption = "run-checks";

// The process's exit status. Does not return when the checks hang in the kernel: what they found is written before.
int run_health_checks(const HealthChecks& checks);

// The last line of a program's output that says something.
std::string last_line(std::string_view output);

std::string encode_problem(const HealthProblem& problem);

// Reads what such a process writes, as it comes.
class HealthReader {
 public:
  void append(std::string_view bytes);
  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] const std::vector<HealthProblem>& problems() const { return problems_; }

 private:
  std::string rest_;
  bool done_ = false;
  std::vector<HealthProblem> problems_;
};

}  // namespace muster::noded

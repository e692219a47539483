#include "lib/model/health.h"

#include <algorithm>

#include "lib/base/check.h"
#include "lib/base/text.h"

namespace muster {

std::string_view to_string(NodeFault f) {
  switch (f) {
    case NodeFault::kNone:
      return "none";
    case NodeFault::kProlog:
      return "prolog";
    case NodeFault::kEpilog:
      return "epilog";
    case NodeFault::kHardware:
      return "hardware";
    case NodeFault::kFailures:
      return "failures";
    case NodeFault::kSpool:
      return "spool";
  }
  MUSTER_CHECK(false && "a NodeFault out of range");
}

std::string text_of(const std::vector<Blame>& blames) {
  std::string out;
  for (const Blame& b : blames) {
    out += (out.empty() ? "job " : ", job ") + std::to_string(b.attempt.job.value) + " (" + b.text + ")";
  }
  return out;
}

std::string reason_of(const NodeHealth& health) {
  std::string out;
  if (health.fault != NodeFault::kNone) {
    out = std::string(to_string(health.fault)) + ": " + health.fault_text;
  } else if (health.rests_until.is_set()) {
    out = "failures: rests for a while after it failed " + text_of(health.blames);
  }
  if (!health.problems.empty()) {
    out += out.empty() ? "health: " : "; health: ";
    for (const HealthProblem& p : health.problems) {
      out += (&p == &health.problems.front() ? "" : "; ") + p.check + ": " + p.text;
    }
  }
  return out;
}

std::string kind_of(const NodeHealth& health) {
  std::vector<std::string> checks;
  for (const HealthProblem& p : health.problems) {
    if (std::find(checks.begin(), checks.end(), p.check) == checks.end()) {
      checks.push_back(p.check);
    }
  }
  std::string out = health.fault != NodeFault::kNone ? std::string(to_string(health.fault))
                    : health.rests_until.is_set()    ? "rests after failures"
                                                     : "";
  for (const std::string& check : checks) {
    out += (&check != &checks.front() ? ", " : out.empty() ? "health: " : "; health: ") + check;
  }
  return out;
}

std::string health_text(std::string_view text) {
  constexpr std::string_view kCut = "...";
  std::string out = printable(trim(text));
  if (out.size() > kHealthTextBytesMax) {
    std::size_t end = kHealthTextBytesMax - kCut.size();
    // Not inside of a character of several bytes.
    while (end > 0 && (static_cast<unsigned char>(out[end]) & 0xc0U) == 0x80U) {
      --end;
    }
    out.resize(end);
    out += kCut;
  }
  return out;
}

}  // namespace muster

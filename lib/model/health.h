// The health of a node: what its own checks found, and why the controller let it take no new work by itself. An
// operator's drain is apart from this (Node::drained): no recovery ever lifts that one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/time.h"
#include "lib/model/ids.h"

namespace muster {

// One of a node's checks that failed.
struct HealthProblem {
  std::string check;  // disk, read_only, memory, clock, gpu, program, ...
  std::string text;   // a sentence for people
  friend bool operator==(const HealthProblem&, const HealthProblem&) = default;
};
// Of one node: more checks than there are kinds of them and folders to look at.
inline constexpr std::size_t kHealthProblemsMax = 32;
// Of a problem's text; what a health program says is cut to fit.
inline constexpr std::size_t kHealthTextBytesMax = 400;

// What the controller takes a node out of service for, until somebody resumes it.
enum class NodeFault : std::uint8_t {
  kNone,
  kProlog,    // its prolog failed
  kEpilog,    // its epilog failed
  kHardware,  // it came back with less than it had
  kFailures,  // it failed jobs that other nodes ran well, or before they began
  kSpool,     // of an outcome alone: its daemon could not write what a start needs
};
inline constexpr NodeFault kNodeFaultLast = NodeFault::kSpool;
std::string_view to_string(NodeFault f);

// An attempt that ended by fault of the node, as far as can be told.
struct Blame {
  AttemptKey attempt;
  Instant at;
  std::string text;  // how it ended
  friend bool operator==(const Blame&, const Blame&) = default;
};
// An attempt that failed so soon that it may have been the node's fault: a blame when a job like it runs well elsewhere.
struct Doubt {
  AttemptKey attempt;
  Instant at;
  JobId array;  // 0: none
  // Jobs of this user with this script and these arguments (their hash) are like it.
  std::string user;
  Digest script;
  std::uint64_t args = 0;
  std::string text;
  friend bool operator==(const Doubt&, const Doubt&) = default;
};
// Of one node; the oldest give way.
inline constexpr std::size_t kBlamesMax = 16;

// A node with problems or a fault takes no new work; what runs there comes to its end. Problems go away when the node says
// that its checks pass again, a fault when an operator resumes the node.
struct NodeHealth {
  std::vector<HealthProblem> problems = {};
  NodeFault fault = NodeFault::kNone;
  std::string fault_text = {};
  // The ledger of its failures, oldest first. With a blame it is suspect, and taken last; until `rests_until` (unset: now)
  // it is not taken at all.
  std::vector<Blame> blames = {};
  std::vector<Doubt> doubts = {};
  Instant rests_until = {};
  Instant since = {};  // when it stopped taking work for these; unset: it did not
  [[nodiscard]] bool is_good() const { return problems.empty() && fault == NodeFault::kNone && !rests_until.is_set(); }
  [[nodiscard]] bool is_suspect() const { return !blames.empty(); }
  friend bool operator==(const NodeHealth&, const NodeHealth&) = default;
};

// "job 7 (exit code 1 at once), job 9 (its shepherd died)"
[[nodiscard]] std::string text_of(const std::vector<Blame>& blames);
// Why it takes no new work: "prolog: exit code 3 in job 7: no licence", "health: disk: ..., gpu: ..."; empty: it does.
[[nodiscard]] std::string reason_of(const NodeHealth& health);
// The same without details, so that nodes can be counted by it: "prolog", "health: disk, gpu".
[[nodiscard]] std::string kind_of(const NodeHealth& health);

// The text as one line of at most kHealthTextBytesMax bytes, without control characters.
[[nodiscard]] std::string health_text(std::string_view text);

}  // namespace muster

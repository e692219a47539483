// JobChange: what `muster update` asks to be different about a job. Only the named fields of `values` count, so that a
// change is decided against the job as it is when the controller decides, whatever the user saw before.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lib/model/job_spec.h"

namespace muster {

// Fields of a JobSpec that can be changed while it waits. On the wire by number: only added.
enum class SpecField : std::uint8_t {
  kName,
  kComment,
  kTimeLimit,
  kTimeMin,
  kDeadline,
  kBegin,
  kDependency,
  kNice,
  kQueue,
  kAccount,
  kQos,
  kNodes,  // nodes_min and nodes_max
  kNtasks,
  kNtasksPerNode,
  kCpusPerTask,
  kMemory,  // per node, CPU or GPU: one of them
  kGpus,
  kGpusPerNode,
  kGpusPerTask,
  kExclusive,
  kNodelist,
  kExclude,
  kRequeue,
  kOutput,
  kError,
  kArrayLimit,  // %MAX of the array; its indices stay
  kConstraint,
  kSwitches,  // and the time after which any number will do
  kSegment,
  kReservation,
  kLicenses,
  kLocality,
};
inline constexpr SpecField kSpecFieldLast = SpecField::kLocality;
// Of one change; more are repeated ones.
inline constexpr std::size_t kSpecFieldsMax = 256;

struct JobChange {
  std::vector<SpecField> fields;
  JobSpec values;
  [[nodiscard]] bool has(SpecField field) const;
  friend bool operator==(const JobChange&, const JobChange&) = default;
};

// The option whose value the field is: "--time".
std::string_view option_of(SpecField field);
// Whether a job that runs can be changed in it.
[[nodiscard]] bool may_change_while_running(SpecField field);
// `spec` with the named fields of the change. What the controller had derived at the submission from a field that changes
// is derived anew: it is set back to "not asked".
JobSpec with_change(const JobSpec& spec, const JobChange& change);

}  // namespace muster

// How a step of a job shares the job's nodes with the job's other steps. The numbers are those of messages and records.
#pragma once

#include <cstdint>

namespace muster {

enum class StepSharing : std::uint8_t {
  kWhole,      // all that the job has on its nodes, beside other steps
  kExact,      // cores and GPUs that no other exact step has
  kExclusive,  // the same, and on its nodes no step that has all of them
  kOverlap,    // all that the job has there, whatever others have
};
inline constexpr StepSharing kStepSharingLast = StepSharing::kOverlap;

}  // namespace muster

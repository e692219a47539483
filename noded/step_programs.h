// The programs of a step whose tasks run different ones (`muster run --multi-prog`). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace muster::pb {
class StepSpec;
}  // namespace muster::pb

namespace muster::noded {

// The words of the task's program, %t filled in with its rank, %o with its place among the ranks of its line and %% with %.
// Nothing: no program is named for it. A step of one program has that for every rank, as it is.
std::optional<std::vector<std::string>> program_of(const pb::StepSpec& spec, std::uint32_t rank);

// The first of 0..ntasks-1 that has no program.
std::optional<std::uint32_t> rank_without_program(const pb::StepSpec& spec, std::uint32_t ntasks);
// More ranges of ranks than can be looked through for that many tasks.
bool has_too_many_ranges(const pb::StepSpec& spec, std::uint32_t ntasks);

}  // namespace muster::noded

#include "noded/step_programs.h"

#include <algorithm>
#include <utility>

#include "lib/wire/muster.pb.h"

namespace muster::noded {
namespace {

// Each task looks through the ranges of ranks. Some tenths of a second of the daemon's loop.
constexpr std::uint64_t kLookupsMax = 50'000'000;

// The rank's place among those of the line.
std::optional<std::uint64_t> place_of(const pb::StepProgram& program, std::uint32_t rank) {
  if (program.first_size() == 0) {
    return rank;
  }
  std::uint64_t before = 0;
  for (int i = 0; i < std::min(program.first_size(), program.last_size()); ++i) {
    if (rank >= program.first(i) && rank <= program.last(i)) {
      return before + rank - program.first(i);
    }
    before += program.last(i) < program.first(i) ? 0 : std::uint64_t{program.last(i)} - program.first(i) + 1;
  }
  return std::nullopt;
}

std::string filled_in(const std::string& word, std::uint32_t rank, std::uint64_t place) {
  std::string out;
  for (std::size_t i = 0; i < word.size(); ++i) {
    const char letter = word[i] == '%' && i + 1 < word.size() ? word[i + 1] : 0;
    if (letter == 't' || letter == 'o' || letter == '%') {
      out += letter == 't' ? std::to_string(rank) : letter == 'o' ? std::to_string(place) : "%";
      ++i;
    } else {
      out += word[i];
    }
  }
  return out;
}

}  // namespace

std::optional<std::vector<std::string>> program_of(const pb::StepSpec& spec, std::uint32_t rank) {
  std::vector<std::string> out;
  if (spec.programs_size() == 0) {
    out.assign(spec.argv().begin(), spec.argv().end());
    return out;
  }
  for (const pb::StepProgram& program : spec.programs()) {
    if (const auto place = place_of(program, rank)) {
      for (const std::string& word : program.argv()) {
        out.push_back(filled_in(word, rank, *place));
      }
      return out.empty() || out.front().empty() ? std::nullopt : std::optional(std::move(out));
    }
  }
  return std::nullopt;
}

std::optional<std::uint32_t> rank_without_program(const pb::StepSpec& spec, std::uint32_t ntasks) {
  if (spec.programs_size() == 0) {
    return std::nullopt;
  }
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;
  for (const pb::StepProgram& program : spec.programs()) {
    if (program.argv_size() == 0 || program.argv(0).empty()) {
      continue;
    }
    if (program.first_size() == 0) {
      return std::nullopt;  // it is for all that are left
    }
    for (int i = 0; i < std::min(program.first_size(), program.last_size()); ++i) {
      ranges.emplace_back(program.first(i), program.last(i));
    }
  }
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t next = 0;
  for (const auto& [first, last] : ranges) {
    if (first > next) {
      break;
    }
    next = std::max(next, std::uint64_t{last} + 1);
  }
  return next < ntasks ? std::optional(static_cast<std::uint32_t>(next)) : std::nullopt;
}

bool has_too_many_ranges(const pb::StepSpec& spec, std::uint32_t ntasks) {
  std::uint64_t ranges = 0;
  for (const pb::StepProgram& program : spec.programs()) {
    ranges += static_cast<std::uint64_t>(std::max(program.first_size(), 1));
  }
  return ranges * ntasks > kLookupsMax;
}

}  // namespace muster::noded

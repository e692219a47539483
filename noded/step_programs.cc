#include "noded/step_programs.h"

#include <algorithm>

#include "lib/wire/muster.pb.h"

namespace muster::noded {
namespace {

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
  for (std::uint32_t rank = 0; spec.programs_size() > 0 && rank < ntasks; ++rank) {
    if (std::none_of(spec.programs().begin(), spec.programs().end(), [&](const pb::StepProgram& program) {
          return program.argv_size() > 0 && !program.argv(0).empty() && place_of(program, rank);
        })) {
      return rank;
    }
  }
  return std::nullopt;
}

}  // namespace muster::noded

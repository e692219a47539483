// A whole State as bytes (pb::SnapshotPart) and back, for comparing states byte for byte and for trying snapshots.
#pragma once

#include <string>
#include <string_view>

#include "core/engine/state.h"
#include "lib/base/result.h"

namespace muster::sim {

std::string encode_state(const engine::State& state);
Result<engine::State> decode_state(std::string_view bytes);
// Facts as a row of the journal, and back.
Result<Facts> from_journal(std::string_view row);
// Both at once: what comes back must be what went in.
Result<Facts> through_journal(const Facts& facts, std::string& bytes);

}  // namespace muster::sim

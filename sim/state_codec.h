// A whole State as bytes (pb::SnapshotPart) and back, for comparing states byte for byte and for trying snapshots.
#pragma once

#include <string>
#include <string_view>

#include "core/engine/state.h"
#include "lib/base/result.h"

namespace muster::sim {

std::string encode_state(const engine::State& state);
Result<engine::State> decode_state(std::string_view bytes);
// The same of facts, through the journal's encoding and back; a check that nothing is lost on the way.
Result<Facts> through_journal(const Facts& facts, std::string& bytes);

}  // namespace muster::sim

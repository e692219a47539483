// Submissions as a client may send them, up to the decision and the plan: a spec that is read is either refused with a
// reason or becomes a job, and the state stays sound.
#include <memory>

#include "core/engine/engine.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "tests/fuzz/fuzz.h"

namespace muster {
namespace {

const sched::Policy& policy() {
  static const sched::Policy kPolicy = [] {
    sched::Policy made;
    sched::QueuePolicy queue;
    queue.name = "main";
    queue.time_default = Duration::from_s(3600);
    made.queues = {queue};
    made.default_queue = "main";
    return made;
  }();
  return kPolicy;
}

void perform(engine::State& state, const Command& command, Instant now) {
  const auto decision = engine::decide(state, policy(), command, now);
  if (!decision.ok()) {
    fuzz::check_error(decision.error());
    return;
  }
  for (const Fact& fact : decision->facts) {
    // Through the journal's bytes, because what was decided must be readable after a restart.
    const auto read = wire::decode_facts(wire::encode_facts({fact}));
    MUSTER_CHECK(read.ok() && read->size() == 1 && read->front() == fact);
    Effects effects;
    engine::apply(state, fact, effects);
  }
}

engine::State cluster() {
  engine::State state;
  for (const char* name : {"n1", "n2"}) {
    NodeRegistration node;
    node.name = name;
    for (std::uint32_t core = 0; core < 8; ++core) {
      node.hardware.cores.push_back({core / 4, core / 4, IndexSet::range(core, 1)});
    }
    node.hardware.packages = node.hardware.numa_nodes = 2;
    node.hardware.gpus = {{"0000:01:00.0", "", "pretended", 0, 0}, {"0000:02:00.0", "", "pretended", 1, 1}};
    node.hardware.mem_mib = 65'536;
    node.boot_id = "b";
    perform(state, RegisterNode{node}, Instant::from_s(1));
  }
  return state;
}

}  // namespace
}  // namespace muster

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  static const engine::State kCluster = cluster();
  pb::JobSpec message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return 0;
  auto spec = wire::from_pb(message);
  if (!spec.ok()) return 0;
  engine::State state = kCluster;
  const Instant now = Instant::from_s(1'700'000'000);
  const Caller caller{spec->user, false};
  perform(state, SubmitJob{caller, RequestId{1, 2}, std::make_shared<const JobSpec>(std::move(*spec))}, now);
  const engine::Explainer explainer(state, policy(), now);
  for (const auto& [id, job] : state.jobs) MUSTER_CHECK(!explainer.reason(job).word.empty() || job.is_active());
  perform(state, ApplyPlan{engine::plan(state, policy(), {.placements_made = 20}, now).placements}, now);
  MUSTER_CHECK(engine::check_invariants(state).empty());
  return 0;
}

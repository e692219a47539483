#include "cli/bound_text.h"

#include "lib/base/text.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

// The nearest that all of its cores are.
std::string locality_text(const pb::StepTaskBound& bound) {
  if (bound.gpus().empty()) return "";
  if (bound.local_device()) return ", local to the device";
  if (bound.local_numa()) return ", on the device's NUMA node";
  return bound.local_package() ? ", in the device's package" : ", not near the device";
}

}  // namespace

std::string bound_text(const pb::StepTaskBound& bound) {
  const std::string cpus = printable(bound.cpus());
  const std::string decided = printable(bound.decided());
  std::string out = "task " + std::to_string(bound.rank()) + " on " + printable(bound.node()) + ": ";
  if (bound.pretended()) {
    out += "CPUs " + decided + " of a pretended node, which nothing is bound to";
  } else if (decided.empty()) {
    out += "CPUs " + cpus + ", not bound";
  } else if (cpus == decided) {
    out += "CPUs " + cpus + " as decided";
  } else {
    out += "bound to CPUs " + cpus + " although " + decided +
           " were decided: see which CPUs the node's daemon may use (its cpuset), and which are online";
  }
  if (cpus == decided && !bound.fault().empty()) out += ", but " + printable(bound.fault());
  if (!bound.numa().empty()) out += ", NUMA node " + printable(bound.numa());
  if (!bound.gpus().empty()) out += ", GPUs " + printable(bound.gpus());
  return out + locality_text(bound);
}

std::string proof_text(const pb::NodePlacement& placement) {
  const auto proof = wire::from_pb(placement.proof());
  if (!placement.has_proof() || !proof.ok()) return "";
  std::string out = printable(placement.node()) + ": ";
  if (proof->pretended) return out + "nothing, because the node pretends";
  out += std::to_string(proof->tasks) + (proof->tasks == 1 ? " task" : " tasks") + " read back, ";
  if (proof->faults == 0) return out + "as decided";
  return out + std::to_string(proof->faults) + " not as decided; " + printable(proof->fault);
}

}  // namespace muster::cli

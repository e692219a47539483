// How tasks are bound to cores and GPUs, as users ask for it. Values and their notations.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/base/result.h"

namespace muster {

// --locality: how much it matters that tasks are near their GPUs.
enum class Locality : std::uint8_t {
  kNone,     // not at all
  kPrefer,   // as near as what is free allows
  kRequire,  // on the NUMA node of a GPU of theirs, with a core that is local to it, or not now
};
Result<Locality> parse_locality(std::string_view text);  // "none", "prefer", "require"
std::string_view locality_name(Locality locality);

// --cpu-bind: which hardware threads each task may run on.
enum class CpuBindKind : std::uint8_t {
  kNone,     // all that the job holds on the node
  kThreads,  // one hardware thread of each of its cores
  kCores,    // its cores
  kL3,       // what the job holds of the L3s, ...
  kNuma,     // ... of the NUMA nodes, ...
  kSockets,  // ... of the packages that its cores are in
  kRank,     // cores in the order of the tasks' numbers, wherever the GPUs are
  kMapCpu,   // the named hardware thread
  kMaskCpu,  // the named hardware threads
};
struct CpuBind {
  CpuBindKind kind = CpuBindKind::kCores;
  std::vector<IndexSet> list;  // kMapCpu, kMaskCpu: OS numbers for task 0, 1, ...; when it is too short it starts anew
  friend bool operator==(const CpuBind&, const CpuBind&) = default;
};
// Entries of a list, with repetitions: more than any node has hardware threads.
inline constexpr std::size_t kCpuBindListMax = 65'536;
// "none|threads|cores|l3|numa|sockets|rank", "map_cpu:0,8*2,0x10", "mask_cpu:0xff,ff00*4"; "quiet," and "verbose,"
// in front are accepted and mean nothing; "ldoms" is "numa".
Result<CpuBind> parse_cpu_bind(std::string_view text);
std::string format_cpu_bind(const CpuBind& bind);

// --distribution: how tasks are numbered over the packages of a node.
enum class DistributionKind : std::uint8_t {
  kBlock,   // in the order of their cores
  kCyclic,  // a task of each package in turn
  kPlane,   // `plane` tasks of each package in turn
};
struct Distribution {
  DistributionKind kind = DistributionKind::kBlock;
  std::uint32_t plane = 1;  // of kPlane, at least 1
  friend bool operator==(const Distribution&, const Distribution&) = default;
};
Result<Distribution> parse_distribution(std::string_view text);  // "block", "cyclic", "plane=4", "plane:4"
std::string format_distribution(const Distribution& distribution);

}  // namespace muster

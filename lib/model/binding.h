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
  bool chosen = false;         // the user named the kind
  bool verbose = false;        // and wants to be told what each task was bound to
  std::vector<IndexSet> list;  // kMapCpu, kMaskCpu: OS numbers for task 0, 1, ...; when it is too short it starts anew
  friend bool operator==(const CpuBind&, const CpuBind&) = default;
};
// Entries of a list, with repetitions: more than any node has hardware threads.
inline constexpr std::size_t kCpuBindListMax = 65'536;
// "none|threads|cores|l3|numa|sockets|rank", "map_cpu:0,8*2,0x10", "mask_cpu:0xff,ff00*4"; alone or in front of a comma
// "verbose" and "v", and "quiet" and "q", which mean nothing; "ldoms" is "numa", "no" is "none". Empty: the default.
Result<CpuBind> parse_cpu_bind(std::string_view text);
std::string format_cpu_bind(const CpuBind& bind);

// --gpu-bind: which of the GPUs that the job holds on the node a task sees.
enum class GpuBindKind : std::uint8_t {
  kDefault,  // its own with --gpus-per-task, else all
  kAll,      // all of them
  kOwn,      // the share of them that is nearest to its cores
  kList,     // the named ones
};
struct GpuBind {
  GpuBindKind kind = GpuBindKind::kDefault;
  std::uint32_t per_task = 0;  // kOwn: so many for each; 0: all of them in equal shares
  std::vector<IndexSet> list;  // kList: places among the job's GPUs on the node, for task 0, 1, ...; starts anew
  friend bool operator==(const GpuBind&, const GpuBind&) = default;
};
// "none", "closest", "per_task:N", "single:N", "map_gpu:0,1*2", "mask_gpu:0x3,0xc"; "quiet," and "verbose," in front mean
// nothing. Empty: the default.
Result<GpuBind> parse_gpu_bind(std::string_view text);

// --distribution: how tasks are numbered over the nodes of a step, and over the packages of each node.
enum class DistributionKind : std::uint8_t {
  kBlock,   // one after the other; on a node in the order of their cores
  kCyclic,  // a task of each in turn
  kPlane,   // `plane` tasks of each in turn
};
struct Distribution {
  // Over the packages of a node.
  DistributionKind kind = DistributionKind::kBlock;
  std::uint32_t plane = 1;  // of kPlane, at least 1
  // Over nodes: so many tasks of each in turn. 0: in blocks.
  std::uint32_t node_plane = 0;
  friend bool operator==(const Distribution&, const Distribution&) = default;
};
// "NODES:PACKAGES", each "block", "cyclic" ("fcyclic" for packages as well), "plane=4" or "plane:4" (for nodes: alone), or
// "*" for block; one word stands for both. Empty: block.
Result<Distribution> parse_distribution(std::string_view text);

}  // namespace muster

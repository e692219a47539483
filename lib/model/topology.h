// Topology: how the nodes hang together in the network, as the configuration says it. A value; checked by
// check_topology() before anything else uses it.
//
// A tree has leaf switches with nodes and switches above them with switches. Blocks are hard domains of nodes that stand
// in an order; 2, 4, 8, .. of them that stand in a row, beginning at a multiple of their number, form groups.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace muster {

enum class TopologyKind : std::uint8_t { kNone, kTree, kBlock };

struct Topology {
  struct Switch {
    std::string name;
    std::vector<std::string> nodes;     // of a leaf
    std::vector<std::string> switches;  // of one above leaves
    std::string place;                  // where it is defined, for messages: "muster.toml:12:3"
    friend bool operator==(const Switch&, const Switch&) = default;
  };
  struct Block {
    std::string name;
    std::vector<std::string> nodes;
    std::string place;
    friend bool operator==(const Block&, const Block&) = default;
  };
  TopologyKind kind = TopologyKind::kNone;
  std::vector<Switch> switches;
  std::vector<Block> blocks;
  // Nodes that a block counts for, then those of groups of blocks, each a power of two times the first; ascending. A job
  // of more nodes than the last one takes several groups of the largest size. check_topology() fills it in when empty.
  std::vector<std::uint32_t> block_sizes;
  friend bool operator==(const Topology&, const Topology&) = default;
};

inline constexpr std::size_t kTopologyDomainsMax = 20'000;  // switches or blocks: two for each of 10,000 nodes
inline constexpr std::size_t kTopologyHeightMax = 16;       // switches above each other

// Refuses what is not a forest of switches or a list of separate blocks, naming the place. Fills in block_sizes.
Status check_topology(Topology& topology);

}  // namespace muster

// StepCoordinator::Step: one step as its coordinator sees it. For the coordinator's own files.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/model/step_ranks.h"
#include "noded/step_coordinator.h"

namespace muster::pb {
class StepSpec;
}  // namespace muster::pb

namespace muster::noded {

struct StepCoordinator::Step {
  StepId id;
  AttemptInfo info;
  ClientAddress client;
  bool client_here = true;  // false: its connection is gone and it may come back
  Duration client_heard;
  std::unique_ptr<pb::StepSpec> spec;  // until every part runs
  bool kill_on_bad_exit = false;
  std::uint32_t stdin_mode = 0;
  std::uint32_t stdin_rank = 0;       // with stdin_mode 0
  Duration wait;                      // --wait; 0: for ever
  std::optional<Duration> first_end;  // when a task ended before the others
  StepSharing sharing = StepSharing::kWhole;
  bool is_job = false;  // the first step of a kRun job
  bool started = false;
  Duration ask_until;
  std::vector<PartRecord> parts;
  std::vector<RankRecord> ranks;
  std::uint32_t rank_plane = 0;
  std::uint32_t master_port = 0;  // MASTER_PORT; 0: not chosen yet
  std::size_t ended = 0;
  std::int32_t exit_code = 0;
  Outcome worst;
  std::deque<Unread> unread;
  std::uint64_t credited = 0;  // by the client, of unread.front()
  std::uint64_t input_granted = 0;
  std::string cancelled;  // why; empty: not
  Duration cancelled_at;
  Duration parts_asked;
  bool over = false;  // the end has been told, or waits for the client to come back

  [[nodiscard]] const Peer& node(std::size_t part) const { return info.order->peers[parts[part].job_node]; }
  [[nodiscard]] bool here(std::size_t part) const { return parts[part].job_node == info.order->node_rank; }
  [[nodiscard]] std::optional<std::size_t> part_of_node(const std::string& name) const {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (node(i).name == name) {
        return i;
      }
    }
    return std::nullopt;
  }
  [[nodiscard]] bool rank_in_part(std::uint32_t rank, std::size_t part) const {
    return rank < ranks.size() && ranks[rank].part == part;
  }
  // Gives the parts their ranks, when their tasks are known.
  void deal(std::uint32_t plane) {
    std::vector<std::uint32_t> tasks;
    std::size_t all = 0;
    for (const PartRecord& part : parts) {
      tasks.push_back(part.tasks);
      all += part.tasks;
    }
    rank_plane = plane;
    ranks.resize(all);
    std::vector<std::vector<std::uint32_t>> dealt = deal_ranks(tasks, plane);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      for (const std::uint32_t rank : dealt[i]) {
        ranks[rank].part = static_cast<std::uint32_t>(i);
      }
      parts[i].ranks = std::move(dealt[i]);
    }
  }
};

}  // namespace muster::noded

#include "core/sched/ledger.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "lib/base/check.h"
#include "lib/base/text.h"

namespace muster::sched {

NodeCapacity& Ledger::at(NodeIndex node) {
  if (node.value >= nodes_.size()) {
    nodes_.resize(node.value + 1);
    held_.resize(node.value + 1);
  }
  return nodes_[node.value];
}

namespace {

Amount counted(const IndexSet& cores, const IndexSet& gpus, std::uint64_t mem_mib) {
  return Amount{static_cast<std::int64_t>(cores.count()), static_cast<std::int64_t>(gpus.count()),
                static_cast<std::int64_t>(mem_mib)};
}

FitIndex::Free bucket_of(const NodeCapacity& n) {
  return FitIndex::Free{static_cast<std::uint32_t>(n.free.gpus), static_cast<std::uint32_t>(n.free.cores)};
}

}  // namespace

void Ledger::leave_index(std::size_t i) {
  if (ranked_ && nodes_[i].usable) {
    fit_index_.erase(ranks_[i], bucket_of(nodes_[i]));
  }
}

void Ledger::enter_index(std::size_t i) {
  if (ranked_ && nodes_[i].usable) {
    fit_index_.insert(ranks_[i], bucket_of(nodes_[i]));
  }
}

const std::vector<std::uint32_t>& Ledger::ranks() const {
  if (!ranked_) {
    ranks_.assign(nodes_.size(), 0);
    places_ = nullptr;
    ranks_of_lists_.clear();
    fit_index_.clear();
    classes_.clear();
    suspects_ = {};
    std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, NodeClass> classes;
    for (std::size_t rank = 0; rank < order_.size(); ++rank) {
      const std::size_t i = order_[rank].value;
      ranks_[i] = static_cast<std::uint32_t>(rank);
      if (nodes_[i].usable) {
        fit_index_.insert(ranks_[i], bucket_of(nodes_[i]));
      }
      if (nodes_[i].suspect) {
        suspects_.insert(ranks_[i]);
      }
      const Amount& all = nodes_[i].all;
      NodeClass& one = classes[{all.cores, all.gpus, all.mem_mib}];
      one.all = all;
      one.example = order_[rank];
      one.ranks.insert(ranks_[i]);
      ++one.nodes;
    }
    for (auto& [amount, one] : classes) {
      classes_.push_back(std::move(one));
    }
    ranked_ = true;
  }
  return ranks_;
}

const std::vector<Ledger::NodeClass>& Ledger::classes() const {
  static_cast<void>(ranks());
  return classes_;
}

const std::shared_ptr<const Places>& Ledger::places(const std::shared_ptr<const Sites>& sites) const {
  static_cast<void>(ranks());
  if (places_ == nullptr || places_of_ != sites) {
    std::vector<PlacedNode> nodes;
    nodes.reserve(order_.size());
    for (const NodeIndex node : order_) {
      nodes.push_back(PlacedNode{nodes_[node.value].name, &nodes_[node.value].features});
    }
    places_ = std::make_shared<const Places>(make_places(sites.get(), nodes));
    places_of_ = sites;
  }
  return places_;
}

const IndexSet& Ledger::ranks_of(const std::vector<std::string>& names) const {
  // Far more than there are queues of a kind; what users name themselves must not fill it for ever.
  constexpr std::size_t kListsMax = 256;
  static_cast<void>(ranks());
  const auto known = ranks_of_lists_.find(names);
  if (known != ranks_of_lists_.end()) {
    return known->second;
  }
  if (ranks_of_lists_.size() >= kListsMax) {
    ranks_of_lists_.clear();
  }
  IndexSet found;
  for (const std::string& name : names) {
    if (const NodeIndex* index = find(name)) {
      found.insert(ranks_[index->value]);
    }
  }
  return ranks_of_lists_.emplace(names, std::move(found)).first->second;
}

void Ledger::note_release(NodeIndex node) {
  // As long as no pass asks for more than this, it is never needed.
  constexpr std::size_t kKept = 4'096;
  if (released_.size() >= kKept) {
    released_dropped_ += released_.size();
    released_.clear();
  }
  released_.push_back(node);
}

std::optional<std::vector<NodeIndex>> Ledger::released_since(std::uint64_t count) const {
  if (count < released_dropped_ || count > released_count()) {
    return std::nullopt;
  }
  return std::vector<NodeIndex>(released_.begin() + static_cast<std::ptrdiff_t>(count - released_dropped_),
                                released_.end());
}

const FitIndex& Ledger::fit_index() const {
  static_cast<void>(ranks());
  return fit_index_;
}

const NodeIndex* Ledger::find(std::string_view name) const {
  const auto before = [this](NodeIndex other, std::string_view text) {
    return natural_less(nodes_[other.value].name, text);
  };
  const auto it = std::lower_bound(order_.begin(), order_.end(), name, before);
  return it == order_.end() || nodes_[it->value].name != name ? nullptr : &*it;
}

// Around it stand leave_index() and enter_index().
void Ledger::recompute(std::size_t i) {
  NodeCapacity& n = nodes_[i];
  const Held& h = held_[i];
  n.free_cores = n.all_cores - h.cores;
  n.free_gpus = n.all_gpus - h.gpus;
  n.free_mem_mib = n.mem_mib > h.mem_mib ? n.mem_mib - h.mem_mib : 0;
  n.all = counted(n.all_cores, n.all_gpus, n.mem_mib);
  n.free = counted(n.free_cores, n.free_gpus, n.free_mem_mib);
}

void Ledger::set_hardware(NodeIndex node, const std::string& name, const NodeHardware& hardware) {
  NodeCapacity& n = at(node);
  if (!n.known) {
    const auto before = [this](NodeIndex other, const std::string& text) {
      return natural_less(nodes_[other.value].name, text);
    };
    order_.insert(std::lower_bound(order_.begin(), order_.end(), name, before), node);
    ranked_ = false;
  }
  leave_index(node.value);
  const Amount before = n.all;
  n.name = name;
  n.known = true;
  n.all_cores = IndexSet::range(0, static_cast<std::uint32_t>(hardware.cores.size()));
  n.all_gpus = IndexSet::range(0, static_cast<std::uint32_t>(hardware.gpus.size()));
  n.mem_mib = hardware.mem_mib;
  recompute(node.value);
  enter_index(node.value);
  ranked_ = ranked_ && n.all == before;  // it belongs to another class
  note_release(node);
}

void Ledger::set_usable(NodeIndex node, bool usable) {
  at(node);
  leave_index(node.value);
  nodes_[node.value].usable = usable;
  enter_index(node.value);
  note_release(node);
}

void Ledger::set_suspect(NodeIndex node, bool suspect) {
  at(node).suspect = suspect;
  if (ranked_ && suspect) {
    suspects_.insert(ranks_[node.value]);
  } else if (ranked_) {
    suspects_.erase(ranks_[node.value]);
  }
}

const IndexSet& Ledger::suspects() const {
  static_cast<void>(ranks());
  return suspects_;
}

void Ledger::set_class(NodeIndex node, topo::SharedClass node_class) {
  at(node).node_class = std::move(node_class);
}

void Ledger::set_features(NodeIndex node, const std::vector<std::string>& features) {
  if (at(node).features != features) {
    at(node).features = features;
    places_ = nullptr;
    note_release(node);
  }
}

void Ledger::take(const NodeShare& share) {
  at(share.node);
  Held& h = held_[share.node.value];
  MUSTER_CHECK(!h.cores.intersects(share.cores));
  MUSTER_CHECK(!h.gpus.intersects(share.gpus));
  h.cores |= share.cores;
  h.gpus |= share.gpus;
  h.mem_mib += share.mem_mib;
  leave_index(share.node.value);
  recompute(share.node.value);
  enter_index(share.node.value);
}

void Ledger::give_back(const NodeShare& share) {
  at(share.node);
  Held& h = held_[share.node.value];
  MUSTER_CHECK(share.cores.is_subset_of(h.cores));
  MUSTER_CHECK(share.gpus.is_subset_of(h.gpus));
  MUSTER_CHECK(share.mem_mib <= h.mem_mib);
  h.cores -= share.cores;
  h.gpus -= share.gpus;
  h.mem_mib -= share.mem_mib;
  leave_index(share.node.value);
  recompute(share.node.value);
  enter_index(share.node.value);
  note_release(share.node);
}

bool Draft::can_take(const NodeShare& share) const {
  if (share.node.value >= size()) {
    return false;
  }
  const NodeCapacity& n = node(share.node.value);
  return n.usable && share.cores.is_subset_of(n.free_cores) && share.gpus.is_subset_of(n.free_gpus) &&
         share.mem_mib <= n.free_mem_mib;
}

bool Draft::has_room(const NodeShare& share) const {
  if (share.node.value >= size()) {
    return false;
  }
  const NodeCapacity& n = node(share.node.value);
  return n.usable && share.cores.count() <= n.free_cores.count() && share.gpus.count() <= n.free_gpus.count() &&
         share.mem_mib <= n.free_mem_mib;
}

void Draft::take(const NodeShare& share) {
  MUSTER_CHECK(can_take(share));
  use(share);
}

bool Draft::has_cores(NodeIndex node, const IndexSet& cores) const {
  return node.value < size() && cores.is_subset_of(this->node(node.value).free_cores);
}

void Draft::take_cores(NodeIndex node, const IndexSet& cores) {
  MUSTER_CHECK(has_cores(node, cores));
  use(NodeShare{.node = node, .cores = cores, .gpus = {}, .mem_mib = 0, .tasks = 0});
}

void Draft::use(const NodeShare& share) {
  const std::size_t i = share.node.value;
  if (!std::exchange(taken_, true)) {
    fit_index_ = base_->fit_index();
    is_changed_.resize(size());
  }
  is_changed_[i] = true;
  NodeCapacity& n = changed_.try_emplace(i, base_->nodes()[i]).first->second;
  const std::uint32_t rank = base_->rank(share.node);
  if (n.usable) {
    fit_index_.erase(rank, bucket_of(n));
  }
  n.free_cores -= share.cores;
  n.free_gpus -= share.gpus;
  n.free_mem_mib -= share.mem_mib;
  n.free -= amount_of(share);
  if (n.usable) {
    fit_index_.insert(rank, bucket_of(n));
  }
}

}  // namespace muster::sched

// Where jobs are placed, against a search through every set of nodes: on small random clusters with features, switches or
// blocks, a job is placed whenever some set of nodes suits it, at the first instant at which one does, and never on one
// that does not. The rules are written down here a second time. MUSTER_SEED repeats a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "core/sched/place.h"
#include "core/sched/request.h"
#include "sim/random.h"

namespace muster::sched {
namespace {

constexpr int kRounds = 6'000;
constexpr Instant kNow = Instant::from_s(1'000'000);
constexpr std::uint32_t kNodesMax = 8;

class Round {
 public:
  explicit Round(std::uint64_t seed) : random_(seed) {
    nodes_ = static_cast<std::uint32_t>(random_.between(1, kNodesMax));
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      add_node(i);
    }
    draw_sites();
    spec_ = draw_spec();
    filter_ = make_filter(ledger_, spec_, {}, sites_);
    filter_.spread = random_.permille(300);
  }

  void check() {
    const Timeline timeline(ledger_, horizon_, kNow);
    const bool lapsed = random_.permille(200);
    const std::vector<Slot> slots = fit_now(timeline, spec_, filter_, lapsed);
    const std::optional<std::set<std::uint32_t>> any = search(kNow, lapsed);
    ASSERT_EQ(!slots.empty(), any.has_value()) << describe(slots);
    check_slots(slots, kNow, lapsed);

    const Instant lapse = random_.permille(300) ? kNow + Duration::from_s(static_cast<std::int64_t>(random_.below(200)))
                                                : Instant{INT64_MAX / 2};
    const auto spot = earliest_fit(timeline, spec_, filter_, kNow, lapse);
    const std::optional<Instant> first = first_instant(lapse);
    ASSERT_EQ(spot.has_value(), first.has_value()) << describe(slots);
    if (spot) {
      ASSERT_EQ((spot->start - kNow).seconds(), (*first - kNow).seconds()) << describe(spot->slots);
      check_slots(spot->slots, spot->start, spot->start >= lapse);
    }
  }

 private:
  static std::string name(std::uint32_t i) { return "n" + std::to_string(i + 1); }

  void add_node(std::uint32_t i) {
    NodeHardware hardware;
    const auto cores = static_cast<std::uint32_t>(random_.between(1, 4));
    for (std::uint32_t c = 0; c < cores; ++c) {
      hardware.cores.push_back(Core{.package = 0, .numa = 0, .threads = IndexSet::range(c, 1)});
    }
    const auto gpus = static_cast<std::uint32_t>(random_.below(4));
    hardware.gpus.resize(gpus);
    hardware.mem_mib = 100 * random_.between(1, 4);
    ledger_.set_hardware(NodeIndex{i}, name(i), hardware);
    ledger_.set_usable(NodeIndex{i}, random_.permille(950));
    own_features_.emplace_back();
    for (const char* feature : {"a", "b", "c"}) {
      if (random_.permille(400)) {
        own_features_.back().emplace_back(feature);
      }
    }
    ledger_.set_features(NodeIndex{i}, own_features_.back());
    // Up to two attempts run on it.
    for (int k = 0; k < 2; ++k) {
      if (random_.permille(400)) {
        const NodeCapacity& n = ledger_.nodes()[i];
        NodeShare share;
        share.node = NodeIndex{i};
        share.cores = n.free_cores.lowest(static_cast<std::uint32_t>(random_.between(0, n.free_cores.count())));
        share.gpus = n.free_gpus.lowest(static_cast<std::uint32_t>(random_.between(0, n.free_gpus.count())));
        share.mem_mib = random_.below(n.free_mem_mib + 1);
        ledger_.take(share);
        horizon_.hold(share, kNow + Duration::from_s(static_cast<std::int64_t>(10 * random_.between(1, 12))));
      }
    }
  }

  void draw_sites() {
    auto sites = std::make_shared<Sites>();
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      if (random_.permille(300)) {
        sites->features["d"].push_back(name(i));
      }
    }
    const std::uint64_t kind = random_.below(3);
    leaf_.assign(nodes_, -1);
    if (kind == 0) {
      sites_ = sites;
      return;
    }
    const int leaves = static_cast<int>(random_.between(1, 4));
    std::vector<std::vector<std::string>> members(static_cast<std::size_t>(leaves));
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      if (random_.permille(900)) {
        leaf_[i] = static_cast<int>(random_.below(static_cast<std::uint64_t>(leaves)));
        members[static_cast<std::size_t>(leaf_[i])].push_back(name(i));
      }
    }
    // A switch or block needs a node; one that never registers will do.
    for (int l = 0; l < leaves; ++l) {
      if (members[static_cast<std::size_t>(l)].empty()) {
        members[static_cast<std::size_t>(l)].push_back("away" + std::to_string(l));
      }
    }
    Topology& t = sites->topology;
    if (kind == 1) {
      t.kind = TopologyKind::kTree;
      Topology::Switch left{"left", {}, {}, ""};
      Topology::Switch right{"right", {}, {}, ""};
      for (int l = 0; l < leaves; ++l) {
        const std::string leaf = "leaf" + std::to_string(l);
        t.switches.push_back({leaf, members[static_cast<std::size_t>(l)], {}, ""});
        (l % 2 == 0 ? left : right).switches.push_back(leaf);
      }
      t.switches.push_back(left);
      if (!right.switches.empty()) {
        t.switches.push_back(right);
      }
    } else {
      t.kind = TopologyKind::kBlock;
      for (int l = 0; l < leaves; ++l) {
        t.blocks.push_back({"block" + std::to_string(l), members[static_cast<std::size_t>(l)], ""});
      }
    }
    ASSERT_TRUE(check_topology(t).ok()) << check_topology(t).error().message;
    sites_ = sites;
  }

  std::string draw_name() { return std::string(1, static_cast<char>('a' + random_.below(4))); }
  std::string draw_constraint() {
    switch (random_.below(7)) {
      case 0:
        return draw_name();
      case 1:
        return draw_name() + "&" + draw_name();
      case 2:
        return draw_name() + "|" + draw_name();
      case 3:
        return draw_name() + "*" + std::to_string(random_.between(1, 3));
      case 4:
        return draw_name() + "*" + std::to_string(random_.between(1, 2)) + "&" + draw_name() + "*" +
               std::to_string(random_.between(1, 2));
      case 5:
        return "[" + draw_name() + "|" + draw_name() + "]";
      default:
        return "(" + draw_name() + "|" + draw_name() + ")*" + std::to_string(random_.between(1, 2)) + "&[" +
               draw_name() + "|(" + draw_name() + "&" + draw_name() + ")]";
    }
  }

  // As engine/normalise makes them.
  JobSpec draw_spec() {
    JobSpec s;
    s.nodes_min = static_cast<std::uint32_t>(random_.between(1, std::min(nodes_, 5U)));
    s.nodes_max = random_.permille(500)   ? s.nodes_min
                  : random_.permille(500) ? static_cast<std::uint32_t>(random_.between(s.nodes_min, 6))
                                          : 0;
    s.cpus_per_task = static_cast<std::uint32_t>(random_.between(1, 2));
    s.ntasks = static_cast<std::uint32_t>(random_.between(s.nodes_min, s.nodes_min * 2 + 2));
    if (random_.permille(200)) {
      s.ntasks_per_node = static_cast<std::uint32_t>(random_.between(1, 3));
      s.nodes_min = std::max(s.nodes_min, (s.ntasks + s.ntasks_per_node - 1) / s.ntasks_per_node);
      s.nodes_max = s.nodes_max == 0 ? 0 : std::max(s.nodes_max, s.nodes_min);
    }
    s.exclusive = random_.permille(60);
    switch (random_.below(5)) {
      case 0:
        s.gpus_per_node = static_cast<std::uint32_t>(random_.between(1, 2));
        break;
      case 1:
        s.gpus_per_task = 1;
        break;
      case 2:
        s.gpus = static_cast<std::uint32_t>(random_.between(1, 6));
        break;
      default:
        break;
    }
    switch (random_.below(4)) {
      case 0:
        s.mem_per_node_mib = random_.between(1, 250);
        break;
      case 1:
        s.mem_per_cpu_mib = random_.between(1, 150);
        break;
      case 2:
        s.mem_per_gpu_mib = s.gpus + s.gpus_per_node + s.gpus_per_task != 0 ? random_.between(1, 200) : 0;
        break;
      default:
        break;
    }
    if (random_.permille(100)) {
      s.nodelist.push_back(name(static_cast<std::uint32_t>(random_.below(nodes_))));
    }
    if (random_.permille(100)) {
      s.exclude.push_back(name(static_cast<std::uint32_t>(random_.below(nodes_))));
    }
    if (random_.permille(400)) {
      s.constraint = draw_constraint();
    }
    if (random_.permille(400)) {
      s.switches = static_cast<std::uint32_t>(random_.between(1, 3));
    }
    if (sites_->topology.kind == TopologyKind::kBlock && s.nodes_min == s.nodes_max && s.nodelist.empty() &&
        s.constraint.find('*') == std::string::npos && random_.permille(300)) {
      for (const std::uint32_t segment : {3U, 2U, 1U}) {
        if (s.nodes_min % segment == 0 && segment <= sites_->topology.block_sizes.front()) {
          s.segment = segment;
          break;
        }
      }
    }
    if (s.segment != 0 || s.constraint.find('*') != std::string::npos) {
      s.gpus = 0;  // refused at submission
      s.mem_per_gpu_mib = s.gpus_per_node + s.gpus_per_task != 0 ? s.mem_per_gpu_mib : 0;
    }
    s.time_limit = Duration::from_s(60);
    return s;
  }

  bool has(std::uint32_t node, const FeatureExpr& expr) const {
    switch (expr.kind) {
      case FeatureExpr::Kind::kName: {
        const auto& own = own_features_[node];
        const auto central = sites_->features.find(expr.name);
        return std::find(own.begin(), own.end(), expr.name) != own.end() ||
               (central != sites_->features.end() &&
                std::find(central->second.begin(), central->second.end(), name(node)) != central->second.end());
      }
      case FeatureExpr::Kind::kAll:
        return std::all_of(expr.children.begin(), expr.children.end(), [&](const auto& c) { return has(node, c); });
      case FeatureExpr::Kind::kAny:
        return std::any_of(expr.children.begin(), expr.children.end(), [&](const auto& c) { return has(node, c); });
    }
    return false;
  }

  bool features_suit(const std::set<std::uint32_t>& set) const {
    const auto c = parse_constraint(spec_.constraint, "test");
    EXPECT_TRUE(c.ok());
    const auto count = [&](const FeatureExpr& e) {
      return static_cast<std::size_t>(std::count_if(set.begin(), set.end(), [&](auto n) { return has(n, e); }));
    };
    const auto all = [&](const FeatureExpr& e) { return count(e) == set.size(); };
    return std::all_of(c->every.begin(), c->every.end(), all) &&
           std::all_of(c->counted.begin(), c->counted.end(),
                       [&](const auto& one) { return count(one.what) >= one.nodes; }) &&
           std::all_of(c->same.begin(), c->same.end(),
                       [&](const auto& list) { return std::any_of(list.begin(), list.end(), all); });
  }

  bool network_suits(const std::set<std::uint32_t>& set, bool any_number) const {
    const Topology& t = sites_->topology;
    if (t.kind == TopologyKind::kNone || set.size() == 1) {
      return true;
    }
    std::map<int, std::size_t> leaves;
    for (const std::uint32_t node : set) {
      ++leaves[leaf_[node]];
    }
    if (t.kind == TopologyKind::kTree) {
      return any_number || spec_.switches == 0 || (!leaves.contains(-1) && leaves.size() <= spec_.switches);
    }
    if (leaves.contains(-1)) {
      return false;
    }
    if (spec_.segment != 0) {
      return std::all_of(leaves.begin(), leaves.end(),
                         [&](const auto& one) { return one.second % spec_.segment == 0; });
    }
    const int low = leaves.begin()->first;
    const int high = leaves.rbegin()->first;
    for (const std::uint32_t size : t.block_sizes) {
      const auto together = static_cast<int>(size / t.block_sizes.front());
      if (set.size() <= size) {
        return low / together == high / together;
      }
    }
    // Larger than the largest group: as few of those as hold it.
    const std::uint32_t size = t.block_sizes.back();
    std::set<int> groups;
    for (const auto& [leaf, nodes] : leaves) {
      groups.insert(leaf / static_cast<int>(size / t.block_sizes.front()));
    }
    return set.size() > size && groups.size() <= (set.size() + size - 1) / size;
  }

  Amount free_at(std::uint32_t node, Instant at) const {
    const NodeCapacity& n = ledger_.nodes()[node];
    Amount free = n.free;
    for (const Horizon::Hold& hold : horizon_.on(NodeIndex{node})) {
      if (hold.until <= at) {
        free += hold.amount;
      }
    }
    return free;
  }

  // Whether tasks and GPUs can be given to these nodes, each at least one task.
  bool resources_suit(const std::vector<std::uint32_t>& set, std::size_t from, std::uint32_t tasks, std::uint32_t gpus,
                      Instant at) const {
    if (from == set.size()) {
      return tasks == 0 && gpus == 0;
    }
    const NodeCapacity& n = ledger_.nodes()[set[from]];
    const Amount free = free_at(set[from], at);
    const std::uint32_t most = std::min(tasks, spec_.ntasks_per_node != 0 ? spec_.ntasks_per_node : tasks);
    for (std::uint32_t t = 1; t <= most; ++t) {
      for (std::uint32_t g = 0; g <= gpus; ++g) {
        if (!free.covers(need_of(spec_, n, t, g))) {
          break;
        }
        if (resources_suit(set, from + 1, tasks - t, gpus - g, at)) {
          return true;
        }
      }
    }
    return false;
  }

  bool suits(const std::set<std::uint32_t>& set, Instant at, bool any_number) const {
    if (set.size() < spec_.nodes_min || (spec_.nodes_max != 0 && set.size() > spec_.nodes_max)) {
      return false;
    }
    for (const std::uint32_t node : set) {
      if (!ledger_.nodes()[node].usable ||
          std::find(spec_.exclude.begin(), spec_.exclude.end(), name(node)) != spec_.exclude.end()) {
        return false;
      }
    }
    for (const std::string& wanted : spec_.nodelist) {
      if (std::none_of(set.begin(), set.end(), [&](auto node) { return name(node) == wanted; })) {
        return false;
      }
    }
    return features_suit(set) && network_suits(set, any_number) &&
           resources_suit({set.begin(), set.end()}, 0, spec_.ntasks, spec_.gpus, at);
  }

  std::optional<std::set<std::uint32_t>> search(Instant at, bool any_number) const {
    for (std::uint32_t mask = 1; mask < 1U << nodes_; ++mask) {
      std::set<std::uint32_t> set;
      for (std::uint32_t i = 0; i < nodes_; ++i) {
        if ((mask >> i & 1U) != 0) {
          set.insert(i);
        }
      }
      if (suits(set, at, any_number)) {
        return set;
      }
    }
    return std::nullopt;
  }

  std::optional<Instant> first_instant(Instant lapse) const {
    std::set<Instant> instants = {kNow};
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      for (const Horizon::Hold& hold : horizon_.on(NodeIndex{i})) {
        instants.insert(hold.until);
      }
    }
    if (lapse < Instant{INT64_MAX / 2}) {
      instants.insert(std::max(kNow, lapse));
    }
    for (const Instant at : instants) {
      if (search(at, at >= lapse)) {
        return at;
      }
    }
    return std::nullopt;
  }

  void check_slots(const std::vector<Slot>& slots, Instant at, bool any_number) {
    if (slots.empty()) {
      return;
    }
    std::set<std::uint32_t> set;
    std::vector<NodeShare> shares;
    std::uint32_t tasks = 0;
    std::int64_t gpus = 0;
    for (const Slot& slot : slots) {
      ASSERT_TRUE(set.insert(slot.node.value).second);
      ASSERT_TRUE(free_at(slot.node.value, at).covers(slot.amount)) << describe(slots);
      tasks += slot.tasks;
      gpus += slot.amount.gpus;
      shares.push_back(NodeShare{.node = slot.node, .cores = {}, .gpus = {}, .mem_mib = 0, .tasks = slot.tasks});
    }
    ASSERT_EQ(tasks, spec_.ntasks);
    ASSERT_GE(gpus, std::int64_t{spec_.gpus});
    ASSERT_TRUE(suits(set, at, any_number)) << describe(slots);
    // What decide() asks says the same.
    const char* wrong = unsuitable(ledger_, spec_, filter_, shares, any_number || spec_.switches == 0);
    ASSERT_EQ(wrong, nullptr) << wrong << describe(slots);
  }

  std::string describe(const std::vector<Slot>& slots) const {
    std::string text = "\n" + describe_request(spec_) + " up to " + std::to_string(spec_.nodes_max) + " nodes";
    for (const std::string& wanted : spec_.nodelist) {
      text += " on " + wanted;
    }
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      const NodeCapacity& n = ledger_.nodes()[i];
      text += "\n" + n.name + (n.usable ? "" : " away") + " free " + std::to_string(n.free.cores) + "c " +
              std::to_string(n.free.gpus) + "g " + std::to_string(n.free.mem_mib) + "m leaf " +
              std::to_string(leaf_[i]) + " features";
      for (const char* feature : {"a", "b", "c", "d"}) {
        FeatureExpr e;
        e.name = feature;
        text += has(i, e) ? std::string(" ") + feature : "";
      }
    }
    text += "\nsizes";
    for (const std::uint32_t size : sites_->topology.block_sizes) {
      text += " " + std::to_string(size);
    }
    text += "\nslots";
    for (const Slot& slot : slots) {
      text += " " + name(slot.node.value) + ":" + std::to_string(slot.tasks);
    }
    return text;
  }

  sim::Random random_;
  std::uint32_t nodes_ = 0;
  Ledger ledger_;
  Horizon horizon_;
  std::vector<std::vector<std::string>> own_features_;
  std::vector<int> leaf_;  // -1: in none
  std::shared_ptr<const Sites> sites_;
  JobSpec spec_;
  NodeFilter filter_;
};

TEST(Placement, IsFoundWheneverAnySetOfNodesSuits) {
  const char* given = std::getenv("MUSTER_SEED");
  const std::uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  const int rounds = given != nullptr ? 1 : kRounds;
  for (int i = 0; i < rounds; ++i) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(i);
    Round(seed).check();
    if (HasFatalFailure()) {
      std::cout << "MUSTER_SEED=" << seed << "\n";
      return;
    }
  }
}

}  // namespace
}  // namespace muster::sched

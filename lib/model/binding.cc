#include "lib/model/binding.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "lib/base/text.h"

namespace muster {
namespace {

constexpr std::array kLocalities{std::pair<std::string_view, Locality>{"none", Locality::kNone},
                                 std::pair<std::string_view, Locality>{"prefer", Locality::kPrefer},
                                 std::pair<std::string_view, Locality>{"require", Locality::kRequire}};

constexpr std::array kKinds{std::pair<std::string_view, CpuBindKind>{"none", CpuBindKind::kNone},
                            std::pair<std::string_view, CpuBindKind>{"threads", CpuBindKind::kThreads},
                            std::pair<std::string_view, CpuBindKind>{"cores", CpuBindKind::kCores},
                            std::pair<std::string_view, CpuBindKind>{"l3", CpuBindKind::kL3},
                            std::pair<std::string_view, CpuBindKind>{"numa", CpuBindKind::kNuma},
                            std::pair<std::string_view, CpuBindKind>{"sockets", CpuBindKind::kSockets},
                            std::pair<std::string_view, CpuBindKind>{"rank", CpuBindKind::kRank},
                            std::pair<std::string_view, CpuBindKind>{"map_cpu", CpuBindKind::kMapCpu},
                            std::pair<std::string_view, CpuBindKind>{"mask_cpu", CpuBindKind::kMaskCpu}};

int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool take_hex_prefix(std::string_view& text) {
  if (text.starts_with("0x") || text.starts_with("0X")) {
    text.remove_prefix(2);
    return true;
  }
  return false;
}

// A hexadecimal number of any length as the set of its bits.
Result<IndexSet> parse_mask(std::string_view option, std::string_view what, std::string_view text) {
  std::string_view digits = text;
  take_hex_prefix(digits);
  IndexSet out;
  const std::size_t bits_max = std::size_t{IndexSet::kIndexMax} + 1;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const int value = hex_digit(digits[digits.size() - 1 - i]);
    if (value < 0 || digits.size() > bits_max / 4) {
      return invalid_argument(std::string(option) + ": '" + printable(text.substr(0, 40)) + "' is no mask of " +
                              std::string(what) + "s: write hexadecimal digits, such as 0xff");
    }
    for (std::uint32_t bit = 0; bit < 4; ++bit) {
      if ((value >> bit & 1) != 0) {
        out.insert(static_cast<std::uint32_t>(i * 4) + bit);
      }
    }
  }
  if (out.empty()) {
    return invalid_argument(std::string(option) + ": '" + printable(text.substr(0, 40)) + "' names no " +
                            std::string(what) + ": write hexadecimal digits, such as 0xff");
  }
  return out;
}

Result<IndexSet> parse_thread(std::string_view text) {
  std::string_view digits = text;
  if (take_hex_prefix(digits)) {
    std::uint64_t value = 0;
    for (const char c : digits) {
      const int digit = hex_digit(c);
      value = value * 16 + static_cast<std::uint64_t>(digit);
      if (digit < 0 || value > IndexSet::kIndexMax) {
        return invalid_argument("map_cpu: '" + printable(text.substr(0, 40)) +
                                "' is no hardware thread: write OS numbers, such as 0,8,0x10");
      }
    }
    if (!digits.empty()) {
      return IndexSet::range(static_cast<std::uint32_t>(value), 1);
    }
  }
  MUSTER_ASSIGN(const std::uint64_t value, parse_count(text, "map_cpu", {0, IndexSet::kIndexMax}));
  return IndexSet::range(static_cast<std::uint32_t>(value), 1);
}

// "8*2,9": what stands before each star, that many times.
template <typename Parse>
Result<std::vector<IndexSet>> parse_entries(std::string_view text, const Parse& parse) {
  std::vector<IndexSet> out;
  for (const std::string_view item : split(text, ',')) {
    const std::string_view what = item.substr(0, item.find('*'));
    std::uint64_t times = 1;
    if (what.size() < item.size()) {
      MUSTER_ASSIGN(times, parse_count(item.substr(what.size() + 1), "the number behind '*'", {1, kCpuBindListMax}));
    }
    MUSTER_ASSIGN(const IndexSet entry, parse(what));
    if (out.size() + times > kCpuBindListMax) {
      return invalid_argument("the list has more than " + std::to_string(kCpuBindListMax) +
                              " entries: name as many as there are tasks on a node");
    }
    out.insert(out.end(), times, entry);
  }
  return out;
}

// Without words that only say how much is printed.
std::string_view without_manners(std::string_view text) {
  for (const std::string_view word : {"quiet", "q", "verbose", "v"}) {
    if (text == word) {
      return {};
    }
    if (text.starts_with(word) && text.substr(word.size()).starts_with(',') && text.size() > word.size() + 1) {
      return text.substr(word.size() + 1);
    }
  }
  return text;
}

}  // namespace

Result<Locality> parse_locality(std::string_view text) {
  for (const auto& [name, value] : kLocalities) {
    if (text == name) {
      return value;
    }
  }
  return invalid_argument("'" + printable(text.substr(0, 40)) + "' is no locality: use none, prefer or require");
}

std::string_view locality_name(Locality locality) {
  return kLocalities[static_cast<std::size_t>(locality)].first;
}

Result<CpuBind> parse_cpu_bind(std::string_view text) {
  const std::string_view rest = without_manners(text);
  CpuBind out;
  out.verbose = rest.size() < text.size() && text.starts_with('v');
  if (rest.empty()) {
    return out;
  }
  const std::string_view name = rest.substr(0, rest.find(':'));
  const auto kind = std::find_if(kKinds.begin(), kKinds.end(), [&](const auto& k) {
    return k.first == (name == "ldoms" ? "numa" : name == "no" ? "none" : name);
  });
  const bool has_list = name.size() < rest.size();
  const bool takes_list =
      kind != kKinds.end() && (kind->second == CpuBindKind::kMapCpu || kind->second == CpuBindKind::kMaskCpu);
  if (kind == kKinds.end() || has_list != takes_list) {
    return invalid_argument("'" + printable(text.substr(0, 40)) +
                            "' is no binding: use none, threads, cores, l3, numa, sockets, rank, map_cpu:LIST or "
                            "mask_cpu:LIST");
  }
  out.kind = kind->second;
  out.chosen = true;
  if (takes_list) {
    MUSTER_ASSIGN(out.list, parse_entries(rest.substr(name.size() + 1), [&out](std::string_view what) {
                    return out.kind == CpuBindKind::kMapCpu ? parse_thread(what)
                                                            : parse_mask("mask_cpu", "hardware thread", what);
                  }));
  }
  return out;
}

Result<GpuBind> parse_gpu_bind(std::string_view text) {
  const std::string_view rest = without_manners(text);
  const std::string_view name = rest.substr(0, rest.find(':'));
  const std::string_view value = rest.substr(std::min(rest.size(), name.size() + 1));
  GpuBind out;
  if (rest.empty()) {
    return out;
  }
  if (rest == "none") {
    out.kind = GpuBindKind::kAll;
  } else if (rest == "closest") {
    out.kind = GpuBindKind::kOwn;
  } else if (name == "per_task" || name == "single") {
    out.kind = GpuBindKind::kOwn;
    MUSTER_ASSIGN(const std::uint64_t count, parse_count(value, name, {1, IndexSet::kIndexMax}));
    out.per_task = name == "per_task" ? static_cast<std::uint32_t>(count) : 0;
  } else if (name == "map_gpu" || name == "mask_gpu") {
    out.kind = GpuBindKind::kList;
    MUSTER_ASSIGN(out.list, parse_entries(value, [name](std::string_view what) -> Result<IndexSet> {
                    if (name == "mask_gpu") {
                      return parse_mask("mask_gpu", "GPU", what);
                    }
                    MUSTER_ASSIGN(const std::uint64_t gpu, parse_count(what, "map_gpu", {0, IndexSet::kIndexMax}));
                    return IndexSet::range(static_cast<std::uint32_t>(gpu), 1);
                  }));
  } else {
    return invalid_argument("'" + printable(text.substr(0, 40)) +
                            "' is no binding of GPUs: use none, closest, per_task:N, single:N, map_gpu:LIST or "
                            "mask_gpu:LIST");
  }
  return out;
}

std::string format_cpu_bind(const CpuBind& bind) {
  std::string out(kKinds[static_cast<std::size_t>(bind.kind)].first);
  char separator = ':';
  for (const IndexSet& threads : bind.list) {
    out += separator;
    separator = ',';
    if (bind.kind == CpuBindKind::kMapCpu) {
      out += threads.to_string();
      continue;
    }
    std::string digits;
    for (const std::uint64_t word : threads.words()) {
      for (int shift = 0; shift < 64; shift += 4) {
        digits += "0123456789abcdef"[word >> shift & 15U];
      }
    }
    digits.erase(digits.find_last_not_of('0') + 1);
    std::reverse(digits.begin(), digits.end());
    out += "0x" + digits;
  }
  return out;
}

namespace {

struct Dealing {
  DistributionKind kind = DistributionKind::kBlock;
  std::uint32_t plane = 1;
};

// One word of a distribution; nothing when it is none.
Result<std::optional<Dealing>> parse_dealing(std::string_view word) {
  if (word.empty() || word == "*" || word == "block") {
    return std::optional(Dealing{});
  }
  if (word == "cyclic" || word == "fcyclic") {
    return std::optional(Dealing{.kind = DistributionKind::kCyclic});
  }
  if (word.starts_with("plane=") || word.starts_with("plane:")) {
    MUSTER_ASSIGN(const std::uint64_t plane, parse_count(word.substr(6), "plane", {1, kCpuBindListMax}));
    return std::optional(Dealing{.kind = DistributionKind::kPlane, .plane = static_cast<std::uint32_t>(plane)});
  }
  return std::optional<Dealing>();
}

}  // namespace

Result<Distribution> parse_distribution(std::string_view text) {
  const std::size_t colon = text.starts_with("plane:") ? std::string_view::npos : text.find(':');
  const std::string_view first = text.substr(0, colon);
  MUSTER_ASSIGN(const std::optional<Dealing> nodes, parse_dealing(first));
  std::optional<Dealing> packages = nodes;
  if (colon != std::string_view::npos) {
    MUSTER_ASSIGN(packages, parse_dealing(text.substr(colon + 1)));
  }
  if (!nodes || !packages) {
    return invalid_argument("'" + printable(text.substr(0, 40)) +
                            "' is no distribution: use block, cyclic or plane=SIZE, or two of them as NODES:PACKAGES");
  }
  Distribution out{.kind = packages->kind, .plane = packages->plane, .node_plane = 0};
  if (nodes->kind != DistributionKind::kBlock) {
    out.node_plane = nodes->plane;
  }
  return out;
}

}  // namespace muster

#include "noded/discover/hwloc_source.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "lib/base/text.h"
#include "noded/discover/discover.h"

namespace muster::noded {
namespace {

// The components of hwloc that open a vendor's library or a display.
constexpr std::array kVendorComponents{"cuda", "nvml", "opencl", "rsmi", "levelzero", "gl"};

bool looks_like_file(const std::string& text) {
  return text.find('/') != std::string::npos || text.ends_with(".xml") || access(text.c_str(), F_OK) == 0;
}

// The major number in `<topology version="3.0">`; 0 when the file says nothing, as hwloc 1 did.
int format_version(const std::string& path) {
  // The element stands behind the XML declaration and the document type; dumps begin with nothing longer.
  std::array<char, 4096> buffer{};
  std::ifstream file(path, std::ios::binary);
  file.read(buffer.data(), buffer.size());
  const std::string_view head(buffer.data(), static_cast<std::size_t>(file.gcount()));
  const auto element = head.find("<topology");
  if (element == std::string_view::npos) {
    return 0;
  }
  const std::string_view tag = head.substr(element, head.find('>', element) - element);
  constexpr std::string_view kAttribute = "version=\"";
  const auto version = tag.find(kAttribute);
  if (version == std::string_view::npos) {
    return 0;
  }
  return std::atoi(std::string(tag.substr(version + kAttribute.size(), 4)).c_str());
}

Status check_file(const TopologySource& source) {
  if (access(source.description.c_str(), R_OK) != 0) {
    return bad_topology(source.text, std::string("cannot read the file: ") + std::strerror(errno));
  }
  if (const int version = format_version(source.description); version > 2) {
    return bad_topology(source.text, "the file is in the format of hwloc " + std::to_string(version) +
                                         ", which hwloc 2 cannot read: write it again with "
                                         "lstopo --of xml --export-xml-flags v2");
  }
  return ok_status();
}

Status choose_source(hwloc_topology* t, const TopologySource& source) {
  if (source.description.empty()) {
    return ok_status();
  }
  if (source.is_file) {
    MUSTER_TRY(check_file(source));
    if (hwloc_topology_set_xml(t, source.description.c_str()) != 0) {
      return bad_topology(source.text, "the file is not an hwloc XML topology: make one with lstopo --of xml");
    }
    return ok_status();
  }
  if (hwloc_topology_set_synthetic(t, source.description.c_str()) != 0) {
    return bad_topology(
        source.text, "neither a file nor an hwloc synthetic description: write for example 'package:2 core:16 pu:1'");
  }
  return ok_status();
}

}  // namespace

Error bad_topology(std::string_view text, const std::string& why) {
  return invalid_argument("topology '" + printable(text) + "': " + why);
}

Result<TopologySource> parse_source(std::string_view text) {
  TopologySource out;
  out.text = std::string(text);
  const auto plus = text.rfind("+gpu:");
  out.description = std::string(trim(text.substr(0, plus)));
  if (plus != std::string_view::npos) {
    auto count = parse_count(trim(text.substr(plus + 5)), "+gpu:", {0, kPretendedGpusMax});
    if (!count.ok()) {
      return bad_topology(text, count.error().message);
    }
    out.extra_gpus = *count;
    if (out.description.empty()) {
      return bad_topology(text,
                          "+gpu: needs a file or a description in front of it, such as 'package:2 core:16 pu:1+gpu:4'");
    }
  }
  out.is_file = !out.description.empty() && looks_like_file(out.description);
  return out;
}

Result<HwlocTopology> load(const TopologySource& source) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) {
    return make_error(ErrorCode::kInternal, "hwloc cannot be initialised");
  }
  HwlocTopology t(raw);
  for (const char* component : kVendorComponents) {
    // Fails only for a name that is too long or empty; a component that is not there is no matter.
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, component);
  }
  MUSTER_TRY(choose_source(raw, source));
  // I/O objects are hidden unless asked for, and accelerators are not "important" to every version.
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(raw) != 0) {
    return source.description.empty()
               ? make_error(ErrorCode::kIo, "hwloc cannot read this machine's topology")
               : bad_topology(source.text, "hwloc cannot load it: the file is damaged or no topology");
  }
  return t;
}

}  // namespace muster::noded

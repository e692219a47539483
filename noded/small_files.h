// Reading and writing files of /proc and of control groups. For the shepherd, so without lib/io.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace muster::noded {

// What of it can be read, up to `bytes_max`; nothing of a file that cannot be opened.
inline std::string read_small(const std::string& path, std::size_t bytes_max = 64U << 10U) {
  std::string out;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return out;
  }
  char buffer[4096];
  while (out.size() < bytes_max) {
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n <= 0) {
      break;
    }
    out.append(buffer, static_cast<std::size_t>(n));
  }
  close(fd);
  return out;
}

// In one write, as control groups want it. False: errno says why.
inline bool write_small(const std::string& path, std::string_view text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  const ssize_t n = write(fd, text.data(), text.size());
  const int error_number = errno;
  close(fd);
  errno = error_number;
  return n == static_cast<ssize_t>(text.size());
}

// The number behind `name` at the beginning of a line, "oom_kill 3"; without a name the number that the file is. 0 where
// there is none, and for "max".
inline std::uint64_t read_number(const std::string& path, std::string_view name = {}) {
  const std::string text = read_small(path);
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    if (name.empty() || (line.starts_with(name) && line.size() > name.size() && line[name.size()] == ' ')) {
      return std::strtoull(line.data() + (name.empty() ? 0 : name.size() + 1), nullptr, 10);
    }
    rest.remove_prefix(line.size() == rest.size() ? rest.size() : line.size() + 1);
  }
  return 0;
}

// Folders in a folder.
inline std::vector<std::string> subgroups(const std::string& directory) {
  std::vector<std::string> out;
  DIR* dir = opendir(directory.c_str());
  if (dir == nullptr) {
    return out;
  }
  while (const dirent* entry = readdir(dir)) {
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
      out.push_back(directory + "/" + entry->d_name);
    }
  }
  closedir(dir);
  return out;
}

// An empty control group and those below it. False: something of it is left.
inline bool remove_group(const std::string& path) {
  std::vector<std::string> groups{path};
  for (std::size_t i = 0; i < groups.size(); ++i) {
    for (std::string& below : subgroups(groups[i])) {
      groups.push_back(std::move(below));
    }
  }
  bool removed = true;
  for (auto it = groups.rbegin(); it != groups.rend(); ++it) {
    removed = (rmdir(it->c_str()) == 0 || errno == ENOENT) && removed;
  }
  return removed;
}

}  // namespace muster::noded

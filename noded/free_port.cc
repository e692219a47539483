#include "noded/free_port.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/io/files.h"

namespace muster::noded {
namespace {

constexpr std::uint32_t kTriesMax = 100;

// On every address: without SO_REUSEADDR this fails when anything listens on one of them.
bool can_bind(std::uint32_t port) {
  const io::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return fd.valid() && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace

std::uint32_t free_port(std::uint32_t wanted, std::uint32_t first, std::uint32_t count,
                        const std::set<std::uint32_t>& taken) {
  for (std::uint32_t i = 0; i < kTriesMax && i < count; ++i) {
    const std::uint32_t port = first + (wanted - first + i) % count;
    if (!taken.contains(port) && can_bind(port)) {
      return port;
    }
  }
  return wanted;
}

}  // namespace muster::noded

#include "noded/nursery.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lib/io/process.h"
#include "noded/shepherd_protocol.h"

namespace muster::noded {
namespace {

Status execute(const std::string& program, int socket) {
  io::SpawnOptions spawn;
  spawn.argv = {program};
  spawn.fds = {{socket, kShepherdFd}};
  spawn.new_session = true;
  spawn.work_dir = "/";
  MUSTER_TRY(io::spawn(spawn));
  return ok_status();
}

}  // namespace

Status Nursery::open() {
  // The kind of the socket tells the program what it is to be.
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return io::errno_error("make", "a socket pair", errno);
  }
  io::Fd ours(ends[0]);
  const io::Fd theirs(ends[1]);
  MUSTER_TRY(execute(program_, theirs.get()));
  orders_ = std::move(ours);
  return ok_status();
}

bool Nursery::order(int socket) const {
  char nothing = 0;
  iovec data{&nothing, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &socket, sizeof(int));
  return ::sendmsg(orders_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

Status Nursery::start_shepherd(int socket) {
  if (orders_.valid() && order(socket)) {
    return ok_status();
  }
  if (orders_.valid() && (errno == EAGAIN || errno == ETOOMANYREFS)) {
    return execute(program_, socket);
  }
  MUSTER_TRY(open());
  return order(socket) ? ok_status() : execute(program_, socket);
}

}  // namespace muster::noded

#include "noded/shepherd_nursery.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "noded/shepherd_protocol.h"
#include "noded/shepherd_util.h"

namespace muster::noded {
namespace {

// -1: the daemon is gone. -2: nothing that could be used.
int receive_socket(int orders) {
  char nothing = 0;
  iovec data{&nothing, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t n = recvmsg(orders, &message, MSG_CMSG_CLOEXEC);
  if (n == 0 || (n < 0 && errno != EINTR)) {
    return -1;
  }
  const cmsghdr* header = n < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return -2;
  }
  int socket = -1;
  std::memcpy(&socket, CMSG_DATA(header), sizeof(int));
  return socket;
}

// The daemon learns by the socket why there is no shepherd.
void refuse(int socket, int error_number) {
  const EndedFrame frame{Outcome{.cause = EndCause::kLaunchFailed,
                                 .exit_code = 0,
                                 .signal = 0,
                                 .detail = "cannot start a process: " + text_of_errno(error_number),
                                 .ran = {}}};
  const std::string bytes = encode_frame(frame);
  const ssize_t ignored = send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  static_cast<void>(ignored);
}

}  // namespace

int next_shepherd(int orders) {
  // Nobody waits for shepherds: the kernel shall forget them by itself.
  struct sigaction forget {};
  forget.sa_handler = SIG_IGN;
  forget.sa_flags = SA_NOCLDWAIT;
  sigaction(SIGCHLD, &forget, nullptr);
  while (true) {
    const int socket = receive_socket(orders);
    if (socket == -1) {
      _exit(0);
    }
    if (socket < 0) {
      continue;
    }
    const pid_t pid = fork();
    if (pid == 0) {
      signal(SIGCHLD, SIG_DFL);
      close(orders);
      return socket;
    }
    if (pid < 0) {
      refuse(socket, errno);
    }
    close(socket);
  }
}

}  // namespace muster::noded

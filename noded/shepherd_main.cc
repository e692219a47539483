// muster-shepherd: supervises one attempt of a job on one node. Started by muster-noded only; it takes no arguments and
// reads what to do from descriptor kShepherdFd (noded/shepherd_protocol.h). Where that is a socket of packets, it is the
// nursery from which shepherds are forked (noded/nursery.h).
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "noded/shepherd.h"
#include "noded/shepherd_nursery.h"

namespace {

constexpr char kUsage[] = "muster-shepherd: it is started by muster-noded and not by hand: start muster-noded\n";

// SOCK_STREAM: a shepherd's. SOCK_SEQPACKET: the nursery's. 0: no socket.
int kind_of_socket(int fd) {
  int type = 0;
  socklen_t size = sizeof(type);
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 ? type : 0;
}

// 0, 1 and 2 are open in any case, so that nothing else gets these numbers.
void fill_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) {
      _exit(1);
    }
  }
}

}  // namespace

int main() {
  using muster::noded::kShepherdFd;
  const int kind = kind_of_socket(kShepherdFd);
  if (kind == 0) {
    const ssize_t ignored = write(2, kUsage, sizeof(kUsage) - 1);
    static_cast<void>(ignored);
    return 2;
  }
  fill_standard_descriptors();
  if (kind == SOCK_SEQPACKET) {
    const int socket = muster::noded::next_shepherd(kShepherdFd);
    if (socket != kShepherdFd) {
      dup2(socket, kShepherdFd);
    }
  }
  close_range(static_cast<unsigned>(kShepherdFd) + 1, ~0U, 0);
  signal(SIGPIPE, SIG_IGN);
  setsid();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  muster::noded::Shepherd shepherd(kShepherdFd);
  return shepherd.run();
}

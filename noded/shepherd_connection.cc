// The shepherd's connection to noded.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "noded/shepherd.h"

namespace muster::noded {
namespace {

// Frames that wait for noded; beyond it the tasks' pipes are not read.
constexpr std::size_t kOutWaitingBytesMax = 1U << 20U;

}  // namespace

void Shepherd::on_attach() {
  StateFrame state;
  state.started = started_;
  state.stopping = ending_ || decided_;
  for (const auto& [number, step] : steps_) {
    state.steps.push_back(number);
  }
  // Before what waits, so that noded knows whom it talks to.
  if (attached_) {
    return;
  }
  attached_ = true;
  // Nothing of what waits has been sent to a noded that was not attached.
  out_.push_front(encode_frame(state));
  out_bytes_ += out_.front().size();
}

void Shepherd::on_connection(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    flush();
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    read_connection();
  }
}

void Shepherd::read_connection() {
  char buffer[64U << 10U];
  while (connection_ >= 0) {
    const ssize_t n = read(connection_, buffer, sizeof(buffer));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      break;
    }
    if (n <= 0) {
      drop_connection();
      break;
    }
    reader_.append(std::string_view(buffer, static_cast<std::size_t>(n)));
    Frame frame;
    while (!done_) {
      auto got = reader_.next(frame);
      if (!got.ok()) {
        drop_connection();
        return;
      }
      if (!*got) {
        break;
      }
      on_frame(frame);
    }
    if (n < static_cast<ssize_t>(sizeof(buffer))) {
      break;
    }
  }
}

void Shepherd::on_listener() {
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) {
    return;
  }
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || (peer.uid != geteuid() && peer.uid != 0)) {
    close(fd);
    return;
  }
  drop_connection();  // the newest noded is the one that counts
  connection_ = fd;
  attached_ = false;
  reader_ = FrameReader();
  add_to_epoll(connection_, Token::kConnection, 0, EPOLLIN);
  watch_outputs();
}

bool Shepherd::congested() const {
  return out_bytes_ >= kOutWaitingBytesMax;
}

void Shepherd::send(const Frame& frame) {
  std::string bytes = encode_frame(frame);
  out_bytes_ += bytes.size();
  out_.push_back(std::move(bytes));
}

void Shepherd::flush() {
  const bool was_congested = congested();
  while (connection_ >= 0 && attached_ && !out_.empty()) {
    const std::string& front = out_.front();
    const ssize_t n = ::send(connection_, front.data() + out_offset_, front.size() - out_offset_, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR) {
        break;
      }
      drop_connection();
      break;
    }
    out_offset_ += static_cast<std::size_t>(n);
    if (out_offset_ == front.size()) {
      out_bytes_ -= front.size();
      out_.pop_front();
      out_offset_ = 0;
    }
  }
  const bool want = attached_ && !out_.empty();
  if (connection_ >= 0 && want != connection_writable_watched_) {
    connection_writable_watched_ = want;
    change_epoll(connection_, Token::kConnection, 0, EPOLLIN | (want ? EPOLLOUT : 0U));
  }
  if (was_congested && !congested()) {
    watch_outputs();
  }
}

void Shepherd::drop_connection() {
  if (connection_ < 0) {
    return;
  }
  close_fd(connection_);
  connection_writable_watched_ = false;
  // What waited, and what was on its way, is said again from what we know: StateFrame, and the steps when resumed.
  out_.clear();
  out_offset_ = 0;
  out_bytes_ = 0;
  end_sent_ = false;
  for (auto& [number, step] : steps_) {
    step.muted = true;
  }
}

}  // namespace muster::noded

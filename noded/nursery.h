// Nursery: where shepherds come from. One process of the shepherd's program waits for orders and forks a shepherd for
// each, because a fork of that small process takes a fraction of the time that executing the program takes. It ends when
// the daemon does; its shepherds go on. Owned by the AttemptTable, on the loop's thread.
#pragma once

#include <string>

#include "lib/base/result.h"
#include "lib/io/files.h"

namespace muster::noded {

class Nursery {
 public:
  // `program` is the path of muster-shepherd. Nothing is started before the first shepherd is wanted.
  explicit Nursery(std::string program) : program_(std::move(program)) {}

  // Starts a shepherd that speaks through this socket; the caller closes its own copy. Never waits: a nursery that takes
  // no order now is passed over, and the program executed. One that has died is replaced.
  Status start_shepherd(int socket);

 private:
  Status open();
  // Whether the nursery took the order.
  [[nodiscard]] bool order(int socket) const;

  std::string program_;
  io::Fd orders_;
};

}  // namespace muster::noded

// The nursery's side of noded/nursery.h, in the shepherd's program.
#pragma once

namespace muster::noded {

// Forks a process for each socket that comes through `orders` and returns that socket in each of them, with `orders`
// closed. In the nursery itself it does not return: that ends when the daemon closes its end.
int next_shepherd(int orders);

}  // namespace muster::noded

// What `muster local` and muster-nodeinit say to each other over the init's Unix stream socket: one line each way.
//
//   start     -> "ok PID"      the node's daemon runs (it may have run already)
//   status    -> "ok PID"      0: it does not run
//   boot      -> "ok BOOT_ID"
//   kill      -> "ok 0"        everything of the node is gone; the init ends after it
//   anything  -> "error TEXT"
//
// PIDs are those of the namespace in which the init itself was started.
#pragma once

namespace muster::nodeinit {

inline constexpr unsigned kLineBytesMax = 1'024;

}  // namespace muster::nodeinit

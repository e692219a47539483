// The namespaces that make a process tree look like a machine of its own: host name, process ids, /proc, /dev/shm.
//
// As root all of them are made directly. Otherwise a user namespace comes first, in which the caller keeps its own ids
// (so that jobs run as the same user; the right to mount is used here, before anything is executed, and is gone after
// it). What the system does not allow is left out, down to a plain subreaper (docs/adr/0011-pretended-nodes.md).
#pragma once

#include <string>

#include "lib/base/result.h"

namespace muster::nodeinit {

enum class Isolation {
  kFull,  // host name, process ids with their own /proc, mounts, IPC
  kHost,  // host name, mounts and IPC; no process ids of its own
  kNone,  // nothing: a subreaper that keeps the tree together
};
const char* to_string(Isolation isolation);

struct NamespaceOptions {
  std::string host_name;
  std::string hosts_file;  // shown as /etc/hosts; empty: the machine's
};

// The strongest isolation that this system allows; tried in a child process, so nothing changes here.
Isolation strongest_isolation(const NamespaceOptions& options);

// Moves the calling process (single-threaded) into new namespaces. With kFull its next child becomes their process 1
// and must call enter_as_first.
Status enter(Isolation isolation, const NamespaceOptions& options);
// In that child: mounts what depends on the process ids.
Status enter_as_first();

}  // namespace muster::nodeinit

# Shared by the scripts beside it; sourced, not run. POSIX shell, because a fresh Debian has nothing else for sure.

# The root of the tree, absolute.
MUSTER_ROOT=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd -P)
export MUSTER_ROOT

# say TEXT...: one line of progress on standard error, so that the output of what is built stays clean.
say() {
  printf '== %s\n' "$*" >&2
}

# die TEXT...: the reason, and what to do, on standard error; exit 1.
die() {
  printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
  exit 1
}

# cores: how many jobs to run side by side.
cores() {
  nproc 2>/dev/null || echo 2
}

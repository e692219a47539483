#!/bin/bash
#MUSTER --job-name hybrid
#MUSTER --nodes 2
#MUSTER --ntasks-per-node 2
#MUSTER --cpus-per-task 2
#MUSTER --time 5m
#MUSTER --output hybrid-%j.out
# MPI ranks with threads: 2 nodes, 2 ranks on each, 2 threads in each rank. Submit it from the root of the tree, after
# script/build:
#
#   muster submit examples/hybrid/hybrid.sh
set -eu
program=${1:-build/release/examples/hybrid/hybrid}
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# The step that mpirun makes has all cores of the job on each node, and mpirun deals them out: two for each rank. Pretended
# nodes have cores that this machine does not have, so there nothing is bound.
bind="--map-by slot:PE=$MUSTER_CPUS_PER_TASK --bind-to core"
if [ "${MUSTER_EXAMPLE_BIND-none}" = none ]; then
  bind="--bind-to none"
fi
# shellcheck disable=SC2086  # two options
exec mpirun --mca mpi_yield_when_idle 1 $bind "$program"

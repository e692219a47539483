#!/bin/bash
#MUSTER --job-name heat
#MUSTER --nodes 4
#MUSTER --ntasks-per-node 2
#MUSTER --time 5m
#MUSTER --output heat-%j.out
# The heat solver on 4 nodes with 2 ranks each. Submit it from the root of the tree, after script/build:
#
#   muster submit examples/heat/heat.sh
#
# The program may be named as the first argument, and arguments for it may follow.
set -eu
program=${1:-build/release/examples/heat/heat}
shift || true

# Open MPI wants to be told twice that root means it.
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# mpirun learns the nodes and the ranks for each from the job and starts its daemons there through the queue. Several
# pretended nodes share the cores of one machine, where ranks must give way while they wait instead of spinning.
exec mpirun --mca mpi_yield_when_idle 1 --bind-to none "$program" "$@"

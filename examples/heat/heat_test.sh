#!/bin/sh
# heat_test.sh PROGRAM RANKS: runs the solver with mpirun on this machine alone and looks for its verdict.
set -eu
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
output=$(mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -np "$2" "$1" --iterations 400)
echo "$output"
echo "$output" | grep -q "^heat: $2 ranks on 1 node.* PASS\$"

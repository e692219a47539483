#!/bin/bash
#MUSTER --job-name ddp
#MUSTER --nodes 2
#MUSTER --ntasks-per-node 2
#MUSTER --time 10m
#MUSTER --output ddp-%j.out
# Data-parallel training with PyTorch on 2 nodes with 2 processes each. Submit it from the root of the tree:
#
#   muster submit examples/pytorch/ddp.sh
#
# `muster run` gives each process MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK, LOCAL_RANK and the GPUs of its task. Needs PyTorch
# (Debian: python3-torch); PYTHON names another interpreter, the first argument another program.
set -eu
program=${1:-examples/pytorch/train.py}
shift || true
exec muster run "${PYTHON:-/usr/bin/python3}" "$program" "$@"

#!/bin/sh
#MUSTER --job-name hello
#MUSTER --ntasks 1
#MUSTER --time 1m
# The smallest job: says where it runs.
echo "hello from job $MUSTER_JOB_ID on $(hostname), which holds the nodes $MUSTER_NODELIST"

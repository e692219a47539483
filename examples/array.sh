#!/bin/sh
#MUSTER --job-name squares
#MUSTER --array 1-20
#MUSTER --time 1m
#MUSTER --output squares-%A_%a.out
# An array: twenty small jobs from one submission, each with its own number.
echo "$MUSTER_ARRAY_TASK_ID squared is $((MUSTER_ARRAY_TASK_ID * MUSTER_ARRAY_TASK_ID)) on $(hostname)"

#!/bin/sh
# Submit a training run to a Ray cluster as a job, which continues when this terminal is closed.
#   RAY_ADDRESS=http://head-node:8265 examples/cluster_ray_job.sh examples/cluster_2_plus_2_nodes.yaml /shared/runs/math-8b
# Needs `pip install "ray[default]"` here and on the head node, and verl-lite on every node. Ray uploads
# the current folder with the job, for the config and local reward files.
set -eu
config=${1:?usage: cluster_ray_job.sh CONFIG RUN_DIR [key.path=value ...]}
run_dir=${2:?usage: cluster_ray_job.sh CONFIG RUN_DIR [key.path=value ...]}
shift 2
# --auto-resume: a job that is submitted or restarted again continues the run
exec ray job submit --working-dir . --entrypoint-num-cpus 1 -- \
    verl-lite train "$config" "$@" cluster.address=auto --run-dir "$run_dir" --auto-resume

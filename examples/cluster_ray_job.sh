#!/bin/sh
# Submit a training run to a Ray cluster as a job: it goes on when this terminal is closed.
#   RAY_ADDRESS=http://head-node:8265 examples/cluster_ray_job.sh examples/cluster_2_plus_2_nodes.yaml /shared/runs/math-8b
# Needs `pip install "ray[default]"` here and on the head node. The nodes have verl-lite installed already;
# the folder this is called in travels with the job, for the config and local reward files.
set -eu
config=${1:?usage: cluster_ray_job.sh CONFIG RUN_DIR [key.path=value ...]}
run_dir=${2:?usage: cluster_ray_job.sh CONFIG RUN_DIR [key.path=value ...]}
shift 2
# --auto-resume looks where the job runs: submitted again, or started again by the cluster, the run goes on
exec ray job submit --working-dir . --entrypoint-num-cpus 1 -- \
    verl-lite train "$config" "$@" cluster.address=auto --run-dir "$run_dir" --auto-resume

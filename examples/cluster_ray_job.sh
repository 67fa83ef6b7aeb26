#!/bin/sh
# Submit a training run to a Ray cluster as a job: it goes on when this terminal is closed.
#   RAY_ADDRESS=http://head-node:8265 examples/cluster_ray_job.sh examples/cluster_2_plus_2_nodes.yaml /shared/runs/math-8b
# Call it in the folder that is to travel with the job: this one, for the config and local reward files.
# Needs `pip install "ray[default]"` here and on the head node; the nodes have verl-lite installed already.
set -eu
usage="usage: cluster_ray_job.sh CONFIG RUN_DIR [key.path=value ...]"
if [ "${1:-}" != --on-cluster ]; then
    config=${1:?$usage}
    run_dir=${2:?$usage}
    shift 2
    exec ray job submit --working-dir . --entrypoint-num-cpus 1 -- \
        sh "$0" --on-cluster "$config" "$run_dir" "$@"
fi
# from here on this is the job itself: where the run was begun before, it goes on from its last checkpoint
config=$2
run_dir=$3
shift 3
resume=""
[ ! -e "$run_dir/config.yaml" ] || resume="--resume"
exec verl-lite train "$config" "$@" cluster.address=auto --run-dir "$run_dir" $resume

#!/usr/bin/env bash
# Every GPU check and benchmark, in stages with time limits: at most 8 minutes together on one 80+ GB GPU.
#   benchmarks/gpu/run_all.sh --out RESULTS [--bundle PARTS] [--smollm2 FILE.gguf] [--only STAGE ...]
#   benchmarks/gpu/run_all.sh --rehearse --out RESULTS      # on the CPU, tiny shapes, under a minute
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python}" "$here/run_all.py" "$@"

#!/usr/bin/env bash
# The GPU check, on a machine with Python 3.12, torch and a GPU, offline: bash bench/gpu_check.sh [--out FOLDER]
# [--only PART] [--dry] [--seconds N]. PYTHON names another Python than python3.
#
# The wheels of .gpu-wheels/ (make gpu-wheels) are laid over that Python's own packages, in a folder that is removed at the
# end; torch and what else the machine has are used as they are. Without wheels its own packages are used alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-python3}"
wheels="${GPU_WHEELS:-.gpu-wheels}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

paths="$PWD/src:$PWD"
if compgen -G "$wheels/*.whl" > /dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
        --target "$work/site" "$wheels"/*.whl
    paths="$work/site:$paths"
    echo "==> environment of $(ls "$wheels" | wc -l) wheels made in $SECONDS s"
else
    echo "==> no wheels in $wheels: the packages of $python are used"
fi

# No hub is asked for anything; what torch compiles is kept for all parts.
export PYTHONPATH="$paths" PREFLOW_HOME="$work/home" HF_HUB_OFFLINE=1 TMPDIR="$work"
"$python" -m bench.gpu --seconds "$((300 - SECONDS))" "$@"

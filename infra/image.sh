#!/usr/bin/env bash
# Builds the image and does a tiny run in it, as the user that it runs as. Called by `make image`.
#   BASE         the image to build on (python:3.11-slim)
#   TORCH_INDEX  an index of torch's wheels besides pip's usual one, e.g. that of the CPU wheels
#   ENGINE       docker or buildah; docker where its daemon answers
#   BUILD_ARGS   more options of the build, e.g. the --volume of a certificate
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=preflow:local
options=(--file infra/Dockerfile --tag "$name" --build-arg "BASE=${BASE:-python:3.11-slim}"
    --build-arg "TORCH_EXTRA_INDEX_URL=${TORCH_INDEX:-}"
    --build-arg "PREFLOW_COMMIT=${PREFLOW_COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}")
# Words, not one text.
# shellcheck disable=SC2206
more=(${BUILD_ARGS:-})

engine=${ENGINE:-}
if [[ -z "$engine" ]]; then
    if docker info >/dev/null 2>&1; then
        engine=docker
    elif command -v buildah >/dev/null; then
        engine=buildah
    else
        echo "No Docker daemon answers, and buildah is missing: start the one, or install the other" >&2
        exit 1
    fi
fi

# A model of two layers with its data, which the run reads; nothing is fetched.
tiny=$PWD/build/tiny
rm -rf "$tiny"
mkdir -p "$tiny"
python -c 'import sys
from pathlib import Path
from tests.conftest import make_model, write_tiny_recipe
make_model(Path(sys.argv[1], "model"))
write_tiny_recipe(Path(sys.argv[1]), Path("/tiny/model"))' "$tiny" >/dev/null 2>&1
chmod -R a+rX build "$tiny"

# In the image, as the user that it runs as: a read-only application, Prefect's page, a whole run.
read -r -d '' check <<'RUN' || true
set -e
test "$(id -u)" = 10001 && ! test -w /app
preflow --version
python -m uvicorn --factory flows.operation.prefect_app:create_app --port 4299 --log-level error &
server=$!
python -c 'import time, urllib.request
for attempt in range(300):
    try:
        page = urllib.request.urlopen("http://127.0.0.1:4299/").read()
        break
    except OSError:
        time.sleep(1)
assert b"<title>Prefect" in page, page[:200]'
kill "$server"
HF_HUB_OFFLINE=1 preflow run /tiny/tiny.yaml
RUN

echo "==> building $name with $engine"
case $engine in
    docker)
        docker build "${options[@]}" "${more[@]}" .
        echo "==> a tiny run in it"
        docker run --rm --network none --volume "$tiny:/tiny:ro" "$name" sh -c "$check"
        ;;
    buildah)
        # Without a daemon and its rights, commands run in a chroot.
        buildah build --isolation chroot --layers "${options[@]}" "${more[@]}" .
        echo "==> a tiny run in it"
        container=$(buildah from --pull-never "localhost/$name")
        trap 'buildah rm "$container" >/dev/null' EXIT
        buildah run --isolation chroot --volume "$tiny:/tiny:ro" "$container" -- sh -c "$check"
        ;;
    *)
        echo "ENGINE is '$engine', expected docker or buildah" >&2
        exit 1
        ;;
esac
echo "==> $name is built"

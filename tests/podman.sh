#!/usr/bin/env bash
# `make test-podman`: the tests on the engine again, on a Podman of their own, rootful or not as whoever calls it is.
# Bounded in time. Says SKIPPED, and ends with 77, where Podman is missing or cannot run a container at all.
# CONTAINERS_CONF is heeded.
set -euo pipefail
cd "$(dirname "$0")/.."

image=openswe-python-3.11
seconds_max=900

skip() {
  echo "SKIPPED: nothing was tested on Podman: $1" >&2
  exit 77
}
command -v podman >/dev/null || skip "it is not installed; apt-get install podman"

dir=$(mktemp -d /tmp/bottega-podman.XXXXXX)
podman() { command podman --root "$dir/root" --runroot "$dir/run" "$@"; }
service=
clean_up() {
  [ -z "$service" ] || kill "$service" 2>/dev/null || true
  podman rm --all --force >/dev/null 2>&1 || true
  podman rmi --all --force >/dev/null 2>&1 || true
  command podman unshare rm -rf "$dir" 2>/dev/null || rm -rf "$dir"
}
trap clean_up EXIT

docker save "$image" | podman load --quiet
podman run --rm --network none "$image" true || skip "it cannot run a container here (see above)"
command podman --root "$dir/root" --runroot "$dir/run" system service --time=0 "unix://$dir/podman.sock" &
service=$!
for _ in $(seq 100); do [ -S "$dir/podman.sock" ] && break; sleep 0.1; done
DOCKER_HOST="unix://$dir/podman.sock" timeout "$seconds_max" \
  cargo test -p worker --no-fail-fast --test engine --test attacks --test dockerfile -- --test-threads=2

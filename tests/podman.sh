#!/usr/bin/env bash
# `make test-podman`: the tests on the engine again, on a Podman of their own, rootful or not as whoever calls it is.
# Bounded in time; says so, and is content, where Podman cannot run a container at all. CONTAINERS_CONF is heeded.
set -euo pipefail
cd "$(dirname "$0")/.."

image=openswe-python-3.11
seconds_max=900
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
if ! podman run --rm --network none "$image" true; then
  echo "podman is installed, but cannot run a container here (see above): nothing was tested on it" >&2
  exit 0
fi
command podman --root "$dir/root" --runroot "$dir/run" system service --time=0 "unix://$dir/podman.sock" &
service=$!
for _ in $(seq 100); do [ -S "$dir/podman.sock" ] && break; sleep 0.1; done
DOCKER_HOST="unix://$dir/podman.sock" timeout "$seconds_max" \
  cargo test -p worker --no-fail-fast --test engine --test attacks --test dockerfile -- --test-threads=2

#!/usr/bin/env bash
# `make test-podman`: the tests on the engine again, on a Podman of their own, rootful or not as whoever calls it is.
# Bounded in time. Says SKIPPED, and ends with 77, where Podman is missing or cannot run a container at all.
# CONTAINERS_CONF is heeded.
set -euo pipefail
cd "$(dirname "$0")/.."

image=openswe-python-3.11
seconds_max=1800

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

# An OCI runtime for hosts on which root may not raise limits, as in many containers: it lowers what a bundle asks for
# to what there is.
cat >"$dir/lowered" <<'EOF'
#!/usr/bin/env python3
import json, os, resource, sys

arguments = sys.argv[1:]
if "create" in arguments and "--bundle" in arguments:
    path = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")
    with open(path) as file:
        spec = json.load(file)
    for limit in spec.get("process", {}).get("rlimits", []):
        hard = resource.getrlimit(getattr(resource, limit["type"]))[1]
        if hard != resource.RLIM_INFINITY:
            limit.update(hard=min(limit["hard"], hard), soft=min(limit["soft"], hard))
    with open(path, "w") as file:
        json.dump(spec, file)
os.execvp("runc", ["runc", *arguments])
EOF
chmod +x "$dir/lowered"

docker save "$image" | podman load --quiet
runs() { podman run --rm --network none "$image" true; }
if ! runs && [ -z "${CONTAINERS_CONF-}" ]; then
  command -v runc >/dev/null || skip "it cannot run a container here (see above), and runc is not installed"
  echo "once more with runc, control groups as files, and limits as they are"
  printf '%s\n' '[engine]' 'runtime = "lowered"' 'cgroup_manager = "cgroupfs"' 'events_logger = "file"' \
    '[engine.runtimes]' "lowered = [\"$dir/lowered\"]" >"$dir/containers.conf"
  export CONTAINERS_CONF=$dir/containers.conf
  runs || skip "it cannot run a container here (see above)"
fi
# conmon leaves a file `oom` where it is started, of a container that met its memory limit.
(cd "$dir" && exec podman --root "$dir/root" --runroot "$dir/run" system service --time=0 "unix://$dir/podman.sock") &
service=$!
for _ in $(seq 100); do [ -S "$dir/podman.sock" ] && break; sleep 0.1; done
export DOCKER_HOST="unix://$dir/podman.sock"
cargo build --workspace --bins
timeout "$seconds_max" cargo test -p worker -p tests --no-fail-fast --test engine --test dockerfile \
  --test attacks --test evaluate --test life_cycle -- --test-threads=2
timeout "$seconds_max" cargo test -p janitor --test engine on_podman -- --ignored

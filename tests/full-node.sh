#!/usr/bin/env bash
# `make test-full-node [ONLY=ENGINE] [SUITES="NAME..."]`: the tests on an engine on those of a whole machine under QEMU, with
# control groups v2 managed by systemd. Bounded in time; leaves nothing but the machine's disk in target/lab. Says
# SKIPPED, and ends with 77, where QEMU is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

base=openswe-python-3.11
seconds_max=${FULL_NODE_SECONDS_MAX:-7200}

for program in qemu-system-x86_64 mmdebstrap mkfs.ext4 setpriv; do
  command -v "$program" >/dev/null && continue
  echo "SKIPPED: nothing was tested on a full node: $program is missing;" \
    "apt-get install qemu-system-x86 mmdebstrap e2fsprogs util-linux" >&2
  exit 77
done

work=$(mktemp -d "${TMPDIR:-/tmp}/bottega-full-node.XXXXXX")
tests=
clean_up() {
  [ -z "$tests" ] || kill "$tests" 2>/dev/null || true
  [ -z "$tests" ] || wait "$tests" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What the tests need of the base image: a compiler and its like would double the time that engines take to import it.
mkdir "$work/hand-in" "$work/hand-in/bin"
docker image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$base" |
  sed '/^$/d; s/.*/ENV &/' >"$work/hand-in/env"
docker run --rm --network none --user 0 --entrypoint tar "$base" -C / -c --one-file-system \
  --exclude='./usr/lib/gcc*' --exclude='./usr/include/*' --exclude='./usr/share/*' --exclude='./usr/local/*/*' \
  --exclude='./usr/lib/git-core' --exclude='./usr/lib/python3' --exclude='./usr/lib/python3.11/test' \
  --exclude='./usr/lib/valgrind' --exclude='*.a' --exclude='*san.so*' --exclude='./usr/lib/x86_64-linux-gnu/perl' \
  --exclude='./usr/lib/x86_64-linux-gnu/gconv' --exclude='./usr/bin/*-linux-gnu-*' --exclude='./usr/lib/*BLT*' \
  --exclude='./var/lib/dpkg' --exclude='./var/cache/*' . >"$work/base.tar"

cargo build --bins
for program in bottega-worker bottega-janitor; do strip -o "$work/hand-in/bin/$program" "target/debug/$program"; done
tests_of() {
  cargo test "$@" --no-run --message-format=json |
    sed -n 's/.*"kind":\["test"\].*"name":"\([a-z]*\)".*"executable":"\([^"]*\)".*/\1 \2/p'
}
tests_of -p worker | while read -r name program; do strip -o "$work/hand-in/bin/$name" "$program"; done
tests_of -p janitor --test engine | while read -r _ program; do strip -o "$work/hand-in/bin/janitor" "$program"; done

export FULL_NODE_HAND_IN=$work/hand-in FULL_NODE_BASE=$work/base.tar FULL_NODE_ONLY=${ONLY:-} FULL_NODE_SUITES=${SUITES:-} TMPDIR=$work
timeout --kill-after=30 "$seconds_max" cargo test -p tests --test full_node -- --ignored --nocapture &
tests=$!
wait "$tests" && status=0 || status=$?
tests=
exit "$status"

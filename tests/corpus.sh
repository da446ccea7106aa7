#!/usr/bin/env bash
# `make corpus`: every task of the corpus through the real daemons, then its outcome against what is expected.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=target/release
out=target/corpus

"$bin/bottega" images build
"$bin/corpus" make --out "$out/tasks"
"$bin/bottega" init --spool "$out/spool"
"$bin/bottega" submit --spool "$out/spool" \
    --repositories "$PWD/$out/tasks/repositories/{owner}+{name}/repo" "$out/tasks/tasks.jsonl"
"$bin/bottega" up --until-idle --spool "$out/spool" --state "$out/state"
"$bin/corpus" check --expected "$out/tasks/expected.json" --spool "$out/spool"

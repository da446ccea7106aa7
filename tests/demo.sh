#!/usr/bin/env bash
# `make demo`: real tasks, from release archives to verified environments and a dataset. Everything it makes lies
# under target/demo, but for the images, which lie in the engine. A second run reuses what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=target/release
demo=target/demo
say() { printf '\n== %s\n' "$*"; }

say "Base image: a Debian root with Python 3.11 that every environment begins with"
"$bin/bottega" images build 3.11

say "Demo tasks: pairs of releases of real packages, fetched and made into repositories and rows"
"$bin/corpus" make --demo --out "$demo/corpus"

say "Spool: every state a directory, every task a JSON file, under $demo/spool"
"$bin/bottega" init --spool "$demo/spool"
"$bin/bottega" submit --spool "$demo/spool" \
    --repositories "$PWD/$demo/corpus/repositories/{owner}+{name}/repo" "$demo/corpus/tasks.jsonl"

say "Master, worker and janitor at work; Ctrl-C stops them, the next run continues"
"$bin/bottega" up --until-idle --table --spool "$demo/spool" --state "$demo/state"

say "Dataset"
"$bin/bottega" export --spool "$demo/spool" --format openswe --out "$demo/dataset.jsonl"
echo "look around:  $bin/bottega show --spool $demo/spool ID   ls $demo/spool/{done,failed,results}"

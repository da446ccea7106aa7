#!/usr/bin/env bash
# `make test`: the whole suite, after the base image that the tests on the real engine use.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --workspace --bins
target/debug/bottega images build 3.11
cargo test --workspace --no-fail-fast

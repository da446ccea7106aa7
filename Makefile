# The two commands of a newcomer are `make demo` and `make test`; README.md says what to expect of each.
.DEFAULT_GOAL := help
SHELL := /bin/bash

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

set-up: ## install what is missing (git, mmdebstrap, Docker Engine); says what and why
	@systemd/set-up.sh

build: ## the four programs, optimised, in target/release
	cargo build --release --workspace --bins

demo: set-up build ## real tasks, from release archives to verified environments and a dataset
	@tests/demo.sh

test: set-up ## the whole test suite, on the real engine
	@tests/test.sh

lint: ## formatting, clippy, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny check bans licenses sources

corpus: set-up build ## every task of the corpus, against what is expected of it
	@tests/corpus.sh

bench: build ## the queue beside bare renames, dirq, Redis and HyperQueue; the table goes to target/bench
	cargo bench -p queue-format --bench spool

.PHONY: help set-up build demo test lint corpus bench

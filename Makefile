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

test-podman: set-up ## the tests on the engine again, on Podman; ends with 77 where it cannot run
	@tests/podman.sh

test-full-node: set-up ## the tests on an engine on Docker and Podman under systemd and cgroup v2, in QEMU; an hour, 77 where it cannot run
	@tests/full-node.sh

janitor-long: ## the janitor in a million schedules, and on an engine of its own beside thousands of objects
	cargo test --release -p janitor --lib --test engine -- --ignored --nocapture --test-threads=1

ingest-long: ## splits of this history and of thousands of commits, put together again by git; SPLIT_REPOSITORIES=/a/.git:/b names more
	cargo test -p master --test patches -- --ignored --nocapture

lint: ## formatting, clippy, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny check bans licenses sources

corpus: set-up build ## every task of the corpus, against what is expected of it
	@tests/corpus.sh

bench: build ## the queue beside bare renames, dirq, Redis and HyperQueue (target/bench); containers beside bare calls; the janitor; checkouts; ingestion
	cargo bench -p queue-format --bench spool
	cargo bench -p worker --bench containers
	cargo bench -p janitor --bench leftovers
	cargo bench -p worker --bench checkout
	cargo bench -p master --bench ingest

bench-agents: ## what agents cost beside model and engine, and what conversations hold (docs/agents.md)
	cargo test -p worker --test agents -- --ignored --nocapture --test-threads=1 figures::

lab = cargo build --workspace --bins && target/debug/lab

lab: ## a cluster on this machine (root): an NFS server and three nodes with the package; then target/debug/lab sh node1
	$(lab) up

lab-status: ## how that cluster is
	$(lab) status

lab-down: ## end it, and whatever is left of one that was killed
	$(lab) down

chaos: ## everything that can happen to a cluster, and a judgement of the spool after each: an hour or more
	$(lab) --dir target/lab/chaos chaos $(SCENARIOS)

package = target/package
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

deb: build ## a package for Debian and Ubuntu, in target/debian
	@command -v cargo-deb >/dev/null || cargo install cargo-deb --locked
	systemd/package/stage.sh $(package)/root target/release
	cargo deb --no-build -p master

rpm: build ## a package for RPM distributions, in target/generate-rpm
	@command -v cargo-generate-rpm >/dev/null || cargo install cargo-generate-rpm --locked
	systemd/package/stage.sh $(package)/root target/release
	cargo generate-rpm -p master

tarball: ## statically linked programs and an install.sh, for any distribution, in target/package
	systemd/package/tarball.sh $(package) $(version)

.PHONY: help set-up build demo bench-agents test test-podman test-full-node janitor-long ingest-long lint corpus bench lab lab-status lab-down chaos deb rpm tarball

//! The janitor on the real engine. An engine that does not answer fails these tests: nothing here is skipped.

#[path = "../common/mod.rs"]
mod common;
mod crash;
mod daemon;
mod mass;
mod node;
mod own;
mod ownership;
mod podman;
mod sorrows;

//! The janitor on the real engine. An engine that does not answer fails these tests: nothing here is skipped.

mod crash;
mod daemon;
mod mass;
mod node;
mod own;
mod ownership;
mod sorrows;

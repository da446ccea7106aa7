//! The janitor on the real engine. An engine that does not answer fails these tests: nothing here is skipped.

mod crash;
mod daemon;
mod node;
mod ownership;
mod sorrows;

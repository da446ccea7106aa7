//! The first stage: what is there.

mod engine;
mod events;
mod hang;
mod host;
mod house;
mod link;

pub(crate) use engine::Engine;
pub(crate) use host::{Files, look_at_work_dir, open_spool};
pub(crate) use house::{House, allocated_bytes, is_removed};
pub(crate) use link::Link;

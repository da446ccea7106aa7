//! The first stage: what is there.

mod engine;
mod host;

pub(crate) use engine::{Engine, Removal};
pub(crate) use host::{Files, look_at_work_dir, open_spool};

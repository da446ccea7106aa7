//! Measures a spool's file system from one node, and tells what is wrong with it.

mod examine;
mod journeys;
mod mount;
mod timing;

pub use examine::{Diagnosis, Space, Symptom};
pub use mount::Mount;
pub use timing::{Measured, Spread};

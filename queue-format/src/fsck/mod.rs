//! Checks every invariant of a spool, while daemons work on it or not, and plans repairs that are moves of single
//! files. Memory grows by 16 bytes a task; what a daemon moves meanwhile is looked at twice before it is a finding.

mod daemons;
mod done;
mod finding;
mod index;
mod inputs;
mod items;
mod ledger;
mod mend;
mod places;
mod results;
mod run;
mod surroundings;

pub use finding::{Check, Finding, Severity, Step};
pub use run::{Checked, Depth};

//! `bottega-master`: publishes what is dropped into `incoming/`, releases delayed tasks, keeps the summary.
//!
//! Two masters over one spool are safe, on one node or on two:
//! - a dropped file is taken by a rename into the master's own directory, which only one of them can win; a dead
//!   master's files are adopted by another on its node, which its life lock proves dead;
//! - an id that the spool has is never published again; publishers of one node take turns. (Across nodes, one id
//!   in two files that are dropped in the same instant can be published twice: drop a dataset on one node.)
//! - releasing a delayed task and reaping a dead incarnation are renames of single files to names that are the same
//!   whoever makes them: the second finds nothing to rename;
//! - the summary is replaced as a whole, and whoever writes last is as right as the other.
//!
//! Nothing is kept between two rounds that a restart would miss.

mod config;
mod round;
mod serve;
mod steering;

pub use config::MasterConfig;
pub use serve::{Daemon, DaemonError};

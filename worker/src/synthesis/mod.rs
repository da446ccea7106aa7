//! From a tree to an environment: explore, Dockerfile, evaluation script, analysis, behind one trait that rules
//! and, later, agents implement.

mod contract;

pub use contract::*;

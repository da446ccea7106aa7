//! The container engine behind one narrow trait: what the stages need of it, and nothing that is Docker's own.

mod contract;

pub use contract::*;

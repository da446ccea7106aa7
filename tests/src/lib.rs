//! The harness, the corpus of real tasks, and what crosses rooms.

pub mod corpus;
pub mod full_node;
pub mod harness;
pub mod lab;
mod machine;
pub mod node;

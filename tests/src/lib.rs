//! tests

pub mod corpus;

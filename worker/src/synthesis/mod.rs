//! From a tree to an environment: explore, Dockerfile, evaluation script, analysis, behind one trait that rules here and
//! [agents](crate::agents) implement.

mod contract;
mod dependencies;
mod dockerfile;
pub(crate) mod eval_script;
mod modules;
pub(crate) mod patch;
mod project;
mod python;
mod recipe;
mod repair;
mod rules;
mod targets;
mod text;
pub(crate) mod tree;

pub use contract::*;
pub use eval_script::PATCH_FAILED_EXIT_CODE;
pub use rules::Rules;

//! From a tree to an environment: explore, Dockerfile, evaluation script, analysis, behind one trait that rules
//! and, later, agents implement.

mod contract;
mod dependencies;
mod dockerfile;
mod eval_script;
mod modules;
mod patch;
mod project;
mod python;
mod recipe;
mod repair;
mod rules;
mod targets;
mod text;
mod tree;

pub use contract::*;
pub use eval_script::PATCH_FAILED_EXIT_CODE;
pub use rules::Rules;

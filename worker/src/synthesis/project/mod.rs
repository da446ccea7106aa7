//! What a tree's own files say about how it is built, which Pythons it knows and how it is tested.
//!
//! Each reader knows one kind of file and adds what it finds; nothing here decides anything.

mod continuous;
mod lock;
mod model;
mod pyproject;
mod pytest;
mod requirement_files;
mod setup_cfg;
mod setup_py;
mod tox;

use super::tree::Tree;
pub(super) use model::{Content, Project, Source, Tier};
pub(super) use pytest::PytestConfig;
pub(super) use tox::LABEL as TOX_LABEL;

/// Reads every file that is known.
pub(super) fn read(tree: &Tree) -> Project {
    let mut project = Project { pytest: pytest::read(tree), ..Project::default() };
    pyproject::read(tree, &mut project);
    setup_cfg::read(tree, &mut project);
    setup_py::read(tree, &mut project);
    requirement_files::read(tree, &mut project);
    tox::read(tree, &mut project);
    continuous::read(tree, &mut project);
    lock::read(tree, &mut project);
    project
}

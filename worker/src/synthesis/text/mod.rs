//! What files are made of: INI sections, Python literals, requirements, versions. Pure functions of text.

mod ini;
mod literal;
mod reader;
mod requirement;
mod specifier;

pub(super) use ini::Ini;
pub(super) use literal::{Literal, PythonSource};
pub(super) use requirement::{Requirement, RequirementLine, normalise};
pub(super) use specifier::{from_poetry, python_spec_allows, python_versions_in};

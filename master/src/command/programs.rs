use std::path::PathBuf;

use super::{CommandError, Host};
use crate::up::Role;

/// A daemon's executable: beside our own, else on the PATH.
pub(super) fn find(role: Role, host: &Host) -> Result<PathBuf, CommandError> {
    let name = role.program();
    let beside = host.executable.parent().map(|dir| dir.join(name));
    let path = host.environment.get("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file()).ok_or_else(|| {
        CommandError::Program(format!(
            "{name} is neither beside {} nor on the PATH; build all programs (make build) or install them together",
            host.executable.display()
        ))
    })
}

/// What a daemon is called with before its options.
pub(super) fn verb(role: Role) -> Option<&'static str> {
    (role == Role::Janitor).then_some("run")
}

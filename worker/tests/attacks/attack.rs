//! What an attack is, and what must become of it.

use worker::engine::{BuildEnd, BuildRequest, ContainerEnd, RunRequest};

/// What an attack prints where it got through.
pub(crate) const ESCAPED: &str = "ESCAPED";

/// One attack on a run, as the tests of a pull request could make it.
pub(crate) struct RunAttack {
    pub(crate) name: &'static str,
    /// What bash runs in the container, or an empty text: then `python`.
    pub(crate) bash: &'static str,
    pub(crate) python: &'static str,
    /// What the request has otherwise.
    pub(crate) change: fn(&mut RunRequest),
    pub(crate) end: ContainerEnd,
    /// What the log must say.
    pub(crate) says: &'static str,
    pub(crate) held_by: &'static str,
}

impl RunAttack {
    pub(crate) const fn bash(name: &'static str, bash: &'static str, held_by: &'static str) -> Self {
        Self { name, bash, python: "", change: |_| (), end: ContainerEnd::Exited(0), says: "", held_by }
    }

    pub(crate) const fn python(name: &'static str, python: &'static str, held_by: &'static str) -> Self {
        Self { python, ..Self::bash(name, "", held_by) }
    }

    pub(crate) const fn with(self, change: fn(&mut RunRequest)) -> Self {
        Self { change, ..self }
    }

    pub(crate) const fn ends(self, end: ContainerEnd) -> Self {
        Self { end, ..self }
    }

    pub(crate) const fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }
}

/// How a build must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Built,
    Failed,
    Refused,
    TimedOut,
    DiskFull,
}

impl Ends {
    pub(crate) fn of(end: &BuildEnd) -> Self {
        match end {
            BuildEnd::Built(_) => Self::Built,
            BuildEnd::Failed(_) => Self::Failed,
            BuildEnd::Refused(_) => Self::Refused,
            BuildEnd::TimedOut => Self::TimedOut,
            BuildEnd::DiskFull => Self::DiskFull,
        }
    }
}

/// One attack on a build, as a Dockerfile or the scripts of a repository could make it.
pub(crate) struct BuildAttack {
    pub(crate) name: &'static str,
    /// What follows the FROM line.
    pub(crate) dockerfile: &'static str,
    pub(crate) change: fn(&mut BuildRequest),
    pub(crate) end: Ends,
    pub(crate) says: &'static str,
    /// What is then run by the image that it made, with the text that its log must be.
    pub(crate) then: Option<(&'static str, &'static str)>,
    pub(crate) held_by: &'static str,
}

impl BuildAttack {
    pub(crate) const fn new(
        name: &'static str,
        dockerfile: &'static str,
        end: Ends,
        held_by: &'static str,
    ) -> Self {
        Self { name, dockerfile, change: |_| (), end, says: "", then: None, held_by }
    }

    pub(crate) const fn with(self, change: fn(&mut BuildRequest)) -> Self {
        Self { change, ..self }
    }

    pub(crate) const fn says(self, says: &'static str) -> Self {
        Self { says, ..self }
    }

    pub(crate) const fn then(self, bash: &'static str, log: &'static str) -> Self {
        Self { then: Some((bash, log)), ..self }
    }
}

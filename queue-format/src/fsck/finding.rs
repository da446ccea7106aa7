use std::path::PathBuf;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; everything works.
    Note,
    /// Something is slower, waits, or will go wrong.
    Warning,
    /// A promise of the spool is broken: a task is seen twice or by nobody, a result is not what was judged.
    Error,
}

/// What was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// One task lies in one place.
    TwoPlaces,
    /// A state directory holds task files only.
    BadName,
    /// A task lies where somebody looks for it.
    OutOfSight,
    /// A directory of the spool has the name that belongs there.
    UnknownName,
    /// A task is a regular file.
    NotAFile,
    /// A task's file has one name.
    HardLinks,
    /// A task's file is valid.
    DamagedTask,
    /// A name in `done/` tells whose result counts.
    DoneWithoutOwner,
    /// A task in `done/` has the result of its token, whole.
    DoneWithoutResult,
    /// A result is what its manifest says.
    DamagedResult,
    /// No attempt has a token beyond its task's.
    TokenBehind,
    /// An input of a task is there, and is what its name says.
    DamagedInput,
    /// Results belong to a task.
    ResultsOfNoTask,
    /// Who holds a claim beats its heart.
    Silent,
    /// An incarnation has one heartbeat.
    TwoHeartbeats,
    /// Staging is removed by who made it.
    Leftover,
    /// A shard that is used up is gone.
    EmptyShard,
    /// A chunk of a source is pending as a whole.
    HalfPublished,
    /// A delayed task is released when it is due.
    Overdue,
    /// All daemons may write, and nobody else.
    Permissions,
    /// `control/` holds what daemons understand.
    Control,
    /// Status files and logs can be read.
    DamagedStatus,
    /// Everything can be read.
    Unreadable,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was checked.
    pub check: Check,
    /// Where.
    pub path: PathBuf,
    /// What is wrong, in words.
    pub what: String,
    /// What a person can do.
    pub remedy: String,
    /// What a repair does, in order; empty where only a person can decide.
    pub repair: Vec<Step>,
}

/// One step of a repair; every one can be done by hand instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// `mv FROM TO`; nothing is replaced.
    Move {
        /// What.
        from: PathBuf,
        /// Its new path.
        to: PathBuf,
    },
    /// `mv FROM TO`, and the reason in a file beside it.
    Aside {
        /// What.
        from: PathBuf,
        /// Its new path.
        to: PathBuf,
        /// Why.
        reason: String,
    },
    /// `rmdir PATH`: an empty directory.
    RemoveDir {
        /// Which.
        path: PathBuf,
    },
    /// `rm PATH`: a nameless file that its writer left an hour ago or more; never a task.
    RemoveLeftover {
        /// Which.
        path: PathBuf,
    },
}

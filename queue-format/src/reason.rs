use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal => $meaning:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = $meaning] #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every member, in the order of its definition.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in files, directories and reports.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// One sentence for people: what it means, or what to do about it.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|member| member.as_str() == text)
                    .ok_or_else(|| format!("{text:?} is none of {}", Self::ALL.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(", ")))
            }
        }
    };
}

closed_list! {
    /// Why a task ended in `failed/`; also the name of the directory there.
    FailureReason {
        BadSpec = "badspec" => "The task file itself is not valid: mend the field that is named, then move the file back to pending/.",
        Repository = "repository" => "The repository or the base commit is not in the cache: fetch the mirror, then retry.",
        Patch = "patch" => "A patch is empty or does not apply to the base commit: the row is wrong, or base_commit is.",
        Dependencies = "dependencies" => "No set of versions satisfies what the project asks for, as of the task's date.",
        Build = "build" => "The project could not be installed: read build.log.",
        NoTests = "no-tests" => "The test command ran none of the targeted tests to an end in at least one of the two runs.",
        NoFailToPass = "no-fail-to-pass" => "No targeted test fails before the fix and passes after it.",
        FixFails = "fix-fails" => "Tests fail before the fix, and none of them passes after it.",
        PassToFail = "pass-to-fail" => "The fix breaks a test that passed before it.",
        Flaky = "flaky" => "A test gave different results in repeated runs of one condition.",
        Exit = "exit" => "A command ended with another status than 0: read output.log.",
        Input = "input" => "An input is missing from the spool, or is not what it was: publish the task again.",
        Output = "output" => "An output is not there, is no file or directory, or is larger than the worker keeps.",
        Timeout = "timeout" => "A build or a run did not end within its time: raise timeout_seconds, or look for a hang.",
        OutOfMemory = "out-of-memory" => "A run was killed at its memory limit: raise memory_bytes.",
        Policy = "policy" => "The environment is valid, but of an acceptance class that the configuration drops.",
        NotGenuine = "not-genuine" => "The tests show the fix, but not for its own sake: read what is said against Dockerfile and script.",
        Unsolvable = "unsolvable" => "The agents found no environment that could be made: bottega show ID --conversation tells why.",
        Budget = "budget" => "The agents came to no end with what one task may cost, or with answers that could be used: the result says which. Raise task_*_max in [worker.agents], or ask another model, then retry.",
        Cancelled = "cancelled" => "A person cancelled it: a retry makes it pending again.",
        Poison = "poison" => "The task was lost with its worker too often: look at the attempts' logs before a retry.",
    }
}

closed_list! {
    /// How good an accepted environment is, best first; never mixed silently.
    AcceptanceClass {
        Strict = "strict" => "Tests fail before the fix; with it the whole command succeeds, and no test is gone.",
        PerTest = "per-test" => "Judged test by test: some tests fail in both runs, or are gone with the fix; none breaks.",
        NewModule = "new-module" => "Every failing test fails only since it imports what the fix adds.",
        Command = "command" => "The project's own runner names no tests: judged by its exit status.",
    }
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// The tests fail before the fix and pass after it.
    Accepted {
        /// How good it is.
        class: AcceptanceClass,
    },
    /// Every command of a run ended with status 0, and its outputs are kept.
    Completed,
    /// Anything else.
    Failed {
        /// From the closed list.
        reason: FailureReason,
        /// What exactly, in one line.
        detail: String,
        /// The first telling lines of the log.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        log: Vec<String>,
        /// What to try.
        remedy: String,
    },
}

impl Verdict {
    /// A failure with the remedy that its reason has.
    #[must_use]
    pub fn failed(reason: FailureReason, detail: String, log: Vec<String>) -> Self {
        Self::Failed { reason, detail, log, remedy: reason.meaning().to_owned() }
    }

    /// Where in `done/` the task lies; `None` where it failed.
    #[must_use]
    pub fn done_class(&self) -> Option<DoneClass> {
        match self {
            Self::Accepted { class } => Some(DoneClass::Accepted(*class)),
            Self::Completed => Some(DoneClass::Completed),
            Self::Failed { .. } => None,
        }
    }

    /// Whether the task is done with, and lies in `done/`.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.done_class().is_some()
    }
}

/// Without the reason's details.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { class } => write!(f, "accepted ({class})"),
            Self::Completed => f.write_str("completed"),
            Self::Failed { reason, .. } => write!(f, "failed ({reason})"),
        }
    }
}

/// What a task in `done/` came to; also the name of the directory there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DoneClass {
    /// An environment was accepted.
    Accepted(AcceptanceClass),
    /// A run ended well.
    Completed,
}

impl DoneClass {
    /// Every member.
    pub fn all() -> impl Iterator<Item = Self> {
        AcceptanceClass::ALL.iter().copied().map(Self::Accepted).chain([Self::Completed])
    }

    /// The name in files, directories and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted(class) => class.as_str(),
            Self::Completed => "completed",
        }
    }
}

impl fmt::Display for DoneClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DoneClass {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::all().find(|class| class.as_str() == text).ok_or(())
    }
}

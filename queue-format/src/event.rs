use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{DoneClass, FailureReason, Owner, TaskId, Token, Verdict};

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// When, by the clock of the node that wrote it.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened to a task or to an incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A task is ours.
    Claimed {
        /// Which.
        task: TaskId,
        /// Under which token.
        token: Token,
        /// From which class, such as `5-build`.
        class: String,
    },
    /// The worker was started again, and goes on with what it had claimed.
    Adopted {
        /// Which task.
        task: TaskId,
        /// Which claim.
        token: Token,
    },
    /// An attempt came to a verdict, and the spool has it.
    Concluded {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        token: Token,
        /// `accepted`, `completed` or `failed`.
        verdict: String,
        /// The directory in `done/` or `failed/`: the acceptance class, `completed`, or the reason of the failure.
        to: String,
    },
    /// A claim was handed back as it was.
    Released {
        /// Which task.
        task: TaskId,
        /// Which claim.
        token: Token,
        /// Why.
        reason: String,
    },
    /// A claim was handed back to be tried again later.
    Delayed {
        /// Which task.
        task: TaskId,
        /// Which claim.
        token: Token,
        /// Not before, in seconds since 1970.
        due_seconds: u64,
        /// Why.
        reason: String,
    },
    /// A person cancelled the task, and it was set aside.
    Cancelled {
        /// Which task.
        task: TaskId,
        /// Under which token, where it was claimed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Token>,
    },
    /// A claim was gone when its holder looked: the attempt is void.
    Lost {
        /// Which task.
        task: TaskId,
        /// Which claim.
        token: Token,
    },
    /// A claim of a dead incarnation was taken back.
    Reaped {
        /// Which task.
        task: TaskId,
        /// Which claim.
        token: Token,
        /// Whose.
        owner: Owner,
    },
    /// A task lay in our lease that no claim knew, and was handed back.
    Returned {
        /// Which.
        task: TaskId,
        /// Under which token.
        token: Token,
    },
    /// A task file that is not valid, or could not be read again and again, was moved to `failed/`.
    Rejected {
        /// Which task.
        task: TaskId,
        /// Under which token.
        token: Token,
        /// What is wrong with it.
        reason: String,
        /// Where to: `failed/<to>`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<FailureReason>,
    },
    /// Nothing is claimed from now on.
    Paused {
        /// Why.
        reason: String,
    },
    /// Tasks are claimed again.
    Resumed,
    /// Events before this one could not be written.
    Missing {
        /// How many.
        lost: u64,
    },
}

impl Event {
    /// An attempt's end.
    #[must_use]
    pub fn concluded(task: TaskId, token: Token, verdict: &Verdict) -> Self {
        let (verdict, to) = match verdict {
            Verdict::Accepted { class } => ("accepted", class.as_str()),
            Verdict::Completed => ("completed", DoneClass::Completed.as_str()),
            Verdict::Failed { reason, .. } => ("failed", reason.as_str()),
        };
        Self::Concluded { task, token, verdict: verdict.to_owned(), to: to.to_owned() }
    }

    /// The task that it is about.
    #[must_use]
    pub fn task(&self) -> Option<&TaskId> {
        match self {
            Self::Claimed { task, .. }
            | Self::Concluded { task, .. }
            | Self::Released { task, .. }
            | Self::Adopted { task, .. }
            | Self::Delayed { task, .. }
            | Self::Cancelled { task, .. }
            | Self::Lost { task, .. }
            | Self::Reaped { task, .. }
            | Self::Returned { task, .. }
            | Self::Rejected { task, .. } => Some(task),
            Self::Paused { .. } | Self::Missing { .. } | Self::Resumed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AcceptanceClass;

    #[test]
    fn an_end_is_logged_with_the_directory_it_leads_to() {
        let check = |verdict: &Verdict, expected: (&str, &str)| {
            let event = Event::concluded("x".parse().unwrap(), Token(1), verdict);
            let Event::Concluded { verdict, to, .. } = &event else { panic!("{event:?}") };
            assert_eq!((verdict.as_str(), to.as_str()), expected);
        };
        check(&Verdict::Accepted { class: AcceptanceClass::PerTest }, ("accepted", "per-test"));
        check(&Verdict::Completed, ("completed", "completed"));
        let (detail, remedy) = (String::new(), String::new());
        let failed = Verdict::Failed { reason: FailureReason::Poison, detail, log: Vec::new(), remedy };
        check(&failed, ("failed", "poison"));
    }
}

//! What the server has, what each worker believes, and what the network still holds.

/// The most worker incarnations of a model.
pub(crate) const INCARNATIONS_MAX: usize = 4;
/// The most tasks of a model.
pub(crate) const TASKS_MAX: usize = 2;

/// An incarnation of a worker; never used again.
pub(crate) type Inc = usize;
/// A task.
pub(crate) type Task = usize;

/// A directory that holds task files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// `pending/`
    Pending,
    /// `hold/` or `failed/<reason>/`: no daemon takes anything from there, only people do.
    Aside,
    /// `claimed/<inc>/<class>/`
    Claimed(Inc),
    /// `done/`, where the name carries the owner.
    Done(Inc),
}

/// How a file last came into `pending/`; no rule reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Came {
    Published,
    HandedBack,
    Reaped,
    ByHand,
}

/// A name on the server, and what no name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct File {
    pub(crate) task: Task,
    pub(crate) place: Place,
    /// `a<NNN>`
    pub(crate) token: u8,
    /// How often it was claimed in truth.
    pub(crate) claims: u8,
    pub(crate) came: Came,
}

/// What a worker saw of a file: its name's token, and the truth that the name stood for then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket {
    pub(crate) token: u8,
    pub(crate) claims: u8,
}

/// What a RENAME is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Aim {
    /// `pending/x.aN` → `claimed/<by>/x.aN+1`
    Claim,
    /// `claimed/<by>/x.aN` → `done/x.aN@<by>`
    Accept,
    /// `claimed/<by>/x.aN` → `failed/<reason>/x.aN`
    Fail,
    /// `claimed/<by>/x.aN` → `pending/x.aN`
    Release,
}

/// A RENAME that was sent. The server may execute it at any later time, any number of times, also never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rename {
    pub(crate) task: Task,
    pub(crate) by: Inc,
    pub(crate) aim: Aim,
    pub(crate) seen: Ticket,
}

/// A worker process, as the world sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Life {
    Unborn,
    /// Alive, and its heartbeat is in `nodes/`.
    Beating,
    /// Alive, and its heartbeat was moved to `nodes/gone/`: a zombie, until it notices.
    Suspected,
    Dead,
}

/// `claimed/<inc>/` and the class directory in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LeaseDir {
    Missing,
    Bare,
    WithClass,
}

/// What a worker does about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Idle,
    /// Waits for the answer to its claim; `stale`: the directory that it was sent to has been removed.
    Claiming {
        seen: Ticket,
        stale: bool,
    },
    /// Heard an error and has not looked yet.
    DoubtsClaim {
        seen: Ticket,
        stale: bool,
    },
    /// Believes that the task is its own; `tried`: an Accept was sent and came to nothing, as far as it knows.
    Holds {
        claim: Ticket,
        tried: bool,
    },
    /// Waits for the answer to the rename that ends its claim.
    Ending {
        claim: Ticket,
        aim: Aim,
        tried: bool,
    },
    /// Heard an error and has not looked yet; `gone`: ENOENT or ESTALE, otherwise one that says nothing.
    DoubtsEnd {
        claim: Ticket,
        aim: Aim,
        tried: bool,
        gone: bool,
    },
}

/// One incarnation: its process, its directory, its beliefs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Worker {
    pub(crate) life: Life,
    pub(crate) lease: LeaseDir,
    /// The worker has made its class directory, as it believes.
    pub(crate) made: bool,
    pub(crate) work: [Phase; TASKS_MAX],
    /// A MKDIR of the class directory was sent to the lease directory that is there; it may be executed once more.
    pub(crate) has_sent_mkdir: bool,
    /// Nobody will ever look at its lease directory again; mutants only.
    pub(crate) forgotten: bool,
}

/// What must never happen, seen at the step that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Violation {
    /// A worker believes its result accepted, and no name in `done/` says so.
    WronglyAccepted,
    /// A worker believes its attempt void, and a name in `done/` carries it.
    WronglyVoid,
    /// A rename lowered a token.
    TokenFell,
    /// A rename moved a task that was claimed anew since it was sent.
    Overtaken,
    /// A rename moved a task out of `done/`.
    LeftDone,
}

/// The whole world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The server's names, sorted.
    pub(crate) files: Vec<File>,
    /// The renames that may still have an effect, sorted.
    pub(crate) sent: Vec<Rename>,
    pub(crate) workers: [Worker; INCARNATIONS_MAX],
    /// For each task the incarnations that ever believed their result accepted, a bit each.
    pub(crate) believers: [u8; TASKS_MAX],
    pub(crate) violation: Option<Violation>,
}

impl Aim {
    /// Where the file is before.
    pub(crate) fn source(self, by: Inc) -> Place {
        match self {
            Self::Claim => Place::Pending,
            Self::Accept | Self::Fail | Self::Release => Place::Claimed(by),
        }
    }

    /// Where it is afterwards.
    pub(crate) fn target(self, by: Inc) -> Place {
        match self {
            Self::Claim => Place::Claimed(by),
            Self::Accept => Place::Done(by),
            Self::Fail => Place::Aside,
            Self::Release => Place::Pending,
        }
    }
}

impl Worker {
    pub(crate) const UNBORN: Self = Self {
        life: Life::Unborn,
        lease: LeaseDir::Missing,
        made: false,
        work: [Phase::Idle; TASKS_MAX],
        has_sent_mkdir: false,
        forgotten: false,
    };

    /// Its directories are made: nobody takes back anything before its heartbeat is gone.
    pub(crate) const NEW: Self = Self {
        life: Life::Beating,
        lease: LeaseDir::WithClass,
        made: true,
        has_sent_mkdir: true,
        ..Self::UNBORN
    };

    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.life, Life::Beating | Life::Suspected)
    }

    /// One thread claims: it waits for one answer at a time.
    pub(crate) fn is_claiming(&self) -> bool {
        self.work.iter().any(|phase| matches!(phase, Phase::Claiming { .. } | Phase::DoubtsClaim { .. }))
    }

    /// The task about which it heard an error and has not looked yet.
    pub(crate) fn doubt(&self) -> Option<Task> {
        self.work
            .iter()
            .position(|phase| matches!(phase, Phase::DoubtsClaim { .. } | Phase::DoubtsEnd { .. }))
    }

    /// Others may take back what it has claimed.
    pub(crate) fn is_reapable(&self) -> bool {
        matches!(self.life, Life::Suspected | Life::Dead)
            && self.lease != LeaseDir::Missing
            && !self.forgotten
    }
}

impl Phase {
    /// The claim that the worker believes it has.
    pub(crate) fn claim(&self) -> Option<Ticket> {
        match *self {
            Self::Holds { claim, .. } | Self::Ending { claim, .. } | Self::DoubtsEnd { claim, .. } => {
                Some(claim)
            }
            Self::Idle | Self::Claiming { .. } | Self::DoubtsClaim { .. } => None,
        }
    }

    /// The worker has not yet made up its mind about an Accept that it sent.
    pub(crate) fn awaits_acceptance(&self) -> bool {
        match *self {
            Self::Holds { tried, .. } => tried,
            Self::Ending { aim, tried, .. } | Self::DoubtsEnd { aim, tried, .. } => {
                tried || aim == Aim::Accept
            }
            Self::Idle | Self::Claiming { .. } | Self::DoubtsClaim { .. } => false,
        }
    }
}

impl State {
    /// The task's file, wherever it lies.
    pub(crate) fn file(&self, task: Task) -> Option<&File> {
        self.files.iter().find(|file| file.task == task)
    }

    /// Whether a name is there.
    pub(crate) fn has(&self, task: Task, place: Place, token: u8) -> bool {
        self.files.iter().any(|file| file.task == task && file.place == place && file.token == token)
    }

    /// Whether a lease directory holds any task.
    pub(crate) fn is_occupied(&self, inc: Inc) -> bool {
        self.files.iter().any(|file| file.place == Place::Claimed(inc))
    }
}

use std::collections::BTreeMap;

use nix::errno::Errno;

use crate::rng::Rng;
use crate::server::Call;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It is not done, and says so.
    Refused,
    /// There is no room.
    NoSpace,
    /// Its handle is said to be stale although it is not.
    Stale,
    /// It is done, the answer is lost, it is sent again: the second answer counts.
    Retransmitted,
    /// It fails, and is done all the same, some time.
    Late,
    /// It is done, and done once more, some time.
    Twice,
}

/// Everything else that happens, for the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Call,
    Injected(Fault),
    LateCallDone,
    CrashBefore,
    CrashAfter,
    Zombie,
    FalseSuspicion,
    HumanMove,
    /// A file that is no task, in a lease.
    HumanNote,
    /// Rows that were added to a file after a pause.
    WroteOn,
}

/// How often what goes wrong in one history, in a thousand calls.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    kinds: Vec<Fault>,
    per_mille: u64,
    /// How many calls in a thousand a process stops at for longer than the silence.
    pub(crate) zombie_per_mille: u64,
    /// Whether a late call is done at this moment.
    pub(crate) late_per_mille: u64,
    /// How many processes in a thousand crash.
    pub(crate) crash_per_mille: u64,
}

/// Counts of a run, by event.
pub(crate) type Counts = BTreeMap<Event, u64>;

impl Faults {
    /// Some histories have one kind of trouble, some every kind, some none.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        const ALL: [Fault; 6] =
            [Fault::Refused, Fault::NoSpace, Fault::Stale, Fault::Retransmitted, Fault::Late, Fault::Twice];
        let each = *rng.pick(&[150, 500, 1000]).unwrap_or(&500);
        let kinds: Vec<Fault> = ALL.into_iter().filter(|_| rng.chance(each)).collect();
        Self {
            per_mille: if kinds.is_empty() { 0 } else { *rng.pick(&[5, 20, 60, 150]).unwrap_or(&20) },
            kinds,
            zombie_per_mille: *rng.pick(&[0, 0, 3, 10]).unwrap_or(&0),
            late_per_mille: *rng.pick(&[5, 50, 300]).unwrap_or(&50),
            crash_per_mille: *rng.pick(&[0, 200, 600]).unwrap_or(&0),
        }
    }

    /// Nothing goes wrong any more.
    pub(crate) fn none() -> Self {
        let per_mille = 0;
        Self { kinds: Vec::new(), per_mille, zombie_per_mille: 0, late_per_mille: 0, crash_per_mille: 0 }
    }

    /// Whether living incarnations are taken for dead, too.
    pub(crate) fn suspects(&self) -> bool {
        self.zombie_per_mille > 0 || self.per_mille > 20
    }

    /// What happens to a call.
    pub(crate) fn strike(&self, call: &Call, rng: &mut Rng) -> Option<Fault> {
        if self.per_mille == 0 || !rng.chance(self.per_mille) {
            return None;
        }
        let kind = *rng.pick(&self.kinds)?;
        let fits = match kind {
            Fault::Refused | Fault::Stale => true,
            Fault::NoSpace => call.takes_room(),
            Fault::Retransmitted | Fault::Late => call.is_change(),
            // Exclusive creation is numbered, or carries a verifier: a second one is recognised.
            Fault::Twice => call.is_change() && !matches!(call, Call::Create { .. }),
        };
        fits.then_some(kind)
    }
}

impl Fault {
    /// What a client is told of a call that is not done, or not yet.
    pub(crate) fn errno(self, call: &Call, rng: &mut Rng) -> Errno {
        match self {
            // The kernel would try again at once, and that is one creation to the server.
            Self::Late if matches!(call, Call::Create { .. }) => Errno::ETIMEDOUT,
            Self::NoSpace => Errno::ENOSPC,
            Self::Stale => Errno::ESTALE,
            Self::Refused => *rng.pick(&[Errno::EIO, Errno::EACCES, Errno::EINTR]).unwrap_or(&Errno::EIO),
            _ => *rng.pick(&[Errno::EIO, Errno::ESTALE, Errno::ETIMEDOUT]).unwrap_or(&Errno::EIO),
        }
    }
}

use std::time::Duration;

use crate::{Heartbeat, Judge, Owner, PathError, Reaped, Spool, SpoolError};

/// A daemon among others: it beats its own heart, and now and then takes back what the dead have left.
#[derive(Debug)]
pub struct Presence {
    heartbeat: Heartbeat,
    watch: Watch,
}

/// How a daemon watches over the others.
#[derive(Debug)]
pub struct Watch {
    spool: Spool,
    owner: Owner,
    judge: Judge,
    look_pause: Duration,
    look_due: Duration,
}

/// An incarnation that was taken for dead.
#[derive(Debug)]
pub struct Deceased {
    /// Which.
    pub owner: Owner,
    /// What came of it.
    pub reaped: Result<Reaped, SpoolError>,
}

impl Presence {
    /// The first beat of a new incarnation, which looks at the others every `look_pause`.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn begin(spool: &Spool, owner: Owner, look_pause: Duration) -> Result<Self, PathError> {
        let heartbeat = Heartbeat::begin(spool, owner.clone())?;
        Ok(Self::new(spool, owner, heartbeat, look_pause))
    }

    /// Goes on as an incarnation whose process is gone.
    ///
    /// # Errors
    /// [`SpoolError::LeaseClosed`] where it was taken for dead; otherwise the spool cannot be read or written.
    pub fn resume(spool: &Spool, owner: Owner, look_pause: Duration) -> Result<Self, SpoolError> {
        let Some(mut heartbeat) = Heartbeat::resume(spool, owner.clone())? else {
            return Err(spool.nothing_left_of(&owner));
        };
        heartbeat.beat()?;
        Ok(Self::new(spool, owner, heartbeat, look_pause))
    }

    fn new(spool: &Spool, owner: Owner, heartbeat: Heartbeat, look_pause: Duration) -> Self {
        let judge = Judge::new(spool.timing());
        let watch = Watch { spool: spool.clone(), owner, judge, look_pause, look_due: Duration::ZERO };
        Self { heartbeat, watch }
    }

    /// Both parts, for a thread each: what the dead have left can be slow to move, as when a server of NFS waits for a dead
    /// client to give a delegation back, and must not silence the living.
    #[must_use]
    pub fn split(self) -> (Heartbeat, Watch) {
        (self.heartbeat, self.watch)
    }

    /// One more beat.
    ///
    /// # Errors
    /// As for [`Heartbeat::beat`].
    pub fn beat(&mut self) -> Result<(), SpoolError> {
        self.heartbeat.beat()
    }

    /// As [`Watch::look`].
    ///
    /// # Errors
    /// The spool cannot be listed.
    pub fn look(&mut self, clock: impl Fn() -> Duration) -> Result<Vec<Deceased>, PathError> {
        self.watch.look(clock)
    }

    /// Ends the incarnation, when all that it held is settled.
    ///
    /// # Errors
    /// The heartbeat cannot be removed.
    pub fn end(self) -> Result<(), PathError> {
        self.heartbeat.end()
    }
}

impl Watch {
    /// Looks at the others, if it is time, and reaps the dead; gives them. One that cannot be reaped is tried again at a
    /// later look, and keeps no other from its turn. `clock` tells the time since any fixed moment.
    ///
    /// # Errors
    /// The spool cannot be listed.
    pub fn look(&mut self, clock: impl Fn() -> Duration) -> Result<Vec<Deceased>, PathError> {
        let began = clock();
        if began < self.look_due {
            return Ok(Vec::new());
        }
        self.look_due = began + self.look_pause;
        let mut incarnations = self.spool.incarnations()?;
        incarnations.remove(&self.owner);
        let dead = self.judge.look(began, clock(), &incarnations).into_iter();
        Ok(dead.map(|owner| Deceased { reaped: self.spool.reap(&owner), owner }).collect())
    }
}

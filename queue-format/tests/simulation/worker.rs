use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use queue_format::{Claim, ClaimError, FailureReason, Lease, Next, Owner, Presence, SpoolError, Verdict};

use crate::broken::{self, Variant};
use crate::check::{done_path, failed_path};
use crate::fiber;
use crate::stage::{Stage, accepted, failed, owner};
use crate::world::{self, World, sleep, with};

/// How often a worker tries again what the spool refused.
const TRIES: usize = 4;

/// How long it works on a task, at most.
const WORK_MS_MAX: u64 = 60_000;

/// How often it looks at the other daemons in the time after which a silent one is dead.
const LOOKS_A_SILENCE: u32 = 3;

/// What the threads of one worker share.
struct Life {
    stage: Rc<Stage>,
    owner: Owner,
    lease: RefCell<Lease>,
    /// Everything must end.
    is_closed: Cell<bool>,
    /// Slots that still work.
    slots: Cell<usize>,
    variant: Variant,
    /// What the node's disk keeps for the process that comes after: the verdicts that were going to be published.
    journal: Journal,
    /// Claims of the process before this one.
    begun: RefCell<Vec<Claim>>,
}

type Journal = Rc<RefCell<BTreeMap<String, Verdict>>>;

/// What a process leaves that has crashed.
#[derive(Clone)]
struct Past {
    owner: Owner,
    journal: Journal,
}

/// Begins a worker on a node; when it crashes or is given up it may come back `lives` times, as a new incarnation or, if
/// it can, as the one that it was.
pub(crate) fn begin(stage: &Rc<Stage>, node: usize, lives: usize, variant: Variant) {
    come(stage, node, lives, variant, None);
}

fn come(stage: &Rc<Stage>, node: usize, lives: usize, variant: Variant, past: Option<Past>) {
    let leaves: Rc<RefCell<Option<Past>>> = Rc::default();
    let again = {
        let (stage, leaves) = (stage.clone(), leaves.clone());
        move || {
            if lives > 0 && with(|world| world.rng.chance(600)) {
                let past = leaves.take().filter(|_| with(|world| world.rng.chance(600)));
                come(&stage, node, lives - 1, variant, past);
            }
        }
    };
    let (stage, on_crash) = (stage.clone(), again.clone());
    let index = world::begin(&format!("worker{node}.{lives}"), node, None, move || {
        if live(&stage, node, variant, past, &leaves).is_err() {
            leaves.take();
            again();
        }
    });
    with(|world| world.processes[index].on_crash = Some(Box::new(on_crash)));
}

/// `Err` where it could not begin, or was given up.
fn live(
    stage: &Rc<Stage>,
    node: usize,
    variant: Variant,
    past: Option<Past>,
    leaves: &RefCell<Option<Past>>,
) -> Result<(), SpoolError> {
    let look_pause = Duration::from_secs(stage.spool.timing().silence_seconds) / LOOKS_A_SILENCE;
    let resumed = match &past {
        None => None,
        Some(past) => {
            with(|world| world.live_as(&past.owner));
            match resume(stage, &past.owner, look_pause) {
                Err(SpoolError::LeaseClosed(_)) => None,
                resumed => Some(resumed?),
            }
        }
    };
    let (owner, journal) = match past {
        Some(past) if resumed.is_some() => (past.owner, past.journal),
        _ => (owner(node), Journal::default()),
    };
    *leaves.borrow_mut() = Some(Past { owner: owner.clone(), journal: journal.clone() });
    let group = with(|world| {
        world.live_as(&owner);
        world.note(|_| format!("LIVES AS {owner}"));
        world.current
    });
    for other in stage.spool.owners_on(owner.node())? {
        if other != owner && with(|world| !world.is_alive(&other)) {
            stage.spool.reap(&other)?;
        }
    }
    let (mut presence, lease, begun) = match resumed {
        Some(resumed) => resumed,
        None => {
            let lease = Lease::open(&stage.spool, owner.clone())?;
            (Presence::begin(&stage.spool, owner.clone(), look_pause)?, lease, Vec::new())
        }
    };
    let (lease, begun) = (RefCell::new(lease), RefCell::new(begun));
    let slots = with(|world| world.rng.between(1, 2)) as usize;
    let stage = stage.clone();
    let (is_closed, slots_left) = (false.into(), slots.into());
    let life = Rc::new(Life { stage, owner, lease, is_closed, slots: slots_left, variant, journal, begun });
    for slot in 0..slots {
        let life = life.clone();
        world::begin(&format!("worker{node}/slot{slot}"), node, Some(group), move || {
            work(&life);
            life.slots.set(life.slots.get() - 1);
        });
    }
    beat(&life, &mut presence, &|| life.slots.get() > 0);
    if with(|world| world.rng.chance(200)) {
        // Nothing to do, but still there.
        with(|world| world.processes[group].lasts = true);
        beat(&life, &mut presence, &|| with(|world| !world.is_settled));
        with(|world| world.processes[group].lasts = false);
    }
    if life.is_closed.get() {
        // The process exits wherever its threads are, except that some exit slowly.
        if with(|world| world.rng.chance(700)) {
            with(World::kill_current);
            fiber::crash();
        }
        while life.slots.get() > 0 {
            sleep(1_000);
        }
        return Err(SpoolError::LeaseClosed(life.owner.clone()));
    }
    let life = Rc::try_unwrap(life).unwrap_or_else(|_| panic!("no slot is left"));
    life.lease.into_inner().close()?;
    Ok(presence.end()?)
}

fn resume(
    stage: &Stage,
    owner: &Owner,
    look_pause: Duration,
) -> Result<(Presence, Lease, Vec<Claim>), SpoolError> {
    let presence = Presence::resume(&stage.spool, owner.clone(), look_pause)?;
    let (lease, claims) = Lease::resume(&stage.spool, owner.clone())?;
    with(|world| world.note(|_| format!("GOES ON AS {owner} with {}", claims.len())));
    Ok((presence, lease, claims))
}

/// As the real heart: beats, looks after the lease and at the others.
fn beat(life: &Life, presence: &mut Presence, goes_on: &dyn Fn() -> bool) {
    let timing = life.stage.spool.timing();
    let now_ms = || with(|world| world.server.now_ms);
    let mut last_ms = now_ms();
    while goes_on() && !life.is_closed.get() {
        match presence.beat() {
            Ok(()) => last_ms = now_ms(),
            Err(SpoolError::LeaseClosed(_)) => life.is_closed.set(true),
            Err(_) => {}
        }
        // Busy: a claim is being made just now, and the next beat looks.
        if let Ok(mut lease) = life.lease.try_borrow_mut()
            && let Err(SpoolError::LeaseClosed(_)) = lease.look_after()
        {
            life.is_closed.set(true);
        }
        let _ = presence.look(|| Duration::from_millis(now_ms()));
        if now_ms() - last_ms > timing.fence_seconds * 1000 {
            life.is_closed.set(true);
        }
        sleep(timing.beat_seconds * 1000);
    }
}

fn work(life: &Life) {
    loop {
        // Not held while it is served: that takes its time.
        let Some(claim) = life.begun.borrow_mut().pop() else { break };
        let known = life.journal.borrow().get(&claim.name().to_string()).cloned();
        match known {
            Some(verdict) => conclude(life, &claim, verdict),
            None => serve(life, &claim),
        }
    }
    let rounds = with(|world| world.rng.between(1, 4));
    for _ in 0..rounds {
        if life.is_closed.get() {
            return;
        }
        let next = loop {
            match life.lease.try_borrow_mut() {
                Ok(mut lease) => break lease.claim_next(|_| true),
                Err(_) => sleep(100),
            }
        };
        match next {
            Ok(Next::Claimed(claim)) => serve(life, &claim),
            Ok(Next::Rejected { .. }) => {}
            Ok(Next::Empty) => sleep(with(|world| world.rng.between(1_000, 15_000))),
            Err(_) => sleep(10_000),
        }
    }
}

fn serve(life: &Life, claim: &Claim) {
    let mut left_ms = with(|world| world.rng.next() % WORK_MS_MAX);
    while left_ms > 0 && claim.is_held() && !life.is_closed.get() {
        let slice_ms = left_ms.min(10_000);
        sleep(slice_ms);
        left_ms -= slice_ms;
    }
    if life.is_closed.get() || !claim.is_held() {
        return;
    }
    match with(|world| world.rng.below(100)) {
        0..60 => conclude(life, claim, accepted()),
        60..75 => conclude(life, claim, failed(FailureReason::Build)),
        75..85 => drop(claim.release()),
        _ => delay(life, claim),
    }
}

/// As the real worker: the same verdict again and again, and the task handed back where it must stop.
fn conclude(life: &Life, claim: &Claim, verdict: Verdict) {
    let target = match &verdict {
        Verdict::Accepted { .. } | Verdict::Completed => done_path(claim.name(), &life.owner),
        Verdict::Failed { reason, .. } => failed_path(claim.name(), *reason),
    };
    life.journal.borrow_mut().insert(claim.name().to_string(), verdict.clone());
    let manifest = life.stage.manifest(claim, &life.owner, verdict);
    let log = format!("what {} saw of {}", life.owner, claim.name());
    let attempt = [("build.log".to_owned(), log.into_bytes())];
    for _ in 0..TRIES {
        let concluded = match life.variant {
            Variant::Sound => claim.conclude(&manifest, &attempt).map(drop),
            variant => broken::conclude(variant, claim, &life.stage.spool, &manifest, &attempt),
        };
        match concluded {
            Ok(()) => return with(|world| world.checker.told_moved(&target)),
            Err(ClaimError::Lost(_)) => return with(|world| world.checker.told_void(target)),
            Err(ClaimError::Spool(_)) => sleep(10_000),
        }
        if life.is_closed.get() {
            return;
        }
    }
    // It was told to end.
    if claim.release().is_ok() {
        with(|world| world.checker.told_void(target));
    }
}

fn delay(life: &Life, claim: &Claim) {
    let due_seconds = with(|world| world.server.now_ms / 1000 + world.rng.below(60) as u64);
    match claim.delay(due_seconds, "the node failed it") {
        Ok(true) | Err(ClaimError::Lost(_)) => {}
        Ok(false) => conclude(life, claim, failed(FailureReason::Poison)),
        Err(ClaimError::Spool(_)) => drop(claim.release()),
    }
}

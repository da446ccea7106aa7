use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use queue_format::{
    Filesystem, Intake, Known, Lease, Next, Owner, PathError, Presence, Publisher, READ_KEPT, Reaped,
    Settling, Spool, SpoolError, Taken, TaskSpec,
};

use crate::broken::{self, Variant};
use crate::check;
use crate::faults::Event;
use crate::fiber;
use crate::mount::Mount;
use crate::stage::{Stage, accepted, owner};
use crate::world::{self, World, sleep, with};

/// How often a master looks at the other daemons in the time after which a silent one is dead.
const LOOKS_A_SILENCE: u32 = 9;

/// The same for the last master, which has time.
const LAST_LOOKS_A_SILENCE: u32 = 3;

/// Between two rounds, and between two of the last master's.
const ROUND_MS: u64 = 15_000;
const LAST_ROUND_MS: u64 = 60_000;

/// Rounds of the last master, after which what is not settled is stuck.
const LAST_ROUNDS_MAX: usize = 20;

/// What the threads of one master share.
struct Life {
    stage: Rc<Stage>,
    owner: Owner,
    node: usize,
    /// Whom the heartbeats show to be dead.
    dead: RefCell<Vec<Owner>>,
    /// The heart is to stop.
    is_over: Cell<bool>,
    variant: Variant,
}

/// Begins a master on a node; when it crashes or is given up it comes back, as a new incarnation, `lives` times.
pub(crate) fn begin(stage: &Rc<Stage>, node: usize, lives: usize, variant: Variant) {
    let again = {
        let stage = stage.clone();
        move || {
            if lives > 0 {
                begin(&stage, node, lives - 1, variant);
            }
        }
    };
    let (stage, on_crash) = (stage.clone(), again.clone());
    let index = world::begin(&format!("master{node}.{lives}"), node, None, move || {
        let rounds = with(|world| world.rng.between(1, 9)) as usize;
        let live = || -> Result<(), SpoolError> {
            let (life, intake) = open(&stage, node, LOOKS_A_SILENCE, variant)?;
            let (mut known, mut read) = (Known::default(), Settling::new(READ_KEPT));
            for _ in 0..rounds {
                round(&life, &intake, &mut known, &mut read);
                suspect_falsely(&stage.spool);
                let jitter_ms = with(|world| world.rng.between(0, 4_000));
                sleep(ROUND_MS - jitter_ms);
            }
            life.is_over.set(true);
            intake.close()?;
            Ok(())
        };
        if live().is_err() {
            again();
        }
    });
    with(|world| world.processes[index].on_crash = Some(Box::new(on_crash)));
}

/// Opens an intake, and begins to beat on a thread of its own.
fn open(
    stage: &Rc<Stage>,
    node: usize,
    looks_a_silence: u32,
    variant: Variant,
) -> Result<(Rc<Life>, Intake), SpoolError> {
    let owner = owner(node);
    let group = with(|world| {
        world.live_as(&owner);
        world.note(|_| format!("LIVES AS {owner}"));
        world.current
    });
    let intake = Intake::open(&stage.spool, owner.clone())?;
    let look_pause = Duration::from_secs(stage.spool.timing().silence_seconds) / looks_a_silence;
    let presence = Presence::begin(&stage.spool, owner.clone(), look_pause)?;
    let stage = stage.clone();
    let life = Rc::new(Life { stage, owner, node, dead: Vec::new().into(), is_over: false.into(), variant });
    let heart = life.clone();
    world::begin(&format!("master{node}/heart"), node, Some(group), move || beat(&heart, presence));
    Ok((life, intake))
}

/// As the real pulse.
fn beat(life: &Life, mut presence: Presence) {
    while !life.is_over.get() {
        if let Err(SpoolError::LeaseClosed(_)) = presence.beat() {
            with(World::kill_current);
            fiber::crash();
        }
        if let Ok(dead) = presence.look(|| Duration::from_millis(with(|world| world.server.now_ms))) {
            let closed = dead.into_iter().filter(|death| !matches!(death.reaped, Ok(Reaped::Alive) | Err(_)));
            life.dead.borrow_mut().extend(closed.map(|death| death.owner));
        }
        sleep(life.stage.spool.timing().beat_seconds * 1000);
    }
    let _ = presence.end();
}

/// Each step stands alone, so that one that fails keeps no other from its turn.
fn round(life: &Life, intake: &Intake, known: &mut Known, read: &mut Settling) {
    let _ = take_over(life, intake);
    let _ = ingest(life, intake, known);
    let _ = life.stage.spool.look_after_read(read, Duration::from_millis(with(|world| world.server.now_ms)));
    let _ = life.stage.spool.release_until(with(|world| world.server.now_ms / 1000));
}

fn take_over(life: &Life, intake: &Intake) -> Result<(), SpoolError> {
    let spool = &life.stage.spool;
    let node = life.owner.node();
    let is_dead = |owner: &Owner| owner.node() == node && with(|world| !world.is_alive(owner));
    for owner in spool.owners_on(node)?.into_iter().filter(is_dead) {
        spool.reap(&owner)?;
    }
    let here = spool.intakes_on(node)?.into_iter().filter(is_dead);
    let told = life.dead.borrow_mut().drain(..).collect::<Vec<_>>();
    for owner in here.chain(told) {
        intake.adopt(&owner)?;
    }
    Ok(())
}

fn ingest(life: &Life, intake: &Intake, known: &mut Known) -> Result<(), SpoolError> {
    let spool = &life.stage.spool;
    for dropped in spool.dropped()? {
        intake.take(&dropped)?;
    }
    for taken in intake.taken()? {
        let specs = read(&life.stage, intake, &taken)?;
        if !broken::publish(life.variant, spool, &specs, &life.owner)? {
            // Small chunks, so that there are several.
            let mut publisher = Publisher::begin(spool, life.owner.clone(), taken.source, known)?;
            for (n, chunk) in (0..).zip(specs.chunks(2)) {
                publisher.publish(n, chunk)?;
            }
        }
        if life.variant == Variant::RemovesWhatItHasRead {
            let path = spool.layout().intake(&life.owner).join(format!(
                "{}.{}.{}",
                taken.source.simple(),
                taken.bytes,
                taken.name
            ));
            Mount.remove_file(&path).map_err(|source| PathError { action: "remove", path, source })?;
        } else {
            intake.finish(&taken)?;
        }
    }
    Ok(())
}

/// One id a line is all that a row is here.
fn read(stage: &Stage, intake: &Intake, taken: &Taken) -> Result<Vec<TaskSpec>, SpoolError> {
    let mut text = String::new();
    let mut file = intake.read(taken)?;
    let read = file.read_to_string(&mut text);
    read.map_err(|source| PathError { action: "read", path: taken.name.clone().into(), source })?;
    Ok(text.lines().filter_map(|id| stage.spec(id).cloned()).collect())
}

/// A judge with a broken clock, or a person who runs the janitor by hand.
fn suspect_falsely(spool: &Spool) {
    if with(|world| world.faults.suspects() && world.rng.chance(60)) {
        let seen = spool.incarnations().unwrap_or_default();
        let seen: Vec<&Owner> = seen.keys().collect();
        if let Some(owner) = with(|world| world.rng.pick(&seen).copied()) {
            with(|world| world.count(Event::FalseSuspicion));
            let _ = spool.reap(owner);
        }
    }
}

/// After all trouble: one master that is also a worker settles everything, or something is stuck.
pub(crate) fn begin_last(stage: &Rc<Stage>, node: usize) {
    let stage = stage.clone();
    world::begin("last", node, None, move || {
        let opened = open(&stage, node, LAST_LOOKS_A_SILENCE, Variant::Sound);
        let (life, intake) = opened.expect("all works");
        let (mut known, mut read) = (Known::default(), Settling::new(READ_KEPT));
        let mut left = Vec::new();
        for _ in 0..LAST_ROUNDS_MAX {
            round(&life, &intake, &mut known, &mut read);
            settle_all(&life);
            left = with(|world| check::left(&world.server, |owner| world.is_alive(owner)));
            if left.is_empty() {
                break;
            }
            sleep(LAST_ROUND_MS);
        }
        for (what, path) in left {
            with(|world| world.checker.stuck(&format!("{what} is left: {path}")));
        }
        life.is_over.set(true);
        intake.close().expect("closed");
        with(|world| world.is_settled = true);
    });
}

/// Every pending task is worked on, by a worker that lives no longer than that.
fn settle_all(life: &Life) {
    let me = owner(life.node);
    let mut lease = Lease::open(&life.stage.spool, me.clone()).expect("a lease");
    while let Next::Claimed(claim) = lease.claim_next(|_| true).expect("a readable spool") {
        let manifest = life.stage.manifest(&claim, &me, accepted());
        claim.conclude(&manifest, &[]).expect("concluded");
    }
    assert!(lease.close().expect("closed"), "nothing is left in a lease of which nothing was taken away");
}

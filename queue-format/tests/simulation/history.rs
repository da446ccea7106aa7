use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use queue_format::{FailureReason, TaskId, TaskName, Token};

use crate::broken::Variant;
use crate::check::Broken;
use crate::faults::Counts;
use crate::rng::Rng;
use crate::schedule::Scheduler;
use crate::server::{Call, Reply, Server};
use crate::stage::{Stage, TASKS_MAX};
use crate::world::{self, World, with};
use crate::{human, master, worker};

/// Nodes of a history: workers and masters share three, a person and the last master have their own.
const NODES: usize = 3;
const HUMAN_NODE: usize = NODES;
const LAST_NODE: usize = NODES + 1;

/// When a history begins, in milliseconds since 1970.
const START_MS: u64 = 1_000_000_000;

/// What one history came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) broken: Vec<(Broken, String)>,
    pub(crate) counts: Counts,
    pub(crate) log: Vec<String>,
}

/// Tells histories, one seed each, one after the other.
pub(crate) struct Teller {
    scheduler: Scheduler,
    stage: Rc<Stage>,
}

impl Teller {
    pub(crate) fn new() -> Self {
        let mut scheduler = Scheduler::default();
        let stage = Stage::new(&mut scheduler);
        Self { scheduler, stage }
    }

    /// Trouble first; then calm, in which everything has to be settled.
    pub(crate) fn tell(&mut self, seed: u64, variant: Variant, log: bool) -> Outcome {
        let mut world = World::new(self.stage.server.clone(), LAST_NODE + 1, Rng::new(seed), log);
        world.server.now_ms = START_MS;
        world.variant = variant;
        furnish(&mut world, &self.stage);
        world::swap(Some(world));
        let told = catch_unwind(AssertUnwindSafe(|| {
            cast(&self.stage, variant);
            self.scheduler.run();
            with(|world| {
                world.calm();
                world.note(|_| "CALM".to_owned());
            });
            master::begin_last(&self.stage, LAST_NODE);
            self.scheduler.run();
            // Who lasted ends now.
            with(|world| world.processes.iter_mut().for_each(|process| process.lasts = false));
            self.scheduler.run();
            with(|world| world.checker.finish(&world.server));
        }));
        let mut world = world::swap(None).expect("a world");
        if let Err(panic) = told {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
            world.checker.stuck(&text);
            // Its fibers are in an unknown state.
            self.scheduler = Scheduler::default();
        }
        let World { checker, counts, log, .. } = world;
        Outcome { broken: checker.broken, counts, log: log.unwrap_or_default() }
    }
}

/// Tasks here and there, and a file of rows.
fn furnish(world: &mut World, stage: &Stage) {
    let tasks = 1 + world.rng.below(TASKS_MAX);
    let mut rows = [String::new(), String::new()];
    for n in 0..tasks {
        let id: TaskId = format!("t{n}").parse().expect("an id");
        world.checker.expect(id.as_str());
        let claims = world.rng.below(3) as u32;
        let name = |retries| TaskName { id: id.clone(), token: Token(claims), owner: None, retries };
        let retries = [0, 0, 1, 4, 5][world.rng.below(5)];
        let due = START_MS / 1000 + world.rng.below(90) as u64;
        let place = match world.rng.below(10) {
            0..3 => format!("pending/5-build/s1/{}", name(retries)),
            3 => format!("pending/5-build/{}", name(0)),
            4 => format!("pending/5-build/{id}.json"),
            5 => format!("delayed/{due}/5-build/{}", name(retries)),
            6 => format!("failed/{}/{}", FailureReason::Timeout, name(0)),
            _ => {
                let file = world.rng.below(2);
                rows[file].push_str(&format!("{id}\n"));
                continue;
            }
        };
        put(world, &place, stage.bytes(id.as_str()));
        // Somebody submits it once more.
        if world.rng.chance(300) {
            let file = world.rng.below(2);
            rows[file].push_str(&format!("{id}\n"));
        }
    }
    for (file, text) in rows.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
        put(world, &format!("incoming/rows{file}.jsonl"), text.as_bytes());
    }
}

/// Who takes part.
fn cast(stage: &Rc<Stage>, variant: Variant) {
    let workers = 1 + with(|world| world.rng.below(3));
    for _ in 0..workers {
        let (node, lives) = with(|world| (world.rng.below(NODES), world.rng.below(3)));
        worker::begin(stage, node, lives, variant);
    }
    let masters = 1 + with(|world| world.rng.below(2));
    for _ in 0..masters {
        let (node, lives) = with(|world| (world.rng.below(NODES), world.rng.below(3)));
        master::begin(stage, node, lives, variant);
    }
    if with(|world| world.rng.chance(500)) {
        human::begin(stage, HUMAN_NODE);
    }
    if with(|world| world.rng.chance(200)) {
        human::begin_writing(stage, HUMAN_NODE);
    }
}

/// A file from before the history, with its directories.
fn put(world: &mut World, path: &str, bytes: &[u8]) {
    let (dir, name) = path.rsplit_once('/').expect("a path");
    let mut above = crate::server::ROOT;
    for part in dir.split('/') {
        let call = Call::MakeDir { dir: above, name: part.into() };
        above = match world.server.execute(&call) {
            Ok(Reply::Found(ino, _)) => ino,
            _ => world.server.child(above, part).expect("a directory"),
        };
    }
    let server: &mut Server = &mut world.server;
    let Ok(Reply::Found(ino, _)) = server.execute(&Call::Create { dir: above, name: name.into() }) else {
        panic!("{path} is there already");
    };
    server.execute(&Call::Write { ino, bytes: bytes.to_vec() }).expect("written");
    world.checker.put(path);
}

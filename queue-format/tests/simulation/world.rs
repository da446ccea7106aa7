use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use nix::errno::Errno;
use queue_format::Owner;

use crate::broken::Variant;
use crate::check::Checker;
use crate::client::Client;
use crate::faults::{Counts, Event, Fault, Faults};
use crate::fiber::{self, Pause};
use crate::rng::Rng;
use crate::server::{Call, Reply, Server};

/// Milliseconds of one call, at least and at most.
const CALL_MS: (u64, u64) = (1, 20);

/// How long a process stands still that all others take for dead.
const ZOMBIE_MS: (u64, u64) = (190_000, 500_000);

/// Calls of one history after which it is taken to go round in circles.
const CALLS_MAX: u64 = 20_000;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// One history: the server, what is on the way to it, the clients, and who runs.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) checker: Checker,
    pub(crate) counts: Counts,
    /// What happened, for people; only while a seed is replayed.
    pub(crate) log: Option<Vec<String>>,
    pub(crate) processes: Vec<Process>,
    /// Which of them runs.
    pub(crate) current: usize,
    /// Begun by a process, not yet seen by the scheduler.
    pub(crate) begun: Vec<(usize, Box<dyn FnOnce()>)>,
    clients: Vec<Client>,
    late: Vec<Call>,
    turns: BTreeSet<(usize, String)>,
    /// What the mount does wrong.
    pub(crate) variant: Variant,
    /// All that there was to do is done, or cannot be done.
    pub(crate) is_settled: bool,
    /// Which process an incarnation is, for its own node.
    lives: BTreeMap<Owner, usize>,
    calls: u64,
}

/// One process, or one thread of it.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) node: usize,
    /// Threads of one process die together.
    pub(crate) group: usize,
    pub(crate) is_dead: bool,
    /// It has ended, whichever way.
    pub(crate) is_over: bool,
    /// It goes on until all others have ended.
    pub(crate) lasts: bool,
    /// What whoever started it does when it crashes.
    pub(crate) on_crash: Option<Box<dyn FnOnce()>>,
    /// Calls until it crashes.
    crash_in: Option<u64>,
}

impl World {
    pub(crate) fn new(server: Server, nodes: usize, mut rng: Rng, log: bool) -> Self {
        let faults = Faults::draw(&mut rng);
        Self {
            server,
            faults,
            rng,
            checker: Checker::default(),
            counts: Counts::new(),
            log: log.then(Vec::new),
            processes: Vec::new(),
            current: 0,
            begun: Vec::new(),
            clients: (0..nodes).map(|_| Client::default()).collect(),
            late: Vec::new(),
            turns: BTreeSet::new(),
            variant: Variant::Sound,
            is_settled: false,
            lives: BTreeMap::new(),
            calls: 0,
        }
    }

    /// The client of the node on which the current process runs, its clock, and chance.
    pub(crate) fn client(&mut self) -> (&mut Client, u64, &mut Rng) {
        let node = self.processes[self.current].node;
        (&mut self.clients[node], self.server.now_ms, &mut self.rng)
    }

    pub(crate) fn count(&mut self, event: Event) {
        *self.counts.entry(event).or_default() += 1;
    }

    /// One line for whoever replays the seed.
    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.log.is_some() {
            let who = self.processes.get(self.current).map_or("-", |process| process.name.as_str());
            let line = format!("{:>10.3} {who:<14} {}", self.server.now_ms as f64 / 1000.0, line(self));
            self.log.get_or_insert_default().push(line);
        }
    }

    /// A new process of a group of its own, or a further thread of group `group`.
    pub(crate) fn add(&mut self, name: &str, node: usize, group: Option<usize>) -> usize {
        let index = self.processes.len();
        let crash_per_mille = self.faults.crash_per_mille;
        let crash_in = self.rng.chance(crash_per_mille).then(|| {
            let reach = *self.rng.pick(&[10, 40, 120]).unwrap_or(&40);
            self.rng.between(1, reach)
        });
        self.processes.push(Process {
            name: name.to_owned(),
            node,
            group: group.unwrap_or(index),
            is_dead: false,
            is_over: false,
            lasts: false,
            on_crash: None,
            crash_in,
        });
        index
    }

    /// An incarnation takes its lock on the node.
    pub(crate) fn live_as(&mut self, owner: &Owner) {
        self.lives.insert(owner.clone(), self.current);
    }

    /// What the locks of an incarnation's node say.
    pub(crate) fn is_alive(&self, owner: &Owner) -> bool {
        self.lives.get(owner).is_some_and(|process| !self.processes[*process].is_over)
    }

    /// From now on everything works, and what was late has come.
    pub(crate) fn calm(&mut self) {
        self.faults = Faults::none();
        for process in &mut self.processes {
            process.crash_in = None;
        }
        while !self.late.is_empty() {
            self.do_late();
        }
    }

    /// The end of the current process, all its threads included.
    pub(crate) fn kill_current(&mut self) {
        let group = self.processes[self.current].group;
        for process in self.processes.iter_mut().filter(|process| process.group == group) {
            process.is_dead = true;
        }
    }

    fn do_late(&mut self) {
        let index = self.rng.below(self.late.len());
        let call = self.late.swap_remove(index);
        self.count(Event::LateCallDone);
        let _ = self.execute(&call, "LATE ");
    }

    fn execute(&mut self, call: &Call, how: &str) -> Result<Reply, Errno> {
        let before = self.checker.before(&self.server, call);
        let shown = self.log.is_some().then(|| show(&self.server, call));
        let reply = self.server.execute(call);
        if let Some(shown) = shown {
            let answer = reply.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
            self.note(|_| format!("{how}{shown}: {answer}"));
        }
        if reply.is_ok() {
            self.checker.after(&self.server, before);
        }
        reply
    }

    /// Sends one call; `Err(())` where the process crashes.
    fn transact(&mut self, call: &Call) -> Result<Result<Reply, Errno>, ()> {
        self.calls += 1;
        if self.calls > CALLS_MAX {
            self.checker.stuck("the history does not end");
            self.kill_current();
            return Err(());
        }
        self.count(Event::Call);
        self.server.now_ms += self.rng.between(CALL_MS.0, CALL_MS.1);
        while !self.late.is_empty() && self.rng.chance(self.faults.late_per_mille) {
            self.do_late();
        }
        let crashes = match &mut self.processes[self.current].crash_in {
            Some(left) => {
                *left -= 1;
                *left == 0
            }
            None => false,
        };
        if crashes {
            let after = call.is_change() && self.rng.chance(500);
            if after {
                let _ = self.execute(call, "CRASH AFTER ");
            } else if let (Call::Write { ino, bytes }, true) = (call, self.rng.chance(500)) {
                let kept = self.rng.below(bytes.len() + 1);
                let _ = self.execute(&Call::Write { ino: *ino, bytes: bytes[..kept].to_vec() }, "TORN ");
            } else {
                self.note(|world| format!("CRASH BEFORE {}", show(&world.server, call)));
            }
            self.count(if after { Event::CrashAfter } else { Event::CrashBefore });
            self.kill_current();
            return Err(());
        }
        let Some(fault) = self.faults.strike(call, &mut self.rng) else { return Ok(self.execute(call, "")) };
        self.count(Event::Injected(fault));
        Ok(match fault {
            Fault::Retransmitted => {
                let _ = self.execute(call, "ANSWER LOST ");
                self.execute(call, "SENT AGAIN ")
            }
            Fault::Twice => {
                self.late.push(call.clone());
                self.execute(call, "TO BE REPEATED ")
            }
            _ => {
                let errno = fault.errno(call, &mut self.rng);
                self.note(|world| format!("{fault:?} {}: {errno}", show(&world.server, call)));
                if fault == Fault::Late {
                    self.late.push(call.clone());
                }
                Err(errno)
            }
        })
    }
}

/// Makes a world the current one of this thread, and gives back what was there.
pub(crate) fn swap(world: Option<World>) -> Option<World> {
    WORLD.with(|current| std::mem::replace(&mut *current.borrow_mut(), world))
}

/// Looks at or changes the current world, in an instant.
pub(crate) fn with<T>(look: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with(|current| look(current.borrow_mut().as_mut().expect("a history runs")))
}

/// Sends one call from the current process; here others run, and here it may die.
pub(crate) fn send(call: &Call) -> Result<Reply, Errno> {
    if with(|world| world.processes[world.current].is_dead) {
        // Only what unwinds after a crash comes here: nothing of it reaches the server.
        return Err(Errno::EIO);
    }
    if with(|world| world.rng.chance(400)) {
        wait(Pause::Turn);
    }
    let zombie = with(|world| {
        let per_mille = world.faults.zombie_per_mille;
        per_mille > 0 && world.rng.chance(per_mille)
    });
    if zombie {
        let ms = with(|world| {
            world.count(Event::Zombie);
            world.note(|_| "STANDS STILL".to_owned());
            world.rng.between(ZOMBIE_MS.0, ZOMBIE_MS.1)
        });
        wait(Pause::Sleep { ms });
    }
    with(|world| world.transact(call)).unwrap_or_else(|()| fiber::crash())
}

/// Lets virtual time pass for the current process.
pub(crate) fn sleep(ms: u64) {
    wait(Pause::Sleep { ms });
}

fn wait(pause: Pause) {
    fiber::pause(pause);
    if with(|world| world.processes[world.current].is_dead) {
        fiber::crash();
    }
}

/// Begins a process on a node, or (`group`) a further thread of one.
pub(crate) fn begin(name: &str, node: usize, group: Option<usize>, code: impl FnOnce() + 'static) -> usize {
    with(|world| {
        let index = world.add(name, node, group);
        world.begun.push((index, Box::new(code)));
        index
    })
}

/// A turn that ends when it is dropped.
pub(crate) struct Turn(usize, String);

/// Waits for the node's turn at a path.
pub(crate) fn take_turn(path: &str) -> Turn {
    loop {
        let taken = with(|world| {
            let node = world.processes[world.current].node;
            world.turns.insert((node, path.to_owned())).then_some(node)
        });
        match taken {
            Some(node) => return Turn(node, path.to_owned()),
            None => sleep(50),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        WORLD.with(|current| {
            if let Some(world) = current.borrow_mut().as_mut() {
                world.turns.remove(&(self.0, std::mem::take(&mut self.1)));
            }
        });
    }
}

fn show(server: &Server, call: &Call) -> String {
    let at = |dir, name: &str| format!("{}/{name}", server.path(dir));
    match call {
        Call::Lookup { dir, name } => format!("lookup {}", at(*dir, name)),
        Call::Attributes { ino } => format!("attributes {}", server.path(*ino)),
        Call::List { dir } => format!("list {}", server.path(*dir)),
        Call::Read { ino } => format!("read {}", server.path(*ino)),
        Call::Create { dir, name } => format!("create {}", at(*dir, name)),
        Call::Write { ino, bytes } => format!("write {} ({} bytes)", server.path(*ino), bytes.len()),
        Call::MakeDir { dir, name } => format!("mkdir {}", at(*dir, name)),
        Call::RemoveDir { dir, name } => format!("rmdir {}", at(*dir, name)),
        Call::Remove { dir, name } => format!("remove {}", at(*dir, name)),
        Call::Rename { from, to } => {
            let mut text = format!("rename {}", at(from.0, &from.1));
            let _ = write!(text, " -> {}", at(to.0, &to.1));
            text
        }
    }
}

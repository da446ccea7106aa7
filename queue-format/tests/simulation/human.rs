use std::path::Path;
use std::rc::Rc;

use queue_format::{Filesystem, Located, State};

use crate::faults::Event;
use crate::mount::Mount;
use crate::server::Ino;
use crate::stage::Stage;
use crate::world::{self, sleep, with};

/// The tasks of a file that is written with a pause.
pub(crate) const SLOW_TASKS: [&str; 2] = ["slow0", "slow1"];

/// The longest pause: what a cache remembers of the file may be a minute old when it is looked at for the last time.
const WRITER_PAUSE_MS_MAX: u64 = 420_000;

/// Writes after which the writer gives up.
const WRITES_MAX: usize = 30;

/// Begins a person who moves task files about with `mv`, through a client of their own.
pub(crate) fn begin(stage: &Rc<Stage>, node: usize) {
    let stage = stage.clone();
    world::begin("human", node, None, move || {
        let moves = with(|world| world.rng.between(1, 4));
        for _ in 0..moves {
            sleep(with(|world| world.rng.between(0, 60_000)));
            let Ok(found) = stage.spool.all() else { continue };
            if let Some(task) = with(|world| world.rng.pick(&found).cloned()) {
                with(|world| world.count(Event::HumanMove));
                mv(&stage, &task);
            }
            if with(|world| world.rng.chance(200)) {
                leave_a_note(&stage);
            }
        }
    });
}

/// Begins a person whose program writes a file of rows, and pauses in the middle.
pub(crate) fn begin_writing(stage: &Rc<Stage>, node: usize) {
    let path = stage.spool.layout().incoming().join("slow.jsonl");
    world::begin("writer", node, None, move || {
        let Ok(file) = Mount::open_for_writing(&path) else { return };
        let [first, second] = SLOW_TASKS;
        if !write_until_done(file, first) {
            return;
        }
        sleep(with(|world| world.rng.between(0, WRITER_PAUSE_MS_MAX)));
        if write_until_done(file, second) {
            with(|world| world.count(Event::WroteOn));
        }
    });
}

/// What is told to be written has to become a task.
fn write_until_done(file: Ino, id: &str) -> bool {
    let done = (0..WRITES_MAX).any(|_| {
        let written = Mount::write_on(file, &format!("{id}\n"));
        if written.is_err() {
            sleep(1000);
        }
        written.is_ok()
    });
    if done {
        with(|world| world.checker.expect(id));
    }
    done
}

/// Writes a file that is no task where tasks are.
fn leave_a_note(stage: &Stage) {
    let claimed = stage.spool.layout().claimed();
    let leases = Mount.list(&claimed).unwrap_or_default();
    let Some(lease) = with(|world| world.rng.pick(&leases).map(|name| claimed.join(name))) else { return };
    let dir = if with(|world| world.rng.chance(500)) { lease.join("5-build") } else { lease };
    if Mount.create(&dir.join("notes.txt")).is_ok() {
        with(|world| world.count(Event::HumanNote));
    }
}

fn mv(stage: &Stage, task: &Located) {
    let layout = stage.spool.layout();
    let pending = |class: &str| layout.pending().join(class);
    let there = match with(|world| world.rng.below(4)) {
        0 => layout.hold(),
        1 => pending("3-build"),
        _ => pending("5-build"),
    };
    match &task.state {
        State::Done(_) => {}
        State::Failed(_) if with(|world| world.rng.chance(500)) => drop(stage.spool.retry(task)),
        _ => {
            let _ = Mount.make_dir(&there);
            if let Some(name) = task.path.file_name() {
                let _ = Mount.rename(&task.path, Path::new(&there).join(name).as_path());
            }
        }
    }
}

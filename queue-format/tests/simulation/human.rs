use std::path::Path;
use std::rc::Rc;

use queue_format::{Filesystem, Located, State};

use crate::faults::Event;
use crate::mount::Mount;
use crate::stage::Stage;
use crate::world::{self, sleep, with};

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
        }
    });
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

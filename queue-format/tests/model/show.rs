//! A path through the model in words.

use std::fmt::Write;

use crate::protocol::{Action, Protocol};
use crate::state::{Aim, Inc, Place, State, Task};

const WORKERS: [&str; 4] = ["A", "B", "C", "D"];
const TASKS: [&str; 2] = ["x", "y"];

/// The steps of a path, a line each, with what the server has after it.
pub(crate) fn steps(protocol: &Protocol, path: &[(State, Option<Action>)]) -> String {
    let mut text = String::new();
    for (number, pair) in path.windows(2).enumerate() {
        let (Some(action), after) = (&pair[0].1, &pair[1].0) else { continue };
        let files: Vec<String> =
            after.files.iter().map(|file| name(file.task, file.place, file.token)).collect();
        let words = step(protocol, &pair[0].0, *action);
        let _ = writeln!(text, "{:>4}. {words:<88} {}", number + 1, files.join(" "));
    }
    text
}

fn name(task: Task, place: Place, token: u8) -> String {
    let task = TASKS[task];
    match place {
        Place::Pending => format!("pending/{task}.a{token}"),
        Place::Aside => format!("failed/{task}.a{token}"),
        Place::Claimed(inc) => format!("claimed/{}/{task}.a{token}", WORKERS[inc]),
        Place::Done(inc) => format!("done/{task}.a{token}@{}", WORKERS[inc]),
    }
}

fn rename(protocol: &Protocol, task: Task, by: Inc, aim: Aim, token: u8) -> String {
    let raised = if aim == Aim::Claim { protocol.mutant.raised(token) } else { token };
    format!("{} → {}", name(task, aim.source(by), token), name(task, aim.target(by), raised))
}

fn step(protocol: &Protocol, before: &State, action: Action) -> String {
    let worker = |inc: Inc| WORKERS[inc];
    let token = |task: Task| before.file(task).map_or(0, |file| file.token);
    match action {
        Action::Start(inc) => format!("{} starts, with a heartbeat and a lease directory", worker(inc)),
        Action::End(inc) => format!("{} dies", worker(inc)),
        Action::MakeClassDir(inc) => format!("{} makes its class directory", worker(inc)),
        Action::Claim(inc, task) => {
            format!("{} sends {}", worker(inc), rename(protocol, task, inc, Aim::Claim, token(task)))
        }
        Action::Conclude(inc, task, aim) => {
            let token = before.workers[inc].work[task].claim().map_or(0, |claim| claim.token);
            format!("{} sends {}", worker(inc), rename(protocol, task, inc, aim, token))
        }
        Action::Answer(inc, task) => {
            format!(
                "the server executes what {} waits for, which hears the answer ({})",
                worker(inc),
                TASKS[task]
            )
        }
        Action::Unclear(inc, task) => format!("{} hears EIO ({})", worker(inc), TASKS[task]),
        Action::Look(inc, task) => format!("{} looks at the target ({})", worker(inc), TASKS[task]),
        Action::LookStale(inc, task) => {
            format!("{} looks at the target, and its cache says: absent ({})", worker(inc), TASKS[task])
        }
        Action::Notice(inc, task) => {
            format!("{} sees that its claim on {} is gone", worker(inc), TASKS[task])
        }
        Action::ReturnStray(inc, task) => {
            format!("{} hands {} back, which it did not know it had", worker(inc), TASKS[task])
        }
        Action::Late(at) => {
            let sent = before.sent[at];
            let words = rename(protocol, sent.task, sent.by, sent.aim, sent.seen.token);
            format!("the server executes {words} of {}, unheard", worker(sent.by))
        }
        Action::LateMakeLease(inc) => format!("the server executes MKDIR claimed/{} again", worker(inc)),
        Action::LateMakeClass(inc) => {
            format!("the server executes MKDIR claimed/{}/5-build again", worker(inc))
        }
        Action::Suspect(inc) => format!("somebody takes {}, which lives, for dead", worker(inc)),
        Action::ReapTask(inc, task) => {
            format!("a reaper moves {} from claimed/{} to pending", TASKS[task], worker(inc))
        }
        Action::ReapClassDir(inc) => format!("a reaper removes claimed/{}/5-build", worker(inc)),
        Action::ReapLease(inc) => format!("a reaper removes claimed/{}", worker(inc)),
        Action::Forget(inc) => format!("the last reaper of claimed/{} is done, or dies", worker(inc)),
        Action::Move(task, place) => {
            format!("a person moves {} to {}", TASKS[task], name(task, place, token(task)))
        }
    }
}

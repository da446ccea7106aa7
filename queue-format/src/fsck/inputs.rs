use std::io;

use super::finding::{Check, Severity};
use super::items::look;
use super::run::{Depth, Run};
use crate::{Digest, InputError, Located, PathError, RunTask, State};

/// Inputs that are looked at, whatever number of tasks asks for each; once they are mended the next check finds others.
const SEEN_MAX: usize = 100_000;

impl Run<'_> {
    /// Every input: whether it is what it is called.
    pub(super) fn inputs(&mut self) -> Result<(), PathError> {
        let inputs = self.spool.layout().inputs();
        self.each_in(&inputs, &mut |run, bucket| {
            if !bucket.is_dir {
                return run.out_of_sight(&bucket);
            }
            run.each_in(&bucket.path, &mut |run, item| {
                let digest = item.name.parse::<Digest>().ok();
                let digest = digest.filter(|digest| item.is_file && digest.bucket() == bucket.name);
                let Some(digest) = digest else { return run.out_of_sight(&item) };
                if run.depth == Depth::Contents {
                    run.checked.files_read += 1;
                    match run.spool.read_input(&digest, &mut io::sink()) {
                        Ok(_) => {}
                        Err(InputError::Path(error)) => run.unreadable(&error),
                        Err(error) => {
                            let remedy = "remove it; the next bottega run with that file puts it back whole";
                            let what = error.to_string();
                            run.say(Severity::Error, Check::DamagedInput, &item.path, what, remedy);
                        }
                    }
                }
                Ok(())
            })
        })
    }

    /// The inputs of a task that may still be done: each that is missing is told of once, however many ask for it.
    pub(super) fn inputs_of(&mut self, task: &Located, run: &RunTask) {
        if matches!(task.state, State::Done(_)) {
            return;
        }
        for input in &run.inputs {
            if self.inputs_seen.len() >= SEEN_MAX || !self.inputs_seen.insert(input.digest.clone()) {
                continue;
            }
            let path = self.spool.layout().input(&input.digest);
            if look(&path).is_none() {
                let what = format!("it is not there, and {} begins with it as {}", task.name.id, input.path);
                let remedy = "put the file back: bottega run with the same --input keeps it again";
                self.say(Severity::Error, Check::DamagedInput, &path, what, remedy);
            }
        }
    }
}

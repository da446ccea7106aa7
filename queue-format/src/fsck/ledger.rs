use std::time::Duration;

use uuid::Uuid;

use super::finding::{Check, Severity, Step};
use super::items::{Item, changed, look};
use super::run::Run;
use crate::publish::RECORD_FILE;
use crate::{Class, PathError, State};

impl Run<'_> {
    /// What publishers took on: what is left there of a chunk is on its way to pending.
    pub(super) fn ledger(&mut self) -> Result<(), PathError> {
        let ledger = self.spool.layout().ledger();
        self.each_in(&ledger, &mut |run, source| match source.name.parse::<Uuid>() {
            Ok(number) if source.is_dir => run.each_in(&source.path, &mut |run, chunk| {
                if chunk.is_dir { run.chunk(number, &chunk) } else { run.out_of_sight(&chunk) }
            }),
            _ => run.out_of_sight(&source),
        })
    }

    fn chunk(&mut self, source: Uuid, chunk: &Item) -> Result<(), PathError> {
        let age = look(&chunk.path).and_then(|found| self.age(changed(&found)));
        let silence = Duration::from_secs(self.spool.timing().silence_seconds);
        let is_stuck = age.is_some_and(|age| age > silence);
        self.each_in(&chunk.path, &mut |run, item| {
            let Ok(class) = item.name.parse::<Class>() else {
                // The record that the chunk was taken on.
                return if item.name == RECORD_FILE { Ok(()) } else { run.out_of_sight(&item) };
            };
            let to = run.spool.layout().shard(&class, source, &chunk.name);
            let state = State::Pending(class);
            run.each_in(&item.path, &mut |run, task| {
                if task.is_dir {
                    return run.out_of_sight(&task);
                }
                run.task(&task, &state);
                Ok(())
            })?;
            if is_stuck {
                let what = "its publisher died between the ledger and pending/";
                let remedy =
                    "a master finishes it once the publisher is taken for dead: start one if none runs";
                let repair = vec![Step::Move { from: item.path.clone(), to }];
                run.plan(Severity::Warning, Check::HalfPublished, &item.path, what, remedy, repair);
            }
            Ok(())
        })
    }
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::{Check, Severity, Step};
use super::items::{changed, look};
use super::run::{LEFTOVER_AGE, Run};
use crate::status::{self, STATUS_BYTES_MAX};
use crate::{Class, Owner, PathError, SpoolError, Taken, TaskName};
use crate::{heartbeat, log};

#[derive(Default)]
struct Trace {
    beats: Vec<(u64, PathBuf)>,
    has_lease: bool,
    has_staging: bool,
}

impl Run<'_> {
    /// Heartbeats, leases, staging, status files and logs: each belongs to an incarnation that lives, or is recent.
    pub(super) fn daemons(&mut self) -> Result<(), PathError> {
        let layout = self.spool.layout().clone();
        let mut traces: BTreeMap<Owner, Trace> = BTreeMap::new();
        self.each_in(&layout.nodes(), &mut |run, item| {
            match heartbeat::parse(&item.name) {
                Some((owner, counter)) if item.is_file => {
                    traces.entry(owner).or_default().beats.push((counter, item.path));
                }
                _ if item.is_dir && item.name == "gone" => {}
                _ => {
                    let what = "heartbeats are called <owner>.<counter>";
                    run.say(Severity::Warning, Check::UnknownName, &item.path, what, "remove it");
                }
            }
            Ok(())
        })?;
        self.each_in(&layout.claimed(), &mut |_, item| {
            if let Ok(owner) = item.name.parse() {
                traces.entry(owner).or_default().has_lease = true;
            }
            Ok(())
        })?;
        self.each_in(&layout.tmp(), &mut |run, item| {
            match item.name.parse() {
                Ok(owner) if item.is_dir => traces.entry(owner).or_default().has_staging = true,
                _ => {
                    let what = "staging directories are called <node>~<incarnation>";
                    run.say(
                        Severity::Warning,
                        Check::UnknownName,
                        &item.path,
                        what,
                        "remove it if it is yours",
                    );
                }
            }
            Ok(())
        })?;
        for (owner, trace) in traces {
            self.incarnation(&owner, trace)?;
        }
        self.statuses(&layout.worker_status(), &layout.logs())
    }

    fn incarnation(&mut self, owner: &Owner, mut trace: Trace) -> Result<(), PathError> {
        trace.beats.sort();
        while trace.beats.len() > 1 {
            let (_, path) = trace.beats.remove(0);
            let repair = vec![self.gone(&path)];
            let what = "there is a later heartbeat of this incarnation";
            self.plan(Severity::Warning, Check::TwoHeartbeats, &path, what, "move it to nodes/gone/", repair);
        }
        let lease = self.spool.layout().lease(owner);
        let silence = Duration::from_secs(self.spool.timing().silence_seconds);
        let Some(age) = self.silent_for(&trace, &lease) else { return Ok(()) };
        if age <= silence {
            return Ok(());
        }
        let beat = trace.beats.pop();
        let who = if beat.is_some() { "its heartbeat has stood still" } else { "it has had no heartbeat" };
        let what = format!("{who} for {} s (timing.silence_seconds is {})", age.as_secs(), silence.as_secs());
        let mut repair: Vec<Step> = beat.iter().map(|(_, path)| self.gone(path)).collect();
        if trace.has_lease {
            repair.extend(self.return_claims(&lease)?);
            let remedy = "a daemon takes its claims back within minutes: start one (bottega up) if none runs";
            self.plan(Severity::Warning, Check::Silent, &lease, what, remedy, repair);
        } else if let Some((_, path)) = &beat {
            let remedy = "a daemon moves it to nodes/gone/ within minutes: start one if none runs";
            self.plan(Severity::Warning, Check::Silent, path, what, remedy, repair);
        }
        if trace.has_staging && age > LEFTOVER_AGE {
            self.staging(owner)?;
        }
        Ok(())
    }

    /// How long an incarnation has given no sign, by the server's clock.
    fn silent_for(&self, trace: &Trace, lease: &Path) -> Option<Duration> {
        let seen = match trace.beats.last() {
            Some((counter, path)) => {
                let found = look(path)?;
                // A server that does not note when a file was renamed cannot tell.
                if *counter > 0 && found.modified().ok() == Some(changed(&found)) {
                    return None;
                }
                changed(&found)
            }
            None => {
                let owner = lease.file_name()?;
                let staging = self.spool.layout().tmp().join(owner);
                [lease, &staging].into_iter().filter_map(look).map(|found| changed(&found)).max()?
            }
        };
        self.age(seen)
    }

    fn gone(&self, path: &Path) -> Step {
        let gone = self.spool.layout().nodes_gone();
        let to = path.file_name().map_or_else(|| gone.clone(), |name| gone.join(name));
        Step::Move { from: path.to_owned(), to }
    }

    /// What a daemon does that takes an incarnation for dead; its claims are pending again, with their tokens.
    fn return_claims(&mut self, lease: &Path) -> Result<Vec<Step>, PathError> {
        let mut steps = Vec::new();
        let pending = self.spool.layout().pending();
        let mut dirs = Vec::new();
        self.each_in(lease, &mut |run, dir| {
            if dir.name.parse::<Class>().is_ok() && dir.is_dir {
                run.each_in(&dir.path, &mut |_, task| {
                    if let Ok(name) = task.name.parse::<TaskName>() {
                        let to = pending.join(&dir.name).join(name.retried().to_string());
                        steps.push(Step::Move { from: task.path, to });
                    }
                    Ok(())
                })?;
                dirs.push(Step::RemoveDir { path: dir.path });
            }
            Ok(())
        })?;
        steps.extend(dirs);
        steps.push(Step::RemoveDir { path: lease.to_owned() });
        Ok(steps)
    }

    /// What a dead producer left: files that it had taken from `incoming/` go back there; what it had staged and not
    /// published is a copy of rows that are submitted again.
    fn staging(&mut self, owner: &Owner) -> Result<(), PathError> {
        let incoming = self.spool.layout().incoming();
        let intake = self.spool.layout().intake(owner);
        self.each_in(&intake, &mut |run, item| {
            let to = incoming.join(Taken::at(item.path.clone()).map_or(item.name, |taken| taken.name));
            let repair = vec![Step::Move { from: item.path.clone(), to }];
            let what = "a master took it from incoming/ and died";
            let remedy = "a master of the same node adopts it; or move it back to incoming/";
            run.plan(Severity::Warning, Check::Leftover, &item.path, what, remedy, repair);
            Ok(())
        })?;
        let staging = self.spool.layout().staging(owner);
        self.each_in(&staging, &mut |run, item| {
            if item.path == intake {
                return Ok(());
            }
            let what = "its producer died before it was published";
            let remedy = "submit the rows again (known ids are skipped), then remove it: rm -r";
            run.say(Severity::Note, Check::Leftover, &item.path, what, remedy);
            Ok(())
        })
    }

    fn statuses(&mut self, workers: &Path, logs: &Path) -> Result<(), PathError> {
        self.each_in(workers, &mut |run, item| {
            let bytes = run.spool.files().read_regular(&item.path, STATUS_BYTES_MAX);
            let is_valid = |bytes: &[u8]| serde_json::from_slice::<crate::WorkerStatus>(bytes).is_ok();
            let what = match (status::owner_of(&item.name), bytes) {
                (None, _) => "worker statuses are called <owner>.json".to_owned(),
                (Some(_), Ok(bytes)) if is_valid(&bytes) => return Ok(()),
                (Some(_), Ok(_)) => "it is torn, or of another version".to_owned(),
                (Some(_), Err(_)) if look(&item.path).is_none() => return Ok(()),
                (Some(_), Err(e)) => e.to_string(),
            };
            run.say(
                Severity::Note,
                Check::DamagedStatus,
                &item.path,
                what,
                "remove it: its worker writes it again",
            );
            Ok(())
        })?;
        self.each_in(logs, &mut |run, item| {
            if log::owner_of(&item.name).is_none() {
                let what = "logs are called <owner>.jsonl";
                run.say(Severity::Note, Check::UnknownName, &item.path, what, "move it elsewhere");
            }
            Ok(())
        })
    }

    /// What people asked for in `control/`, and daemons do not understand or cannot do.
    pub(super) fn control(&mut self) -> Result<(), SpoolError> {
        let control = self.spool.control()?;
        let dir = self.spool.layout().control();
        for notice in control.notices() {
            self.say(Severity::Warning, Check::Control, &dir, notice, "mend or remove it");
        }
        for id in control.cancelled() {
            if self.index.token(id).is_none() {
                let path = self.spool.layout().cancelled().join(id.as_str());
                let what = "there is no task of this id to cancel";
                self.say(Severity::Warning, Check::Control, &path, what, "remove it");
            }
        }
        Ok(())
    }
}

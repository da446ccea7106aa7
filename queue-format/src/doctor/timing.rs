use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::files::{Files, Moved};
use crate::{PathError, Spool};

/// Round trips to the server that one task costs at the least and at the most, but for the writing of its result:
/// that is measured as a whole, and about four more.
const TRIPS_PER_TASK: (f64, f64) = (5.0, 8.0);

/// The content of a file whose writing is timed: about that of a small result.
const FILE_BYTES: usize = 1024;

/// Renames for each file that is written: writing costs far more.
const RENAMES_PER_FILE: u32 = 4;

/// How long an operation took, over all tries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them took less.
    pub median_seconds: f64,
    /// 99 in 100 took less.
    pub p99_seconds: f64,
    /// Tries.
    pub count: usize,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Renaming a file within a directory.
    pub rename: Spread,
    /// Renaming a file into another directory, as every change of state does.
    pub rename_across: Spread,
    /// Creating a file of 1 KiB and waiting until it is on disk.
    pub create_and_sync: Spread,
    /// How far the server's clock is ahead of ours.
    pub clock_ahead_seconds: f64,
    /// How wrong that may be: half of what asking took.
    pub clock_uncertainty_seconds: f64,
    /// Tasks a second that one worker can take through all states, at the least and at the most, if the tasks
    /// themselves took no time: each costs 9 to 12 round trips, one after the other, of which the writing of one
    /// result is about four.
    pub tasks_per_second: (f64, f64),
}

/// The clocks that are measured by: time since any fixed moment, and the time of day.
pub(super) struct Clocks<'a> {
    pub(super) elapsed: &'a dyn Fn() -> Duration,
    pub(super) now: &'a dyn Fn() -> SystemTime,
}

/// Times everything in `dir`, which is the caller's to remove.
pub(super) fn measure(
    spool: &Spool,
    dir: &Path,
    renames: u32,
    clocks: &Clocks<'_>,
) -> Result<Measured, PathError> {
    let files = spool.files();
    let (one, other) = (dir.join("one"), dir.join("other"));
    files.make_dirs(&one)?;
    files.make_dirs(&other)?;
    let time = |work: &dyn Fn() -> Result<(), PathError>| -> Result<Duration, PathError> {
        let began = (clocks.elapsed)();
        work()?;
        Ok((clocks.elapsed)().saturating_sub(began))
    };
    files.write_new(&one.join("0"), b"")?;
    let mut within = Vec::new();
    for n in 0..renames {
        let (from, to) = (one.join(n.to_string()), one.join((n + 1).to_string()));
        within.push(time(&|| rename(files, &from, &to))?);
    }
    let mut across = Vec::new();
    let (mut here, mut there) = (one.join(renames.to_string()), other.join("0"));
    for n in 0..renames {
        across.push(time(&|| rename(files, &here, &there))?);
        here = if n % 2 == 0 { one.join(format!("a{n}")) } else { other.join(format!("a{n}")) };
        std::mem::swap(&mut here, &mut there);
    }
    let mut created = Vec::new();
    for n in 0..renames.div_ceil(RENAMES_PER_FILE) {
        let path = dir.join(format!("file{n}"));
        created.push(time(&|| files.write_new(&path, &[b'x'; FILE_BYTES]))?);
        files.remove_file(&path)?;
    }
    let (clock_ahead_seconds, clock_uncertainty_seconds) = clock(files, dir, clocks)?;
    let rename_across = Spread::of(across);
    let create_and_sync = Spread::of(created);
    let tasks_per_second = |trips: f64| {
        let seconds = trips * rename_across.median_seconds + create_and_sync.median_seconds;
        1.0 / seconds.max(f64::EPSILON)
    };
    Ok(Measured {
        rename: Spread::of(within),
        rename_across,
        create_and_sync,
        clock_ahead_seconds,
        clock_uncertainty_seconds,
        tasks_per_second: (tasks_per_second(TRIPS_PER_TASK.1), tasks_per_second(TRIPS_PER_TASK.0)),
    })
}

fn rename(files: &Files, from: &Path, to: &Path) -> Result<(), PathError> {
    match files.rename(from, to)? {
        Moved::Yes => Ok(()),
        Moved::Gone => Err(PathError {
            action: "rename",
            path: from.to_owned(),
            source: std::io::Error::other("it was there a moment ago, and the server no longer finds it"),
        }),
    }
}

fn clock(files: &Files, dir: &Path, clocks: &Clocks<'_>) -> Result<(f64, f64), PathError> {
    let before = (clocks.now)();
    let probe = files.stage(dir)?;
    let found = files.look(probe.path())?;
    let after = (clocks.now)();
    let theirs = found.map_or(before, |found| found.modified);
    let asking = after.duration_since(before).unwrap_or_default().as_secs_f64();
    let since = |later: SystemTime, earlier: SystemTime| match later.duration_since(earlier) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    };
    Ok((since(theirs, before) - asking / 2.0, asking / 2.0))
}

impl Spread {
    fn of(mut taken: Vec<Duration>) -> Self {
        taken.sort();
        let at = |share: usize| {
            let index = (taken.len() * share).div_ceil(100).saturating_sub(1);
            taken.get(index).map_or(0.0, Duration::as_secs_f64)
        };
        Self { median_seconds: at(50), p99_seconds: at(99), count: taken.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_that_of_the_sorted_tries() {
        let check = |seconds: &[u64], median: f64, p99: f64| {
            let spread = Spread::of(seconds.iter().copied().map(Duration::from_secs).collect());
            assert_eq!(spread, Spread { median_seconds: median, p99_seconds: p99, count: seconds.len() });
        };
        check(&[], 0.0, 0.0);
        check(&[7], 7.0, 7.0);
        check(&[3, 1, 2], 2.0, 3.0);
        check(&(1..=200).rev().collect::<Vec<_>>(), 100.0, 198.0);
    }
}

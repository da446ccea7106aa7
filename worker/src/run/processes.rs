use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long killed processes may take to be gone; what hangs in the kernel beyond that is said.
const KILL_MAX: Duration = Duration::from_secs(5);
/// Between two looks at what is left.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Kills whatever `find` finds, again until it finds nothing; gives how many are left. Something that starts others
/// while it is looked at is found the next time.
pub(super) fn end_all(find: impl Fn() -> BTreeSet<i32>) -> usize {
    let started = Instant::now();
    loop {
        let found = find();
        if found.is_empty() || started.elapsed() > KILL_MAX {
            return found.len();
        }
        kill_once(&found);
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Kills these.
pub(super) fn kill_once(found: &BTreeSet<i32>) {
    for pid in found {
        // One that has ended since is no error.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

/// Takes leave of every child that has ended; only for a process whose children nobody else waits for.
pub(super) fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// All that descends from a process, itself left out. Orphans count where it takes them in (`PR_SET_CHILD_SUBREAPER`).
pub(super) fn descendants(of: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in all() {
        // `pid (name) state parent …`, and a name may hold anything (proc_pid_stat(5)).
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut left = vec![of];
    while let Some(parent) = left.pop() {
        left.extend(
            children.remove(&parent).unwrap_or_default().into_iter().filter(|pid| found.insert(*pid)),
        );
    }
    found
}

/// The processes that were started with a variable whose `NAME=value` begins with `mark`.
pub(super) fn marked(mark: &str) -> BTreeSet<i32> {
    let has_mark = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
    };
    all().filter(has_mark).collect()
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn children_of_others_are_left_to_those_who_wait_for_them() {
        let mark = format!("BOTTEGA_TEST={}", uuid::Uuid::now_v7());
        let (name, value) = mark.split_once('=').unwrap();
        let mut others = Command::new("true").spawn().unwrap();
        let mut ours = Command::new("sleep").arg("600").env(name, value).spawn().unwrap();
        let has_ended =
            |id: u32| fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "));
        while !has_ended(others.id()) || marked(&mark).is_empty() {
            std::thread::sleep(LOOK_AGAIN);
        }
        assert_eq!(end_all(|| marked(&mark)), 0);
        assert!(others.wait().unwrap().success());
        assert!(!ours.wait().unwrap().success());
    }
}

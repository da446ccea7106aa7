//! Processes that hang in the kernel: no signal ends them, and with them no container.

use std::fs;
use std::path::Path;

/// Processes of one container that are looked at.
const PROCESSES_MAX: usize = 1000;

/// A sentence about what hangs in the container whose first process is `pid`, as far as it is to be seen. A process that was
/// killed may be gone but for one of its threads, and any thread may have children.
pub(super) fn of(proc: &Path, pid: u64) -> Option<String> {
    let mut waiting = vec![pid];
    for seen in 0..PROCESSES_MAX {
        let pid = waiting.pop()?;
        let threads = fs::read_dir(proc.join(pid.to_string()).join("task")).into_iter().flatten().flatten();
        for thread in threads.take(PROCESSES_MAX) {
            let thread = thread.path();
            if let Some(what) = what_hangs(&thread) {
                return Some(format!("process {pid} {what}"));
            }
            let children = fs::read_to_string(thread.join("children")).unwrap_or_default();
            let room = PROCESSES_MAX.saturating_sub(seen + waiting.len());
            waiting.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u64>().ok()).take(room));
        }
    }
    None
}

fn what_hangs(thread: &Path) -> Option<String> {
    let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    // `PID (NAME) STATE …`; a name may hold anything.
    let (name, rest) = stat.rsplit_once(')')?;
    if !rest.trim_start().starts_with('D') {
        return None;
    }
    let name = name.split_once('(').map_or("", |(_, name)| name);
    let at = fs::read_to_string(thread.join("wchan")).ok().filter(|at| !at.is_empty() && at != "0");
    let at = at.map(|at| format!(", at {at}")).unwrap_or_default();
    Some(format!("({name}) hangs in the kernel (state D{at})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_hangs_is_found_among_the_descendants() {
        let dir = tempfile::tempdir().expect("dir");
        let thread = |pid: u64, tid: u64, name: &str, state: char, children: &str| {
            let of = dir.path().join(format!("{pid}/task/{tid}"));
            fs::create_dir_all(&of).expect("made");
            fs::write(of.join("stat"), format!("{tid} ({name}) {state} 1 1 1")).expect("written");
            fs::write(of.join("wchan"), if state == 'D' { "nfs_wait" } else { "0" }).expect("written");
            fs::write(of.join("children"), children).expect("written");
        };
        thread(1, 1, "init", 'S', "2 3 ");
        thread(2, 2, "idle", 'S', "");
        thread(3, 3, "sh", 'S', "9 ");
        // The child of a thread that is not the first.
        thread(3, 31, "sh", 'S', "4 ");
        assert_eq!(of(dir.path(), 1), None);
        thread(4, 4, "c) D (at", 'D', "");
        let told = "process 4 (c) D (at) hangs in the kernel (state D, at nfs_wait)";
        assert_eq!(of(dir.path(), 1).as_deref(), Some(told));
        assert_eq!(of(dir.path(), 2), None);
        assert_eq!(of(dir.path(), 77), None);
        // Killed, but for one thread.
        thread(4, 4, "python", 'Z', "");
        assert_eq!(of(dir.path(), 1), None);
        thread(4, 41, "reader", 'D', "");
        let told = "process 4 (reader) hangs in the kernel (state D, at nfs_wait)";
        assert_eq!(of(dir.path(), 1).as_deref(), Some(told));
        // One that has ended has no process.
        assert_eq!(of(Path::new("/proc"), 0), None);
    }
}

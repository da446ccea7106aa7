//! Processes that hang in the kernel: no signal ends them, and with them no container.

use std::fs;
use std::path::Path;

/// Processes of one container that are looked at.
const PROCESSES_MAX: usize = 1000;

/// A sentence about what hangs in the container whose first process is `pid`, as far as it is to be seen.
pub(super) fn of(proc: &Path, pid: u64) -> Option<String> {
    let mut waiting = vec![pid];
    for seen in 0..PROCESSES_MAX {
        let pid = waiting.pop()?;
        let dir = proc.join(pid.to_string());
        let stat = fs::read_to_string(dir.join("stat")).unwrap_or_default();
        // `PID (NAME) STATE …`; a name may hold anything.
        if let Some((name, rest)) = stat.rsplit_once(')')
            && rest.trim_start().starts_with('D')
        {
            let name = name.split_once('(').map_or("", |(_, name)| name);
            let at = fs::read_to_string(dir.join("wchan")).ok().filter(|at| !at.is_empty() && at != "0");
            let at = at.map(|at| format!(", at {at}")).unwrap_or_default();
            return Some(format!("process {pid} ({name}) hangs in the kernel (state D{at})"));
        }
        let children = fs::read_to_string(dir.join(format!("task/{pid}/children"))).unwrap_or_default();
        let room = PROCESSES_MAX - seen;
        waiting.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u64>().ok()).take(room));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_hangs_is_found_among_the_descendants() {
        let dir = tempfile::tempdir().expect("dir");
        let process = |pid: u64, name: &str, state: char, children: &str| {
            let of = dir.path().join(pid.to_string());
            fs::create_dir_all(of.join(format!("task/{pid}"))).expect("made");
            fs::write(of.join("stat"), format!("{pid} ({name}) {state} 1 1 1")).expect("written");
            fs::write(of.join("wchan"), if state == 'D' { "nfs_wait" } else { "0" }).expect("written");
            fs::write(of.join(format!("task/{pid}/children")), children).expect("written");
        };
        process(1, "init", 'S', "2 3 ");
        process(2, "idle", 'S', "");
        process(3, "sh", 'S', "4 9 ");
        assert_eq!(of(dir.path(), 1), None);
        process(4, "c) D (at", 'D', "");
        let told = "process 4 (c) D (at) hangs in the kernel (state D, at nfs_wait)";
        assert_eq!(of(dir.path(), 1).as_deref(), Some(told));
        assert_eq!(of(dir.path(), 2), None);
        assert_eq!(of(dir.path(), 77), None);
        // One that has ended has no process.
        assert_eq!(of(Path::new("/proc"), 0), None);
    }
}

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access, geteuid};

/// How often processes are ended that make new ones meanwhile, and the pause in between.
const ENDS_MAX: u32 = 100;
const END_AGAIN: Duration = Duration::from_millis(20);

/// What an engine runs in a slot's control group and lists nowhere: Podman goes on with a build whose asker has hung up,
/// in containers that its API does not know.
#[derive(Clone, Debug)]
pub(super) struct Unlisted {
    /// One of cgroup v2, or one for each controller of v1.
    dirs: Vec<PathBuf>,
}

impl Unlisted {
    pub(super) fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// Whether this process may end what runs there.
    pub(super) fn can_be_ended(&self) -> bool {
        geteuid().is_root()
            || self.dirs.iter().all(|dir| access(&dir.join("cgroup.kill"), AccessFlags::W_OK).is_ok())
    }

    /// Ends all of it.
    ///
    /// # Errors
    /// Something runs on: a sentence.
    pub(super) async fn end(&self) -> Result<(), String> {
        for _ in 0..ENDS_MAX {
            if !self.dirs.iter().any(|dir| is_in_use(dir)) {
                return Ok(());
            }
            self.dirs.iter().for_each(|dir| kill_all(dir));
            tokio::time::sleep(END_AGAIN).await;
        }
        let name = self.dirs.first().and_then(|dir| dir.file_name()).unwrap_or_default().display();
        Err(format!(
            "processes in control group {name} cannot be ended; look with: systemd-cgls, or ps -eo pid,cgroup,args"
        ))
    }
}

/// Once for all of it where the kernel can (v2 since Linux 5.14), else one by one. What is gone by itself, or not ours
/// to end, is told by the next look.
fn kill_all(dir: &Path) {
    let file = fs::OpenOptions::new().write(true).open(dir.join("cgroup.kill"));
    if file.and_then(|mut file| file.write_all(b"1")).is_ok() {
        return;
    }
    for pid in processes(dir) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Whether anything runs in a group or below it.
pub(super) fn is_in_use(dir: &Path) -> bool {
    !processes(dir).is_empty()
}

/// Removes the groups below one as far as nothing runs in them: v1 fits no group to less than one below it has.
pub(super) fn remove_below(dir: &Path) {
    for group in below(dir) {
        remove_below(&group);
        let _ = fs::remove_dir(group);
    }
}

/// Those of a group and of all groups below it.
fn processes(dir: &Path) -> Vec<i32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok());
    own.chain(below(dir).iter().flat_map(|group| processes(group))).collect()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// Groups as the kernel shows them: directories, and in each a list of what runs there.
    fn group(dir: &Path, pids: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("cgroup.procs"), pids).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn ends_what_runs_anywhere_below_and_says_what_runs_on() {
        let dir = tempfile::tempdir().unwrap();
        let slot = dir.path().join("bottega-slot4");
        group(&slot, "");
        let unlisted = Unlisted::new(vec![slot.clone()]);
        assert_eq!(unlisted.end().await, Ok(()));

        let mut child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        group(&slot.join("buildah-1/inner"), &format!("{}\n", child.id()));
        let why = unlisted.end().await.unwrap_err();
        assert!(why.contains("bottega-slot4"), "{why}");
        assert!(!child.wait().unwrap().success(), "killed, though no kernel takes it off this list");

        group(&slot.join("buildah-1/inner"), "");
        assert_eq!(unlisted.end().await, Ok(()));
    }

    #[test]
    fn removes_empty_groups_from_below() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "d"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        group(&dir.path().join("e"), "1\n");
        remove_below(dir.path());
        let left: Vec<_> =
            below(dir.path()).into_iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(left, ["e"]);
    }
}

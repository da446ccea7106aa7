use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access, geteuid};

use super::processes_in;

/// How often processes are ended that make new ones meanwhile, and the pause in between.
const ENDS_MAX: u32 = 100;
const END_AGAIN: Duration = Duration::from_millis(20);

/// What an engine runs below a slot's control group and lists nowhere: Podman goes on with a build whose asker has hung
/// up, in containers that its API does not know.
#[derive(Clone, Debug)]
pub(super) struct Unlisted {
    /// The slot's group, and the one of its builds; one pair of cgroup v2, or one for each controller of v1.
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) slot: PathBuf,
    pub(super) builds: PathBuf,
}

impl Unlisted {
    pub(super) fn new(groups: Vec<Group>) -> Self {
        Self { groups }
    }

    /// Whether this process may end what runs there.
    pub(super) fn can_be_ended(&self) -> bool {
        geteuid().is_root()
            || self.groups.iter().all(|group| access(&kill_file(&group.slot), AccessFlags::W_OK).is_ok())
    }

    /// Ends all of it.
    ///
    /// # Errors
    /// Something runs on: a sentence.
    pub(super) async fn end(&self) -> Result<(), String> {
        for _ in 0..ENDS_MAX {
            let Some(group) = self.groups.iter().find(|group| is_in_use(&group.builds)) else {
                return Ok(());
            };
            kill_builds(group);
            tokio::time::sleep(END_AGAIN).await;
        }
        let left = self.groups.iter().filter(|group| is_in_use(&group.builds));
        let names: Vec<String> = left.map(|group| group.builds.display().to_string()).collect();
        Err(format!(
            "a build that was cut off cannot be ended, its processes are in {}; end them as root",
            names.join(" and ")
        ))
    }
}

/// Once for all where the kernel can (v2 since Linux 5.14), else one by one; whoever may do neither was given the slot's
/// own file, and whatever else is in a slot when this is asked for is to go too. What is gone by itself, or not ours to
/// end, is told by the next look.
fn kill_builds(group: &Group) {
    if kill_by_file(&group.builds) {
        return;
    }
    for pid in processes(&group.builds) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    if !geteuid().is_root() {
        kill_by_file(&group.slot);
    }
}

fn kill_by_file(dir: &Path) -> bool {
    let file = fs::OpenOptions::new().write(true).open(kill_file(dir));
    file.and_then(|mut file| file.write_all(b"1")).is_ok()
}

fn kill_file(dir: &Path) -> PathBuf {
    dir.join("cgroup.kill")
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
    let own = processes_in(dir).into_iter();
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
        let (slot, builds) = (dir.path().join("bottega-slot4"), dir.path().join("bottega-slot4/build"));
        let sleep = || Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let (mut container, mut build) = (sleep(), sleep());
        group(&slot.join("libpod-1"), &format!("{}\n", container.id()));
        let unlisted = Unlisted::new(vec![Group { slot, builds: builds.clone() }]);
        assert_eq!(unlisted.end().await, Ok(()));

        group(&builds.join("inner"), &format!("{}\n", build.id()));
        let why = unlisted.end().await.unwrap_err();
        assert!(why.contains("bottega-slot4/build"), "{why}");
        assert!(!build.wait().unwrap().success(), "killed, though no kernel takes it off this list");

        group(&builds.join("inner"), "");
        assert_eq!(unlisted.end().await, Ok(()));
        assert!(container.try_wait().unwrap().is_none(), "it is listed");
        container.kill().unwrap();
        container.wait().unwrap();
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

//! What only root can do for a worker that is not root: control groups for its slots.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setegid, seteuid, setgroups};

use crate::engine::{EngineFacts, SlotGroups};
use crate::slots::Slot;

/// Who owns the worker's state directory: the worker's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// Of a directory.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let found = fs::metadata(dir)?;
        Ok(Self { uid: found.uid(), gid: found.gid() })
    }

    /// Does something with the owner's rights alone, where this process is root: what the owner has put into its
    /// directory, a link perhaps, leads no further than the owner gets. Not for several threads at once.
    ///
    /// # Errors
    /// The rights cannot be changed, or not back.
    pub fn act<T>(self, what: impl FnOnce() -> T) -> io::Result<T> {
        if !geteuid().is_root() {
            return Ok(what());
        }
        let (gid, groups) = (getegid(), getgroups()?);
        setgroups(&[Gid::from_raw(self.gid)])?;
        setegid(Gid::from_raw(self.gid))?;
        seteuid(Uid::from_raw(self.uid))?;
        let done = what();
        seteuid(Uid::from_raw(0))?;
        setegid(gid)?;
        setgroups(&groups)?;
        Ok(done)
    }
}

/// Makes the groups of slots, and gives them to the worker's user where the worker fits them itself: systemd fits its
/// slices. Gives a sentence for each thing that could not be done; the worker runs without it.
#[must_use]
pub fn prepare(facts: &EngineFacts, slots: &[Slot], owner: Owner) -> Vec<String> {
    let groups = SlotGroups::new(facts);
    let mut left_out = Vec::new();
    for slot in slots {
        let first = slot.cpus.first().copied().unwrap_or_default();
        let made = match facts.cgroup_driver.as_str() {
            // What runs on for the next worker keeps what it was promised.
            "systemd" if groups.is_in_use(first) => Ok(()),
            "systemd" => {
                let commands = slice_commands(&groups.name(first), slot, facts.rootless_uid);
                commands
                    .iter()
                    .try_for_each(|command| run(command))
                    .and_then(|()| groups.kill_files(first).iter().try_for_each(|path| give(path, owner)))
            }
            _ => groups.confine(first, &mut slot.limits.clone()).and_then(|()| {
                let (dirs, files) = groups.paths(first, &slot.limits);
                let files = files.into_iter().chain(groups.kill_files(first));
                dirs.into_iter().chain(files).try_for_each(|path| give(&path, owner))
            }),
        };
        left_out.extend(made.err().filter(|why| !left_out.contains(why)));
    }
    left_out
}

fn give(path: &Path, owner: Owner) -> Result<(), String> {
    match lchown(path, Some(owner.uid), Some(owner.gid)) {
        // A controller that is not handed down has no files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        given => {
            given.map_err(|error| format!("cannot give {} to user {}: {error}", path.display(), owner.uid))
        }
    }
}

/// A slice stays until the node restarts, and so do the properties of `--runtime`
/// (systemd.resource-control(5); `AllowedCPUs=` works on v2 alone).
fn slice_commands(slice: &str, slot: &Slot, rootless_uid: Option<u32>) -> [Vec<String>; 2] {
    let limits = &slot.limits;
    let systemctl: Vec<String> =
        ["systemctl".to_owned()].into_iter().chain(systemd_of(rootless_uid)).collect();
    let start = ["start", slice].map(str::to_owned).to_vec();
    let mut set = ["set-property", "--runtime", slice].map(str::to_owned).to_vec();
    set.push(format!("AllowedCPUs={}", limits.cpuset_cpus));
    set.extend(limits.cpuset_mems.as_ref().map(|mems| format!("AllowedMemoryNodes={mems}")));
    set.push(format!("MemoryMax={}", SlotGroups::memory_bytes(limits)));
    set.push("MemorySwapMax=0".to_owned());
    set.push(format!("TasksMax={}", limits.pids_max));
    [start, set].map(|arguments| [systemctl.clone(), arguments].concat())
}

/// Which systemd has an engine's groups, as options of systemctl: the system's, or that of the engine's user.
#[must_use]
pub fn systemd_of(rootless_uid: Option<u32>) -> Vec<String> {
    match rootless_uid {
        None => vec!["--system".to_owned()],
        Some(uid) if Uid::from_raw(uid) == geteuid() => vec!["--user".to_owned()],
        Some(uid) => vec!["--user".to_owned(), format!("--machine={uid}@.host")],
    }
}

fn run(command: &[String]) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot run {}: {error}", command.join(" "));
    let ended = Command::new(&command[0]).args(&command[1..]).output().map_err(failed)?;
    if ended.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&ended.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorkerConfig;
    use crate::slots::plan;
    use crate::slots::tests::machine;

    #[test]
    fn a_slice_has_all_limits_of_its_slot() {
        let slot = plan(&machine(2, 4, 2, 256 << 30), &WorkerConfig::default()).slots.remove(3);
        let check = |uid: u32, expected: &str| {
            let [start, _] = slice_commands("bottega-slot12.slice", &slot, Some(uid));
            assert_eq!(start.join(" "), expected);
        };
        check(geteuid().as_raw(), "systemctl --user start bottega-slot12.slice");
        check(12345, "systemctl --user --machine=12345@.host start bottega-slot12.slice");
        let [start, set] = slice_commands("bottega-slot12.slice", &slot, None);
        assert_eq!(start.join(" "), "systemctl --system start bottega-slot12.slice");
        assert_eq!(
            set.join(" "),
            format!(
                "systemctl --system set-property --runtime bottega-slot12.slice AllowedCPUs=12-15 AllowedMemoryNodes=1 \
                 MemoryMax={} MemorySwapMax=0 TasksMax=4096",
                (24u64 << 30) + (32 << 20)
            )
        );
    }
}

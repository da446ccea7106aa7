use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::EngineFacts;

const MOUNT: &str = "/sys/fs/cgroup";

/// A control group above the containers of one build: the only way to limit its processes, for the builder itself
/// has no such limit. Removed when dropped, as far as nothing runs in it any more.
#[derive(Debug)]
pub(super) struct ParentGroup {
    name: String,
    mount: PathBuf,
}

impl ParentGroup {
    /// What an earlier incarnation may have left; dropping it removes it.
    pub(super) fn left(object: Uuid) -> Self {
        Self { name: format!("bottega-{}", object.simple()), mount: MOUNT.into() }
    }

    /// Makes the group; `None` where the host does not let us, which [`is_possible`] tells beforehand.
    pub(super) fn make(facts: &EngineFacts, object: Uuid, pids_max: u64) -> Option<Self> {
        if !facts.limits_build_processes {
            return None;
        }
        let group = Self::left(object);
        let dir = pids_root(facts.cgroup_version).join(&group.name);
        let made = match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::write(dir.join("pids.max"), pids_max.to_string()),
        };
        match made {
            Ok(()) => Some(group),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "a build's processes are not limited");
                None
            }
        }
    }

    /// As the engine's `cgroupparent` wants it.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }
}

impl Drop for ParentGroup {
    fn drop(&mut self) {
        // v1: the engine made a directory of this name under each controller.
        let controllers = fs::read_dir(&self.mount).into_iter().flatten().filter_map(Result::ok);
        for dir in controllers.map(|entry| entry.path()).chain([self.mount.clone()]) {
            // One that is missing or still in use stays as it is; it holds no process of ours.
            let _ = fs::remove_dir(dir.join(&self.name));
        }
    }
}

/// Whether groups can be made on this host: the engine manages them as files, and so may we.
pub(super) fn is_possible(cgroup_driver: &str, cgroup_version: u8) -> bool {
    let root = pids_root(cgroup_version);
    let may_write = nix::unistd::access(&root, nix::unistd::AccessFlags::W_OK).is_ok();
    // A group has a limit of processes only where its parent hands that controller down.
    let hands_down = cgroup_version == 1
        || fs::read_to_string(root.join("cgroup.subtree_control")).is_ok_and(|text| text.contains("pids"));
    cgroup_driver == "cgroupfs" && may_write && hands_down
}

fn pids_root(cgroup_version: u8) -> PathBuf {
    let mount = Path::new(MOUNT);
    if cgroup_version == 1 { mount.join("pids") } else { mount.to_owned() }
}

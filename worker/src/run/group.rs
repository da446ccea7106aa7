use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{Cgroup, Oom, processes_in};
use crate::topology::MOUNT;

/// Controllers of v1 that a group is made under.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// A control group of one native command, v1 or v2; its name begins with that of its worker.
#[derive(Debug)]
pub(super) struct Group {
    dirs: Vec<PathBuf>,
    /// Where who joins it comes from.
    origins: Vec<PathBuf>,
    name: String,
    is_v2: bool,
}

impl Group {
    /// Makes a group that limits memory.
    ///
    /// # Errors
    /// Why there can be none here.
    pub(super) fn make(name: &str, memory_bytes: u64, pids_max: u64) -> io::Result<Self> {
        let mount = Path::new(MOUNT);
        let is_v2 = mount.join("cgroup.controllers").exists();
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let origin = |controller: &str| {
            let rows = own.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
            let path = rows.filter(|row| row.len() == 3).find_map(|row| {
                row[1]
                    .split(',')
                    .any(|name| name == controller)
                    .then(|| row[2].trim_start_matches('/').to_owned())
            });
            mount
                .join(if is_v2 { "" } else { controller })
                .join(path.unwrap_or_default())
                .join("cgroup.procs")
        };
        let roots = roots();
        let mut group = Self { dirs: Vec::new(), origins: Vec::new(), name: name.to_owned(), is_v2 };
        for root in &roots {
            let dir = root.join(name);
            fs::create_dir(&dir)?;
            group.dirs.push(dir);
        }
        group.origins = if is_v2 { vec![origin("")] } else { CONTROLLERS.map(origin).into() };
        let memory = &group.dirs[0];
        let limit = memory_bytes.to_string();
        if is_v2 {
            fs::write(memory.join("memory.max"), &limit)?;
        } else {
            fs::write(memory.join("memory.limit_in_bytes"), &limit)?;
        }
        // Kernels that do not account for swap have no such files.
        let _ = fs::write(memory.join("memory.memsw.limit_in_bytes"), &limit);
        let _ = fs::write(memory.join("memory.swap.max"), "0");
        if let Some(pids) = group.dirs.last() {
            fs::write(pids.join("pids.max"), pids_max.to_string())?;
        }
        Ok(group)
    }

    /// Moves this process into the group: what it starts from now on is in it too.
    pub(super) fn join(&self) -> io::Result<()> {
        self.dirs.iter().try_for_each(|dir| enter(&dir.join("cgroup.procs")))
    }

    /// Moves this process to where it was.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.origins.iter().try_for_each(|origin| enter(origin))
    }

    /// The processes in it.
    pub(super) fn processes(&self) -> Vec<i32> {
        self.dirs.iter().flat_map(|dir| processes_in(dir)).collect()
    }

    /// Highest memory use.
    pub(super) fn peak_memory_bytes(&self) -> Option<u64> {
        self.counters().peak_memory_bytes()
    }

    /// The processes of it that the kernel has killed for want of memory.
    pub(super) fn oom(&self) -> Oom {
        self.counters().oom().unwrap_or_default()
    }

    fn counters(&self) -> Cgroup {
        Cgroup::named(Path::new(MOUNT), &self.name, self.is_v2)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // One that is in use stays; the worker's next start removes it.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The processes in all groups whose name begins with `prefix`.
pub(super) fn processes_of(prefix: &str) -> Vec<i32> {
    groups_of(prefix).iter().flat_map(|dir| processes_in(dir)).collect()
}

/// Removes the groups whose name begins with `prefix`, as far as they are empty.
pub(super) fn remove_of(prefix: &str) {
    for dir in groups_of(prefix) {
        let _ = fs::remove_dir(dir);
    }
}

fn groups_of(prefix: &str) -> Vec<PathBuf> {
    let entries = roots().into_iter().flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    ours.map(|entry| entry.path()).collect()
}

fn roots() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return vec![mount.to_owned()];
    }
    CONTROLLERS.iter().map(|controller| mount.join(controller)).collect()
}

fn enter(procs: &Path) -> io::Result<()> {
    fs::write(procs, std::process::id().to_string())
}

use std::fs;
use std::path::{Path, PathBuf};

use queue_format::PressureOf;

use super::Limits;
use crate::topology::{CpuSet, MOUNT};

/// A container's control group as the host sees it, v1 or v2; what cannot be read is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    memory_dir: PathBuf,
    cpuset_dir: PathBuf,
    pids_dir: PathBuf,
    is_v2: bool,
}

/// The limits that the kernel holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effective {
    pub(super) memory_bytes: Option<u64>,
    pub(super) pids_max: Option<u64>,
    pub(super) cpuset_cpus: Option<String>,
    pub(super) cpuset_mems: Option<String>,
}

/// What the kernel did for want of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oom {
    /// How many processes it has killed.
    pub(crate) kills: u64,
    /// Whether the group ever met its own limit; else the node was short of memory, or a group above this one.
    pub(crate) has_met_limit: bool,
}

impl Oom {
    /// Whether some were killed at the group's own limit.
    pub(crate) fn is_own(self) -> bool {
        self.kills > 0 && self.has_met_limit
    }

    /// Whether some were killed though the group had not met its limit.
    pub(crate) fn is_foreign(self) -> bool {
        self.kills > 0 && !self.has_met_limit
    }
}

impl Cgroup {
    /// The group of a container's process; `None` where it has ended or is hidden.
    pub(super) fn of_process(pid: i64) -> Option<Self> {
        let found = Self::parse(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?, Path::new(MOUNT))?;
        Some(found.with_outer())
    }

    /// Some runtimes give a container two groups, one in the other, both with its limits (`run.oci.systemd.subgroup` of
    /// crun). The outer one holds a little more, and so meets the limit of memory first: its events tell. A slot's group is not
    /// taken for one, for it has more memory than its container (`MEMORY_SLACK_BYTES`).
    fn with_outer(mut self) -> Self {
        let limit = |dir: &Path| read(&dir.join("memory.max"))?.parse::<u64>().ok();
        if self.is_v2
            && let Some(outer) = self.memory_dir.parent()
            && limit(outer).is_some_and(|held| limit(&self.memory_dir) == Some(held))
        {
            self.memory_dir = outer.to_owned();
        }
        self
    }

    /// A group at the top of each hierarchy.
    pub(crate) fn named(mount: &Path, name: &str, is_v2: bool) -> Self {
        let dir = |controller: &str| mount.join(if is_v2 { "" } else { controller }).join(name);
        Self { memory_dir: dir("memory"), cpuset_dir: dir("cpuset"), pids_dir: dir("pids"), is_v2 }
    }

    /// From the lines of /proc/PID/cgroup: `ID:CONTROLLERS:PATH`, v2 with ID 0 and no controllers.
    fn parse(lines: &str, mount: &Path) -> Option<Self> {
        let rows: Vec<Vec<&str>> = lines.lines().map(|line| line.splitn(3, ':').collect()).collect();
        // What has ended, and is not reaped yet, is in the group of all.
        let below =
            |row: &[&str]| Some(row[2].trim_start_matches('/').to_owned()).filter(|path| !path.is_empty());
        let dir = |controller: &str| {
            let row =
                rows.iter().find(|row| row.len() == 3 && row[1].split(',').any(|name| name == controller))?;
            Some(mount.join(controller).join(below(row)?))
        };
        if let (Some(memory_dir), Some(cpuset_dir), Some(pids_dir)) =
            (dir("memory"), dir("cpuset"), dir("pids"))
        {
            return Some(Self { memory_dir, cpuset_dir, pids_dir, is_v2: false });
        }
        let row = rows.iter().find(|row| row.len() == 3 && row[0] == "0" && row[1].is_empty())?;
        let dir = mount.join(below(row)?);
        Some(Self { memory_dir: dir.clone(), cpuset_dir: dir.clone(), pids_dir: dir, is_v2: true })
    }

    /// The highest memory use so far, page cache included; before Linux 5.19 v2 tells only the present one.
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        let names: &[&str] =
            if self.is_v2 { &["memory.peak", "memory.current"] } else { &["memory.max_usage_in_bytes"] };
        names.iter().find_map(|name| read(&self.memory_dir.join(name))?.parse().ok())
    }

    /// The processes of it that the kernel has killed for want of memory.
    pub(crate) fn oom(&self) -> Option<Oom> {
        if self.is_v2 {
            let events = read(&self.memory_dir.join("memory.events"))?;
            let has_met_limit = value_of(&events, "oom")? > 0;
            return Some(Oom { kills: value_of(&events, "oom_kill")?, has_met_limit });
        }
        let kills = value_of(&read(&self.memory_dir.join("memory.oom_control"))?, "oom_kill")?;
        if kills == 0 {
            return Some(Oom::default());
        }
        // Newer kernels count no failures at the limit here.
        let limit: u64 = read(&self.memory_dir.join("memory.limit_in_bytes"))?.parse().ok()?;
        Some(Oom { kills, has_met_limit: self.peak_memory_bytes()? >= limit / 100 * 99 })
    }

    /// The bytes in use that are no files': they cannot be given back.
    pub(super) fn unreclaimable_bytes(&self) -> Option<u64> {
        let stat = read(&self.memory_dir.join("memory.stat"))?;
        let keys = if self.is_v2 { ["anon", "shmem"] } else { ["total_rss", "total_shmem"] };
        Some(keys.iter().filter_map(|key| value_of(&stat, key)).sum())
    }

    /// The limits that hold; v2 writes `max` where there is none.
    pub(super) fn effective(&self) -> Effective {
        let memory = if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        let suffix = if self.is_v2 { ".effective" } else { "" };
        let set = |what: &str| read(&self.cpuset_dir.join(format!("cpuset.{what}{suffix}")));
        let number = |path: PathBuf| read(&path).map(|text| text.parse().unwrap_or(u64::MAX));
        Effective {
            memory_bytes: number(self.memory_dir.join(memory)),
            pids_max: number(self.pids_dir.join("pids.max")),
            cpuset_cpus: set("cpus"),
            cpuset_mems: set("mems"),
        }
    }

    /// Its processes.
    pub(super) fn processes(&self) -> Vec<i32> {
        processes_in(&self.pids_dir)
    }

    /// Where the kernel tells what it makes processes wait for: a file of the group, or of the whole node.
    pub(super) fn pressure(&self, resource: &str) -> (PathBuf, PressureOf) {
        let own = self.memory_dir.join(format!("{resource}.pressure"));
        match self.is_v2 && own.exists() {
            true => (own, PressureOf::Container),
            false => (Path::new("/proc/pressure").join(resource), PressureOf::Node),
        }
    }
}

impl Effective {
    /// A sentence for each limit that does not hold.
    pub(super) fn mismatches(&self, limits: &Limits) -> Vec<String> {
        let mut sentences = Vec::new();
        let set = |text: &str| text.parse::<CpuSet>().ok();
        let mut compare = |what: &str, asked: String, held: Option<String>, holds: bool| {
            if !holds {
                let held = held.unwrap_or_else(|| "nothing".to_owned());
                sentences.push(format!(
                    "limit of {what} does not hold: asked for {asked}, the kernel holds {held}"
                ));
            }
        };
        // The kernel rounds memory down to whole pages.
        let memory_holds = self.memory_bytes.is_some_and(|held| held <= limits.memory_bytes);
        compare(
            "memory",
            limits.memory_bytes.to_string(),
            self.memory_bytes.map(|v| v.to_string()),
            memory_holds,
        );
        let pids_hold = self.pids_max == Some(limits.pids_max);
        compare("processes", limits.pids_max.to_string(), self.pids_max.map(|v| v.to_string()), pids_hold);
        let cpus_hold = self.cpuset_cpus.as_deref().is_some_and(|held| set(held) == set(&limits.cpuset_cpus));
        compare("cores", limits.cpuset_cpus.clone(), self.cpuset_cpus.clone(), cpus_hold);
        if let Some(asked) = &limits.cpuset_mems {
            let holds = self.cpuset_mems.as_deref().is_some_and(|held| set(held) == set(asked));
            compare("NUMA nodes", asked.clone(), self.cpuset_mems.clone(), holds);
        }
        sentences
    }
}

/// The processes of the group that a directory is, without those below it.
pub(crate) fn processes_in(dir: &Path) -> Vec<i32> {
    let text = read(&dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The number after a key, where each line has one of both.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_group_in_v1_v2_and_hybrid() {
        let mount = Path::new("/m");
        let v1 = "12:pids:/docker/x\n5:cpu,cpuacct:/docker/x\n4:cpuset:/docker/x\n3:memory:/docker/x\n0::/docker/x\n";
        let found = Cgroup::parse(v1, mount).unwrap();
        assert_eq!(found.memory_dir, Path::new("/m/memory/docker/x"));
        assert!(!found.is_v2);
        let found = Cgroup::parse("0::/system.slice/docker-x.scope\n", mount).unwrap();
        assert_eq!(found.memory_dir, Path::new("/m/system.slice/docker-x.scope"));
        assert!(found.is_v2);
        let ended = "12:pids:/\n4:cpuset:/\n3:memory:/\n0::/\n";
        for bad in ["", "nonsense", "1:name=systemd:/x\n", "0::/\n", ended] {
            assert_eq!(Cgroup::parse(bad, mount), None, "{bad:?}");
        }
    }

    #[test]
    fn tells_a_kill_at_its_own_limit_from_one_at_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let check = |is_v2, files: &[(&str, &str)], own: bool, foreign: bool| {
            let group = Cgroup::named(dir.path(), if is_v2 { "two" } else { "one" }, is_v2);
            fs::create_dir_all(&group.memory_dir).unwrap();
            for (name, text) in files {
                fs::write(group.memory_dir.join(name), text).unwrap();
            }
            let oom = group.oom().unwrap();
            assert_eq!((oom.is_own(), oom.is_foreign()), (own, foreign), "{files:?}");
        };
        check(true, &[("memory.events", "max 9\noom 0\noom_kill 0\noom_group_kill 0\n")], false, false);
        check(true, &[("memory.events", "max 9\noom 1\noom_kill 2\n")], true, false);
        check(true, &[("memory.events", "max 0\noom 0\noom_kill 1\n")], false, true);
        let killed = ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
        let limit = ("memory.limit_in_bytes", "1000\n");
        check(false, &[killed, limit, ("memory.max_usage_in_bytes", "400\n")], false, true);
        check(false, &[killed, limit, ("memory.max_usage_in_bytes", "1000\n")], true, false);
        check(false, &[("memory.oom_control", "oom_kill_disable 0\noom_kill 0\n")], false, false);
    }

    #[test]
    fn of_two_groups_with_one_limit_the_outer_one_tells() {
        let dir = tempfile::tempdir().unwrap();
        let check = |outer: &str, inner: &str, expected: &str| {
            let group = Cgroup::named(dir.path(), "scope/container", true);
            fs::create_dir_all(&group.memory_dir).unwrap();
            fs::write(dir.path().join("scope/memory.max"), outer).unwrap();
            fs::write(group.memory_dir.join("memory.max"), inner).unwrap();
            let found = group.clone().with_outer();
            assert_eq!(found.memory_dir, dir.path().join(expected));
            assert_eq!(found.pids_dir, group.pids_dir);
        };
        check("4096\n", "4096\n", "scope");
        check("8192\n", "4096\n", "scope/container");
        check("max\n", "max\n", "scope/container");
    }

    #[test]
    fn names_each_limit_that_does_not_hold() {
        let limits = Limits {
            cpuset_cpus: "0-1".to_owned(),
            cpuset_mems: None,
            memory_bytes: 100,
            pids_max: 10,
            nofile_max: 10,
            shm_bytes: 10,
            disk_bytes: 10,
            cgroup_parent: None,
        };
        let held = |memory, pids, cpus: &str| Effective {
            memory_bytes: Some(memory),
            pids_max: Some(pids),
            cpuset_cpus: Some(cpus.to_owned()),
            cpuset_mems: Some("0".to_owned()),
        };
        assert!(held(96, 10, "0,1").mismatches(&limits).is_empty());
        assert_eq!(held(u64::MAX, 11, "0-3").mismatches(&limits).len(), 3);
        let bound = Limits { cpuset_mems: Some("1".to_owned()), ..limits.clone() };
        let said = held(96, 10, "0,1").mismatches(&bound);
        assert_eq!(said, ["limit of NUMA nodes does not hold: asked for 1, the kernel holds 0"]);
        let none = Effective::default().mismatches(&limits);
        assert_eq!(none[2], "limit of cores does not hold: asked for 0-1, the kernel holds nothing");
    }
}

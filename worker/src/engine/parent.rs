use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::unlisted::{Group, Unlisted, is_in_use, remove_below};
use super::{EngineFacts, Limits};
use crate::topology::{CpuSet, MOUNT};

/// What the groups of slots begin with.
const PREFIX: &str = "bottega-slot";
/// The slice above those of slots.
const SLICE: &str = "bottega.slice";
/// The group of builds in the group of a slot.
const BUILDS: &str = "build";
/// A group has so much more than its containers, so that one meets its own limit: that one's events tell whose it was.
const MEMORY_SLACK_BYTES: u64 = 32 << 20;
/// The kernel counts memory in pages; those of some machines are so large.
const PAGE_BYTES_MAX: u64 = 64 << 10;

/// The control groups above the containers of each slot: evaluations, and builds, whose processes nothing else limits.
///
/// The group of a slot is named by its first CPU, which no other worker of the node has: `bottega-slot4`, and with the
/// systemd driver `bottega-slot4.slice`. Either the worker makes it, or `bottega-worker prepare` has, as root.
#[derive(Debug)]
pub struct SlotGroups {
    mount: PathBuf,
    is_v2: bool,
    is_systemd: bool,
    /// Those that were used: the worker removes what it made when it ends.
    used: Mutex<BTreeSet<String>>,
}

/// A file of a group, and what is to be in it.
struct Setting {
    path: PathBuf,
    value: String,
    means: Means,
}

/// What makes a value the same as another.
enum Means {
    Set,
    Bytes,
    Number,
}

impl SlotGroups {
    /// As an engine manages its groups.
    #[must_use]
    pub fn new(facts: &EngineFacts) -> Self {
        let mount = mount(facts.rootless_uid);
        Self::below(&mount, facts.cgroup_version == 2, facts.cgroup_driver == "systemd")
    }

    fn below(mount: &Path, is_v2: bool, is_systemd: bool) -> Self {
        Self { mount: mount.to_owned(), is_v2, is_systemd, used: Mutex::default() }
    }

    /// Fits the group of a slot, whose first CPU is given, to limits, and names it in them.
    ///
    /// # Errors
    /// Why there is none, or none that holds these limits, in a sentence.
    pub fn confine(&self, first_cpu: u32, limits: &mut Limits) -> Result<(), String> {
        limits.cgroup_parent = None;
        let name = self.name(first_cpu);
        // The same of every slot, to be said once.
        let failed = |path: &Path, error: io::Error| {
            let (file, mount) = (path.file_name().unwrap_or_default().display(), self.mount.display());
            format!(
                "slots have no control groups, and builds no limit of processes: cannot write {file} below {mount}: {error}; \
                 run bottega-worker prepare as root"
            )
        };
        for dir in self.dirs(&name) {
            // Of a group that it did not make systemd takes all limits back as soon as a container is put into it.
            if self.is_systemd {
                if dir.is_dir() {
                    continue;
                }
                return Err(failed(&dir, io::ErrorKind::NotFound.into()));
            }
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(Path::new("groups"), error));
                }
                _ => {}
            }
        }
        if self.is_v2 && !self.is_systemd {
            self.hand_down(&self.mount);
            self.hand_down(&self.mount.join(&name));
        }
        if self.is_systemd && self.is_joined(&name, limits) {
            return Err(
                "joined slots have no control group below systemd: builds in them have no limit of processes"
                    .to_owned(),
            );
        }
        let settings = self.settings(&name, limits);
        let differing: Vec<&Setting> = settings.iter().filter(|setting| !setting.holds()).collect();
        if !differing.is_empty() {
            self.dirs(&name).iter().for_each(|dir| remove_below(dir));
        }
        if !differing.is_empty() && self.dirs(&name).iter().any(|dir| is_in_use(dir)) {
            return Err(format!(
                "control group {name} is in use with other limits: another worker seems to have these CPUs"
            ));
        }
        for setting in differing {
            if self.is_systemd {
                return Err(failed(&setting.path, io::Error::other("systemd would take it back")));
            }
            fs::write(&setting.path, &setting.value).map_err(|error| failed(&setting.path, error))?;
            if !setting.holds() {
                return Err(failed(&setting.path, io::Error::other("the kernel keeps another value")));
            }
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        limits.cgroup_parent = Some(if self.is_systemd { name } else { format!("/{name}") });
        Ok(())
    }

    /// Removes the groups that were used, as far as nothing runs in them and they are ours.
    pub fn remove(&self) {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        // A slice is systemd's to remove.
        for name in used.iter().filter(|_| !self.is_systemd) {
            // v1: the engine made a directory of this name under each controller.
            let controllers = fs::read_dir(&self.mount).into_iter().flatten().filter_map(Result::ok);
            for dir in controllers.map(|entry| entry.path()).chain([self.mount.clone()]) {
                // Podman leaves one of its own in it.
                remove_below(&dir.join(name));
                let _ = fs::remove_dir(dir.join(name));
            }
        }
    }

    /// The directories of a slot's group and the files in them that the worker writes: `prepare` makes them its.
    #[must_use]
    pub fn paths(&self, first_cpu: u32, limits: &Limits) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let name = self.name(first_cpu);
        let settings = self.settings(&name, limits);
        (self.dirs(&name), settings.into_iter().map(|setting| setting.path).collect())
    }

    /// The files by which all that runs in a slot is ended at once; v1 has none.
    #[must_use]
    pub fn kill_files(&self, first_cpu: u32) -> Vec<PathBuf> {
        let dirs = if self.is_v2 { self.dirs(&self.name(first_cpu)) } else { Vec::new() };
        dirs.into_iter().map(|dir| dir.join("cgroup.kill")).collect()
    }

    /// A group below a slot's: Podman runs a build in the very group that it is given, shows it that group's files to
    /// write, and removes it at the end. The limits are those of the slot above, out of its sight. It is a path even where
    /// systemd manages the groups of Podman's containers: those of builds that its API is asked for nobody manages.
    pub(super) fn of_podmans_builds(&self, cgroup_parent: &str) -> String {
        let above = self.mount.strip_prefix(MOUNT).unwrap_or(Path::new(""));
        match cgroup_parent.ends_with(".slice") {
            true => {
                Path::new("/").join(above).join(SLICE).join(cgroup_parent).join(BUILDS).display().to_string()
            }
            false => format!("{cgroup_parent}/{BUILDS}"),
        }
    }

    /// What runs below the groups of all slots that have, or are named after, one of these CPUs: slots may have been made
    /// of other cores when it began.
    pub(super) fn unlisted(&self, cpus: &[u32]) -> Unlisted {
        let set: CpuSet = cpus.iter().copied().collect();
        let mut names: BTreeSet<String> = cpus.iter().map(|cpu| self.name(*cpu)).collect();
        let beside = self.dirs("").into_iter().next().and_then(|dir| fs::read_dir(dir).ok());
        for entry in beside.into_iter().flatten().flatten() {
            let cpus = fs::read_to_string(entry.path().join("cpuset.cpus")).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && cpus.trim().parse::<CpuSet>().is_ok_and(|cpus| cpus.touches(&set))
            {
                names.insert(name);
            }
        }
        Unlisted::new(names.iter().flat_map(|name| self.builds_below(name)).collect())
    }

    /// What runs below a group, by what its engine calls it.
    pub(super) fn unlisted_below(&self, cgroup_parent: &str) -> Unlisted {
        Unlisted::new(self.builds_below(cgroup_parent.trim_start_matches('/')))
    }

    fn builds_below(&self, name: &str) -> Vec<Group> {
        self.dirs(name).into_iter().map(|slot| Group { builds: slot.join(BUILDS), slot }).collect()
    }

    /// The memory that a slot's group is given.
    #[must_use]
    pub fn memory_bytes(limits: &Limits) -> u64 {
        limits.memory_bytes.saturating_add(MEMORY_SLACK_BYTES)
    }

    /// What the group of a slot is called.
    #[must_use]
    pub fn name(&self, first_cpu: u32) -> String {
        let suffix = if self.is_systemd { ".slice" } else { "" };
        format!("{PREFIX}{first_cpu}{suffix}")
    }

    /// Whether anything runs in the group of a slot.
    #[must_use]
    pub fn is_in_use(&self, first_cpu: u32) -> bool {
        self.dirs(&self.name(first_cpu)).iter().any(|dir| is_in_use(dir))
    }

    fn dirs(&self, name: &str) -> Vec<PathBuf> {
        match (self.is_v2, self.is_systemd) {
            (true, false) => vec![self.mount.join(name)],
            (true, true) => vec![self.mount.join(SLICE).join(name)],
            (false, _) => {
                let above = if self.is_systemd { SLICE } else { "" };
                // systemd has no cpuset of v1.
                let controllers: &[&str] =
                    if self.is_systemd { &["memory", "pids"] } else { &["cpuset", "memory", "pids"] };
                controllers.iter().map(|name_| self.mount.join(name_).join(above).join(name)).collect()
            }
        }
    }

    fn settings(&self, name: &str, limits: &Limits) -> Vec<Setting> {
        let memory = Self::memory_bytes(limits).to_string();
        let mut settings = Vec::new();
        for dir in self.dirs(name) {
            let mut put = |controller: &str, file: &str, value: &str, means: Means| {
                if self.is_v2 || dir.starts_with(self.mount.join(controller)) {
                    settings.push(Setting { path: dir.join(file), value: value.to_owned(), means });
                }
            };
            put("cpuset", "cpuset.cpus", &limits.cpuset_cpus, Means::Set);
            // v1 lets nothing run in a group without nodes.
            let all = fs::read_to_string(self.mount.join("cpuset/cpuset.mems")).unwrap_or_default();
            match &limits.cpuset_mems {
                Some(mems) => put("cpuset", "cpuset.mems", mems, Means::Set),
                None if !self.is_v2 => put("cpuset", "cpuset.mems", all.trim(), Means::Set),
                None => {}
            }
            put(
                "memory",
                if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" },
                &memory,
                Means::Bytes,
            );
            put("pids", "pids.max", &limits.pids_max.to_string(), Means::Number);
        }
        settings
    }

    /// Whether limits are of several slots, of which the group is that of the first.
    fn is_joined(&self, name: &str, limits: &Limits) -> bool {
        let held =
            self.dirs(name).into_iter().find_map(|dir| fs::read_to_string(dir.join("cpuset.cpus")).ok());
        let held = held.and_then(|held| held.trim().parse::<CpuSet>().ok());
        let wanted = limits.cpuset_cpus.parse::<CpuSet>().ok();
        held.zip(wanted)
            .is_some_and(|(held, wanted)| held.len() < wanted.len() && held.minus(&wanted).is_empty())
    }

    /// v2: a group has the files of those controllers that the one above hands down. Who may not write this is told by
    /// the files that are missing.
    fn hand_down(&self, dir: &Path) {
        for controller in ["+cpuset", "+memory", "+pids"] {
            let _ = fs::write(dir.join("cgroup.subtree_control"), controller);
        }
    }
}

impl Setting {
    fn holds(&self) -> bool {
        let Ok(text) = fs::read_to_string(&self.path) else { return false };
        let (held, wanted) = (text.trim(), self.value.as_str());
        let number = |text: &str| text.parse::<u64>().ok();
        match self.means {
            Means::Set => held.parse::<CpuSet>().is_ok_and(|held| wanted.parse() == Ok(held)),
            Means::Bytes => number(held).is_some_and(|held| {
                number(wanted).is_some_and(|wanted| held <= wanted && wanted - held < PAGE_BYTES_MAX)
            }),
            Means::Number => number(held) == number(wanted),
        }
    }
}

/// What an engine's groups are below: those of all, or of the user whose systemd makes them.
pub(super) fn mount(rootless_uid: Option<u32>) -> PathBuf {
    let below = rootless_uid.map(|uid| format!("user.slice/user-{uid}.slice/user@{uid}.service"));
    Path::new(MOUNT).join(below.unwrap_or_default())
}

/// Whether groups can be made on this host, or a root-only step has: the engine manages them as files, and so may we;
/// or systemd does, and the slices are there.
pub(super) fn is_possible(cgroup_driver: &str, cgroup_version: u8, rootless_uid: Option<u32>) -> bool {
    let mount = mount(rootless_uid);
    let pids = if cgroup_version == 1 { mount.join("pids") } else { mount };
    let prepared = |dir: &Path| {
        let names = fs::read_dir(dir).into_iter().flatten().flatten();
        names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
    };
    match cgroup_driver {
        "cgroupfs" => nix::unistd::access(&pids, nix::unistd::AccessFlags::W_OK).is_ok() || prepared(&pids),
        "systemd" => prepared(&pids.join(SLICE)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            cpuset_cpus: "4-5".to_owned(),
            cpuset_mems: Some("1".to_owned()),
            memory_bytes: 1 << 30,
            pids_max: 100,
            nofile_max: 10,
            shm_bytes: 10,
            disk_bytes: 10,
            cgroup_parent: None,
        }
    }

    /// A mount without a kernel behind it: files hold what is written.
    fn mount(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    #[test]
    fn sets_every_limit_of_a_group_and_names_it() {
        let check = |is_v2: bool, is_systemd: bool, dirs: &[&str], parent: &str, files: &[(&str, &str)]| {
            let mount = mount(dirs);
            let groups = SlotGroups::below(mount.path(), is_v2, is_systemd);
            let mut limits = limits();
            assert_eq!(groups.confine(4, &mut limits), Ok(()));
            assert_eq!(limits.cgroup_parent.as_deref(), Some(parent));
            for (file, value) in files {
                assert_eq!(fs::read_to_string(mount.path().join(file)).unwrap(), *value, "{file}");
            }
        };
        let memory = ((1u64 << 30) + MEMORY_SLACK_BYTES).to_string();
        check(
            false,
            false,
            &["cpuset/x", "memory/x", "pids/x"],
            "/bottega-slot4",
            &[
                ("cpuset/bottega-slot4/cpuset.cpus", "4-5"),
                ("cpuset/bottega-slot4/cpuset.mems", "1"),
                ("memory/bottega-slot4/memory.limit_in_bytes", &memory),
                ("pids/bottega-slot4/pids.max", "100"),
            ],
        );
        check(
            true,
            false,
            &["cgroup.subtree_control"],
            "/bottega-slot4",
            &[
                ("cgroup.subtree_control", "+pids"),
                ("bottega-slot4/cpuset.cpus", "4-5"),
                ("bottega-slot4/memory.max", &memory),
                ("bottega-slot4/pids.max", "100"),
            ],
        );
    }

    /// Seen with systemd 257: a directory made below `bottega.slice` loses its limits to the first scope in it.
    #[test]
    fn a_slice_is_taken_as_systemd_has_it() {
        let mount = mount(&["bottega.slice/x"]);
        let groups = SlotGroups::below(mount.path(), true, true);
        let slice = mount.path().join("bottega.slice/bottega-slot4.slice");
        let mut limits = limits();
        let why = groups.confine(4, &mut limits).unwrap_err();
        assert!(why.contains("bottega-worker prepare") && !slice.exists(), "{why}");

        fs::create_dir(&slice).unwrap();
        let memory = SlotGroups::memory_bytes(&limits).to_string();
        let files =
            [("cpuset.cpus", "4-5"), ("cpuset.mems", "1"), ("memory.max", &memory), ("pids.max", "max")];
        for (file, value) in files {
            fs::write(slice.join(file), value).unwrap();
        }
        let why = groups.confine(4, &mut limits).unwrap_err();
        assert!(why.contains("pids.max"), "{why}");
        assert_eq!(fs::read_to_string(slice.join("pids.max")).unwrap(), "max");
        assert_eq!(limits.cgroup_parent, None);

        let mut joined = Limits { cpuset_cpus: "4-7".to_owned(), ..limits.clone() };
        let why = groups.confine(4, &mut joined).unwrap_err();
        assert!(why.starts_with("joined slots") && !why.contains("prepare"), "{why}");

        fs::write(slice.join("pids.max"), "100").unwrap();
        assert_eq!(groups.confine(4, &mut limits), Ok(()));
        assert_eq!(limits.cgroup_parent.as_deref(), Some("bottega-slot4.slice"));
    }

    #[test]
    fn a_group_in_use_keeps_its_limits() {
        let mount = mount(&["x"]);
        let groups = SlotGroups::below(mount.path(), true, false);
        groups.confine(4, &mut limits()).unwrap();
        let inner = mount.path().join("bottega-slot4/container");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("cgroup.procs"), "7\n").unwrap();
        assert_eq!(groups.confine(4, &mut limits()), Ok(()), "the same");
        let mut other = Limits { pids_max: 5, ..limits() };
        let why = groups.confine(4, &mut other).unwrap_err();
        assert!(why.contains("bottega-slot4 is in use"), "{why}");
        assert_eq!(other.cgroup_parent, None);
    }

    #[test]
    fn what_engines_leave_in_a_group_goes_with_it() {
        let mount = mount(&["cpuset/x", "memory/x", "pids/x"]);
        let groups = SlotGroups::below(mount.path(), false, false);
        groups.confine(4, &mut limits()).unwrap();
        // No controller of ours: the engine made a group there too.
        let theirs = mount.path().join("blkio/bottega-slot4");
        fs::create_dir_all(theirs.join("conmon")).unwrap();
        groups.remove();
        assert!(!theirs.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn finds_what_was_begun_when_slots_had_other_cores() {
        let mount = mount(&["x"]);
        let groups = SlotGroups::below(mount.path(), true, false);
        let builds = mount.path().join("bottega-slot0/build");
        fs::create_dir_all(&builds).unwrap();
        fs::write(mount.path().join("bottega-slot0/cpuset.cpus"), "0-1\n").unwrap();
        let mut build = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(builds.join("cgroup.procs"), format!("{}\n", build.id())).unwrap();
        groups.unlisted(&[2, 3]).end().await.unwrap();
        assert!(build.try_wait().unwrap().is_none(), "others' cores");
        groups.unlisted(&[1]).end().await.unwrap_err();
        assert!(!build.wait().unwrap().success());
    }

    #[test]
    fn the_group_of_podmans_builds_is_below_the_slots() {
        let check = |below: &str, is_systemd: bool, parent: &str, expected: &str| {
            let groups = SlotGroups::below(&Path::new(MOUNT).join(below), true, is_systemd);
            assert_eq!(groups.of_podmans_builds(parent), expected);
        };
        check("", false, "/bottega-slot4", "/bottega-slot4/build");
        check("", true, "bottega-slot4.slice", "/bottega.slice/bottega-slot4.slice/build");
        let user = "user.slice/user-7.slice/user@7.service";
        let expected = format!("/{user}/bottega.slice/bottega-slot4.slice/build");
        check(user, true, "bottega-slot4.slice", &expected);
    }

    #[test]
    fn where_none_can_be_made_it_says_what_to_do() {
        let groups = SlotGroups::below(Path::new("/proc/self"), true, false);
        let why = groups.confine(0, &mut limits()).unwrap_err();
        assert!(why.contains("bottega-worker prepare"), "{why}");
    }
}

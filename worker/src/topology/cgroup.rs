use super::CpuSet;
use super::tree::Tree;

/// Where control groups are mounted, unless the mount table says otherwise.
pub(crate) const MOUNT: &str = "/sys/fs/cgroup";
/// A group lies no deeper.
const DEPTH_MAX: usize = 64;

/// What this process's control groups leave it, their ancestors' limits too; `None` where none is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) cpus: Option<CpuSet>,
    pub(super) mems: Option<CpuSet>,
    pub(super) memory_bytes: Option<u64>,
}

impl Bounds {
    pub(super) fn read(tree: &Tree) -> Self {
        let mut bounds = Self::default();
        for dir in group_dirs(tree, "cpuset") {
            let set = |what: &str| {
                let names = [
                    format!("cpuset.{what}.effective"),
                    format!("cpuset.effective_{what}"),
                    format!("cpuset.{what}"),
                ];
                let set = names.iter().find_map(|name| tree.set(&format!("{dir}/{name}")));
                // v2 leaves empty what it does not restrict.
                set.filter(|set| !set.is_empty())
            };
            narrow(&mut bounds.cpus, set("cpus"));
            narrow(&mut bounds.mems, set("mems"));
        }
        for dir in group_dirs(tree, "memory") {
            let limit = |name: &str| tree.number::<u64>(&format!("{dir}/{name}"));
            // `max` of v2 is no number; v1's "unlimited" is larger than any machine.
            let limit = limit("memory.max").or_else(|| limit("memory.limit_in_bytes"));
            bounds.memory_bytes = bounds.memory_bytes.into_iter().chain(limit).min();
        }
        bounds
    }
}

fn narrow(bound: &mut Option<CpuSet>, set: Option<CpuSet>) {
    *bound = match (bound.take(), set) {
        (Some(bound), Some(set)) => Some(bound.and(&set)),
        (bound, set) => bound.or(set),
    };
}

/// The directories of this process's group and of all above it, as far as they can be seen, the group's own first.
pub(super) fn group_dirs(tree: &Tree, controller: &str) -> Vec<String> {
    let Some((mount, path)) = group(tree, controller) else { return Vec::new() };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).take(DEPTH_MAX).collect();
    let below = |depth: usize| parts[..depth].iter().fold(mount.clone(), |dir, part| format!("{dir}/{part}"));
    (0..=parts.len()).rev().map(below).collect()
}

/// Where the hierarchy of a controller is mounted, and the path of this process's group in it.
fn group(tree: &Tree, controller: &str) -> Option<(String, String)> {
    let text = tree.read("/proc/self/cgroup")?;
    // ID:CONTROLLERS:PATH; of v2, ID 0 and no controllers.
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(3, ':').collect()).collect();
    let named = |row: &&Vec<&str>| row.len() == 3 && row[1].split(',').any(|name| name == controller);
    let unified = |row: &&Vec<&str>| row.len() == 3 && row[0] == "0" && row[1].is_empty();
    let is_v2 = !rows.iter().any(|row| named(&row));
    let row = if is_v2 { rows.iter().find(unified) } else { rows.iter().find(named) };
    let path = row?[2];
    let (mount, root) = mount(tree, controller, is_v2).unwrap_or_else(|| {
        (if is_v2 { MOUNT.to_owned() } else { format!("{MOUNT}/{controller}") }, String::new())
    });
    // What is mounted may be a part of the hierarchy: a container sees its own group there.
    let below =
        path.strip_prefix(root.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    // Above what can be seen: a process that was moved out of its container's group.
    let below = below.filter(|rest| !rest.split('/').any(|part| part == ".."));
    Some((mount, below.unwrap_or_default().to_owned()))
}

/// The mount point of a hierarchy, and which part of it is mounted there.
fn mount(tree: &Tree, controller: &str, is_v2: bool) -> Option<(String, String)> {
    let text = tree.read("/proc/self/mountinfo")?;
    // proc_pid_mountinfo(5): … root, mount point, options, optional fields, `-`, type, source, its options.
    let found = text.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let holds = match *right.first()? {
            "cgroup2" => is_v2,
            "cgroup" => !is_v2 && right.last()?.split(',').any(|option| option == controller),
            _ => false,
        };
        holds.then_some(((*left.get(4)?).to_owned(), (*left.get(3)?).to_owned()))
    });
    found.map(|(mount, root)| (mount.trim_end_matches('/').to_owned(), root))
}

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::cgroup::group_dirs;
use super::tree::Tree;

/// A recording with more rows is no recording.
const ROWS_MAX: usize = 1 << 20;

/// What [`super::Topology::read`] would read under `root`, as text: a row `path<TAB>value` a file, line breaks in
/// values written as `\n`, lines that begin with `#` for people. Names of control groups are in it, nothing else that
/// tells of who uses the machine.
#[must_use]
pub fn record(root: &Path) -> String {
    let tree = Tree::new(root);
    let mut text = String::new();
    let mut put = |path: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{path}\t{}", value.replace('\n', "\\n"));
        }
    };
    let (cpu_dir, node_dir) = ("/sys/devices/system/cpu", "/sys/devices/system/node");
    for name in ["online", "offline", "present", "possible"] {
        let path = format!("{cpu_dir}/{name}");
        put(&path, tree.read(&path));
    }
    for cpu in tree.numbered(cpu_dir, "cpu") {
        for name in [
            "topology/physical_package_id",
            "topology/thread_siblings_list",
            "topology/core_cpus_list",
            "cpu_capacity",
        ] {
            let path = format!("{cpu_dir}/cpu{cpu}/{name}");
            put(&path, tree.read(&path));
        }
    }
    for path in ["/sys/devices/cpu_core/cpus", "/sys/devices/cpu_atom/cpus"] {
        put(path, tree.read(path));
    }
    let total = |path: &str| tree.row(path, "MemTotal:").map(|row| format!("MemTotal: {row}"));
    for node in tree.numbered(node_dir, "node") {
        let path = format!("{node_dir}/node{node}");
        for name in ["cpulist", "distance"] {
            put(&format!("{path}/{name}"), tree.read(&format!("{path}/{name}")));
        }
        put(&format!("{path}/meminfo"), total(&format!("{path}/meminfo")));
    }
    put("/proc/meminfo", total("/proc/meminfo"));
    let lines = |path: &str, wanted: &[&str]| {
        let text = tree.read(path)?;
        let lines = text.lines().filter(|line| wanted.iter().any(|word| line.contains(word)));
        Some(lines.collect::<Vec<_>>().join("\n"))
    };
    put("/proc/self/status", lines("/proc/self/status", &["Cpus_allowed_list:", "Mems_allowed_list:"]));
    put("/proc/self/cgroup", tree.read("/proc/self/cgroup"));
    put("/proc/self/mountinfo", lines("/proc/self/mountinfo", &[" - cgroup ", " - cgroup2 "]));
    let sets = ["cpus", "mems"].map(|what| {
        [format!("cpuset.{what}"), format!("cpuset.{what}.effective"), format!("cpuset.effective_{what}")]
    });
    let limits = ["memory.max", "memory.limit_in_bytes"].map(str::to_owned);
    for (controller, names) in [("cpuset", sets.concat()), ("memory", limits.to_vec())] {
        for path in group_dirs(&tree, controller)
            .iter()
            .flat_map(|dir| names.iter().map(move |name| format!("{dir}/{name}")))
        {
            put(&path, tree.read(&path));
        }
    }
    text
}

/// Makes of a recording the files that it was made of, under `root`.
///
/// # Errors
/// A row is not one, or a file cannot be written.
pub fn unpack(recording: &str, root: &Path) -> io::Result<()> {
    let rows = recording.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    for row in rows.take(ROWS_MAX) {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, format!("not a row of a recording: {row:?}"));
        let (path, value) = row.split_once('\t').ok_or_else(damaged)?;
        let known = ["/sys/", "/proc/"].iter().any(|dir| path.starts_with(dir));
        if !known || path.split('/').any(|part| part == "..") {
            return Err(damaged());
        }
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(path, value.replace("\\n", "\n") + "\n")?;
    }
    Ok(())
}

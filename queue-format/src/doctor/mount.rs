use std::path::{Path, PathBuf};

use serde::Serialize;

use super::examine::Symptom;
use crate::Severity;

/// What is mounted where a spool lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Where.
    pub mount_point: PathBuf,
    /// Its type, as the kernel calls it: `ext4`, `nfs4` …
    pub file_system: String,
    /// The device, or `server:/export`.
    pub source: String,
    /// All its options.
    pub options: Vec<String>,
}

/// How old an NFS client's listings may be with its default options.
const ATTRIBUTE_SECONDS_USUAL: u64 = 60;

impl Mount {
    /// The mount that `path` lies on, by the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    #[must_use]
    pub fn find(mountinfo: &str, path: &Path) -> Option<Self> {
        let mounts = mountinfo.lines().filter_map(Self::parse);
        // The longest, and of several at one point the last: it covers the others.
        mounts
            .filter(|mount| path.starts_with(&mount.mount_point))
            .max_by_key(|mount| mount.mount_point.components().count())
    }

    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        let (mount_point, own) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (file_system, source) = (after.next()?, after.next()?);
        let mut options: Vec<String> = Vec::new();
        for option in own.split(',').chain(after.next().unwrap_or_default().split(',')) {
            if !option.is_empty() && !options.iter().any(|known| known == option) {
                options.push(option.to_owned());
            }
        }
        Some(Self {
            mount_point: PathBuf::from(unescape(mount_point)),
            file_system: file_system.to_owned(),
            source: unescape(source),
            options,
        })
    }

    /// True for NFS of any version.
    #[must_use]
    pub fn is_nfs(&self) -> bool {
        matches!(self.file_system.as_str(), "nfs" | "nfs4")
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|known| known == option)
    }

    fn value(&self, option: &str) -> Option<&str> {
        self.options.iter().find_map(|known| known.strip_prefix(option)?.strip_prefix('='))
    }

    /// What is wrong with it for a spool.
    pub(super) fn symptoms(&self) -> Vec<Symptom> {
        let mut found = Vec::new();
        let mut say = |severity, what: String, remedy: &str| found.push(Symptom::new(severity, what, remedy));
        if self.has("ro") {
            say(Severity::Error, "it is mounted read-only".to_owned(), "mount it again with rw");
        }
        if self.is_nfs() {
            self.nfs(&mut say);
            return found;
        }
        match self.file_system.as_str() {
            "ext4" | "xfs" | "btrfs" | "zfs" | "f2fs" | "bcachefs" => {}
            "tmpfs" | "ramfs" => say(
                Severity::Warning,
                format!("{} keeps nothing when the machine goes down", self.file_system),
                "fine for a trial; else make the spool on a disk",
            ),
            "overlay" | "aufs" => say(
                Severity::Warning,
                "it is a container's own layer, and goes with the container".to_owned(),
                "mount a volume for the spool",
            ),
            "cifs" | "smb3" | "smbfs" => say(
                Severity::Error,
                format!("{} does not rename as POSIX asks", self.file_system),
                "export the directory by NFS, or use a local disk",
            ),
            other => say(
                Severity::Note,
                format!("no promise was ever tested on {other}"),
                "prefer ext4, xfs, btrfs or zfs, or NFS of one of these",
            ),
        }
        for option in ["nobarrier", "barrier=0", "data=writeback"] {
            if self.has(option) {
                let what = format!("{option}: what was synced can be gone after a loss of power");
                say(Severity::Warning, what, "mount it without that option");
            }
        }
        found
    }

    fn nfs(&self, say: &mut dyn FnMut(Severity, String, &str)) {
        for option in ["soft", "softerr"] {
            if self.has(option) {
                say(
                    Severity::Error,
                    format!(
                        "SOFT MOUNT ({option}): after a time-out the client reports an error for what the server may \
                         still do; tasks are then worked on twice, and results can be lost"
                    ),
                    "mount it with hard (the default): remove that option from fstab, umount, mount",
                );
            }
        }
        if self.value("vers").or(self.value("nfsvers")).is_some_and(|version| version.starts_with('2')) {
            say(
                Severity::Error,
                "NFS version 2 has no safe writes".to_owned(),
                "mount it with vers=4.2, 4.1 or 3",
            );
        }
        if self.value("proto").is_some_and(|proto| proto.starts_with("udp")) {
            let what =
                "proto=udp: replies get lost, and operations are repeated, far more often than over TCP";
            say(Severity::Warning, what.to_owned(), "mount it with proto=tcp");
        }
        let oldest = ["actimeo", "acregmax", "acdirmax"]
            .into_iter()
            .filter_map(|option| self.value(option)?.parse().ok());
        if let Some(seconds) = oldest.max().filter(|seconds: &u64| *seconds > ATTRIBUTE_SECONDS_USUAL) {
            let what = format!("what this client lists may be {seconds} s old (actimeo, acregmax, acdirmax)");
            say(Severity::Warning, what, "remove these options: the default is at most 60 s");
        }
        if self.has("noac") || self.value("actimeo") == Some("0") {
            let what = "no attribute is remembered (noac): every look costs a round trip";
            say(
                Severity::Note,
                what.to_owned(),
                "the protocol does not need it: remove the option for speed",
            );
        }
        if self.has("nolock") || self.value("local_lock") == Some("all") {
            let what = "locks stay on this node (nolock): fine, no daemon locks anything over NFS";
            say(Severity::Note, what.to_owned(), "nothing to do");
        }
    }
}

/// Blanks, tabs, line ends and backslashes stand in mountinfo as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=continue
22 21 0:5 / /proc rw - proc proc rw
30 21 0:50 / /srv/spool\\040one rw,relatime shared:9 - nfs4 nas:/export/a rw,vers=4.2,hard,proto=tcp,acdirmax=60
31 21 0:51 / /srv/soft rw - nfs nas:/export/b rw,vers=3,soft,proto=udp,actimeo=600,nolock
32 21 0:52 / /srv/soft/over ro - tmpfs none rw
broken line
";

    #[test]
    fn finds_the_mount_that_a_path_lies_on() {
        let check = |path: &str, expected: &str| {
            let mount = Mount::find(MOUNTINFO, Path::new(path)).expect(path);
            assert_eq!(mount.source, expected, "{path}");
        };
        check("/srv/spool one/pending", "nas:/export/a");
        check("/srv/spool", "/dev/vda");
        check("/srv/softer", "/dev/vda");
        check("/srv/soft", "nas:/export/b");
        check("/srv/soft/over/x", "none");
        assert_eq!(Mount::find("", Path::new("/")), None);
    }

    #[test]
    fn warns_of_what_breaks_the_promise() {
        let check = |path: &str, expected: &[(Severity, &str)]| {
            let found = Mount::find(MOUNTINFO, Path::new(path)).expect(path).symptoms();
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (symptom, (severity, part)) in found.iter().zip(expected) {
                assert!(symptom.severity == *severity && symptom.what.contains(part), "{symptom:?}");
            }
        };
        check("/", &[]);
        check("/srv/spool one", &[]);
        check(
            "/srv/soft",
            &[
                (Severity::Error, "SOFT MOUNT"),
                (Severity::Warning, "udp"),
                (Severity::Warning, "600 s"),
                (Severity::Note, "nolock"),
            ],
        );
        check("/srv/soft/over", &[(Severity::Error, "read-only"), (Severity::Warning, "tmpfs")]);
        check("/proc", &[(Severity::Note, "proc")]);
    }
}

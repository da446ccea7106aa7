//! Which process made an object, and whether that process is still there.

use std::fs;

/// A tag has at most 128 characters.
const MAX_HOST_NAME: usize = 48;

/// A process, as `host_boot_pid_start`, fit for a tag and a container's name: a pid alone is used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    text: String,
}

impl Owner {
    /// This process.
    pub(super) fn current() -> Self {
        Self { text: Self::describe(std::process::id()) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the named process is certainly gone. One of another host never is: its engine may be shared.
    pub(super) fn is_gone(owner: &str) -> bool {
        let parts: Vec<&str> = owner.split('_').collect();
        let &[host, _, pid, _] = parts.as_slice() else { return false };
        let Ok(pid) = pid.parse() else { return false };
        host == host_name() && Self::describe(pid) != owner
    }

    fn describe(pid: u32) -> String {
        let boot = read("/proc/sys/kernel/random/boot_id");
        let stat = read(&format!("/proc/{pid}/stat"));
        // The fields after the name in parentheses, which may hold spaces; the 20th of them is the start time.
        let start =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).unwrap_or("gone");
        format!("{}_{boot}_{pid}_{start}", host_name())
    }
}

/// The host's name in the letters that tags allow.
fn host_name() -> String {
    let name = read("/proc/sys/kernel/hostname");
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    name.chars().take(MAX_HOST_NAME).map(letter).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_is_gone() {
        let check = |owner: &str, expected: bool| assert_eq!(Owner::is_gone(owner), expected, "{owner}");
        let current = Owner::current();
        let parts: Vec<&str> = current.as_str().split('_').collect();
        let [host, boot, pid, start] = parts[..] else { panic!("{current:?}") };
        assert!(start.parse::<u64>().is_ok(), "{current:?}");
        check(current.as_str(), false);
        check(&format!("{host}_{boot}_{pid}_1{start}"), true);
        check(&format!("{host}_another-boot_{pid}_{start}"), true);
        check(&format!("another-{host}_{boot}_{pid}_1{start}"), false);
        check("nonsense", false);
        check(&format!("{host}_{boot}_pid_{start}"), false);
    }
}

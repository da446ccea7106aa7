//! What people read.

use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use queue_format::LitterKind;

use crate::inventory::Container;
use crate::policy::{Candidate, Reason, Target};
use crate::protect::Kept;

/// What an image without a name is called.
pub(crate) const NAMELESS: &str = "<none>";

/// Characters of an id that tell it apart.
const SHORT_ID_CHARS: usize = 12;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnerDead => "its worker is dead",
            Self::ClaimGone => "its claim is gone",
            Self::Unused => "nobody has used it for long (janitor.accepted_keep_days)",
            Self::DiskFull => "the disk is full (janitor.disk_high_percent, janitor.disk_free_gib)",
            Self::TooMany => "copies of repositories take too much (janitor.repositories_bytes_max)",
            Self::Removed => "it was removed, and only its last name is left",
            Self::Void => "its attempt never ended, and is over",
            Self::Old => "its worker is long gone (janitor.logs_keep_days, janitor.logs_bytes_max)",
        })
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "it is not ours",
            Self::LiveClaim => "its claim stands",
            Self::BaseImage => "it is a base image",
            Self::Accepted => "its task is accepted",
            Self::OnAccepted => "it was built on the image of an accepted task",
            Self::Needed => "something that stays needs it",
        })
    }
}

/// What kind of thing a target is.
pub(crate) fn kind(target: &Target) -> &'static str {
    match target {
        Target::Lease(_) => "lease",
        Target::Container(_) => "container",
        Target::Image(_) => "image",
        Target::WorkDir(_) => "work-directory",
        Target::Entry(_) => "ledger-entry",
        Target::Lock(_) => "lock",
        Target::Litter(_, LitterKind::Leftover) => "leftover",
        Target::Litter(_, LitterKind::VoidResult(..)) => "void-result",
        Target::Litter(_, LitterKind::OldLog(_)) => "old-log",
        Target::Mirror(_) => "repository",
    }
}

/// A container, as people find it.
pub(crate) fn container(found: &Container) -> String {
    format!("{} ({})", found.names.first().map_or("", String::as_str), short_id(&found.id))
}

/// As much of an id as people say.
pub(crate) fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(SHORT_ID_CHARS).collect()
}

/// A path that others chose, in one line whatever is in it.
pub(crate) fn plain(path: &Path) -> String {
    let escaped = |c: char| {
        let is_plain = !c.is_control();
        is_plain.then_some(c).into_iter().chain(c.escape_default().filter(move |_| !is_plain))
    };
    path.display().to_string().chars().flat_map(escaped).collect()
}

/// Its full id.
pub(crate) fn id(target: &Target) -> String {
    match target {
        Target::Lease(owner) | Target::Lock(owner) => owner.to_string(),
        Target::Container(id) | Target::Image(id) => id.clone(),
        Target::WorkDir(path) | Target::Litter(path, _) | Target::Mirror(path) => path.display().to_string(),
        Target::Entry(object) => object.to_string(),
    }
}

/// One line: what is done to what, why, how old it is, what that frees.
pub(crate) fn line(candidate: &Candidate, bytes: Option<u64>, now: Timestamp) -> String {
    let verb = match candidate.target {
        Target::Lease(_) => "take back",
        Target::Entry(_) | Target::Lock(_) => "forget",
        _ => "remove",
    };
    let mut line = format!("{verb} {} {}", kind(&candidate.target), candidate.name);
    if let Target::Container(id) | Target::Image(id) = &candidate.target {
        line.push_str(&format!(" ({})", short_id(id)));
    }
    if let Some(entry) = &candidate.entry {
        line.push_str(&format!(" of {} {}", entry.task, entry.token));
    }
    line.push_str(&format!(": {}", candidate.reason));
    if let Some(created_at) = candidate.created_at {
        line.push_str(&format!(", {} old", age(now.as_second().saturating_sub(created_at.as_second()))));
    }
    if let Some(bytes) = bytes {
        line.push_str(&format!(", {}", size(bytes)));
    }
    line
}

/// A time as people say it, in the largest unit that gives at least 2.
pub(crate) fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A number of bytes as people say it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_read_well() {
        let check = |seconds, expected: &str| assert_eq!(age(seconds), expected);
        check(-5, "0 s");
        check(119, "119 s");
        check(120, "2 min");
        check(7200, "2 h");
        check(172_800, "2 d");
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(999, "999 B");
        check(1500, "1.5 kB");
        check(524_000_000, "524.0 MB");
        check(u64::MAX, "18446744.1 TB");
    }
}

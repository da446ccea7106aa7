//! The Debian mirror that the host itself uses.

use std::path::{Path, PathBuf};

/// The largest sources file that is read.
const MAX_SOURCES_BYTES: u64 = 1024 * 1024;

/// Where Debian packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianMirror {
    /// The archive's base URL.
    pub archive: String,
    /// The base URL of the security updates.
    pub security: Option<String>,
}

impl DebianMirror {
    /// The lines of a sources list for a suite.
    pub(crate) fn sources(&self, suite: &str) -> Vec<String> {
        let mut lines = vec![
            format!("deb {} {suite} main", self.archive),
            format!("deb {} {suite}-updates main", self.archive),
        ];
        lines.extend(self.security.as_ref().map(|security| format!("deb {security} {suite}-security main")));
        lines
    }
}

/// The mirror of a Debian host; `None` on another distribution, whose mirror has no Debian.
pub(super) fn read(root: &Path) -> Option<DebianMirror> {
    let release = std::fs::read_to_string(root.join("etc/os-release")).ok()?;
    let value = |key: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|text| text.trim_matches('"'))
    };
    let codename = value("VERSION_CODENAME").filter(|_| value("ID") == Some("debian"))?;
    let entries: Vec<(String, String)> =
        source_files(root).iter().flat_map(|path| entries_of(path)).collect();
    let archive_of = |wanted: &str| {
        entries.iter().find(|(_, suite)| suite == wanted).map(|(url, _)| url.trim_end_matches('/').to_owned())
    };
    Some(DebianMirror {
        archive: archive_of(codename)?,
        security: archive_of(&format!("{codename}-security")),
    })
}

fn source_files(root: &Path) -> Vec<PathBuf> {
    let apt = root.join("etc/apt");
    let mut files: Vec<PathBuf> = std::fs::read_dir(apt.join("sources.list.d"))
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    files.insert(0, apt.join("sources.list"));
    files.retain(|path| path.metadata().is_ok_and(|metadata| metadata.len() <= MAX_SOURCES_BYTES));
    files
}

/// Pairs of base URL and suite, of entries that have the component main.
fn entries_of(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("list") => text.lines().filter_map(one_line_entry).collect(),
        Some("sources") => text.split("\n\n").flat_map(stanza_entries).collect(),
        _ => Vec::new(),
    }
}

fn one_line_entry(line: &str) -> Option<(String, String)> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
    let mut words = rest.split_whitespace();
    let (url, suite) = (words.next()?, words.next()?);
    words.any(|word| word == "main").then(|| (url.to_owned(), suite.to_owned()))
}

fn stanza_entries(stanza: &str) -> Vec<(String, String)> {
    let field = |name: &str| {
        stanza
            .lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>())
            .unwrap_or_default()
    };
    let disabled = field("Enabled").iter().any(|value| value == "no");
    if disabled
        || !field("Types").contains(&"deb".to_owned())
        || !field("Components").contains(&"main".to_owned())
    {
        return Vec::new();
    }
    let suites = field("Suites");
    field("URIs")
        .iter()
        .flat_map(|url| suites.iter().map(move |suite| (url.clone(), suite.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_formats_of_a_debian_host_only() {
        let check = |id: &str, name: &str, sources: &str, expected: Option<(&str, Option<&str>)>| {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("etc/apt/sources.list.d")).unwrap();
            let release = format!("ID={id}\nVERSION_CODENAME=\"bookworm\"\n");
            std::fs::write(root.path().join("etc/os-release"), release).unwrap();
            std::fs::write(root.path().join("etc/apt").join(name), sources).unwrap();
            let found = read(root.path());
            let found = found.as_ref().map(|mirror| (mirror.archive.as_str(), mirror.security.as_deref()));
            assert_eq!(found, expected, "{sources}");
        };
        let lines = "# deb http://no bookworm main\ndeb [signed-by=/k] http://m/debian/ bookworm main contrib\n\
                     deb http://m/security bookworm-security main\n";
        let stanzas = "Types: deb deb-src\n# a comment\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\
                       Components: main\n\nTypes: deb\nURIs: http://other\nSuites: nodistro\nComponents: main\n";
        check("debian", "sources.list", lines, Some(("http://m/debian", Some("http://m/security"))));
        check("debian", "sources.list.d/debian.sources", stanzas, Some(("http://m/debian", None)));
        check("ubuntu", "sources.list", lines, None);
        check("debian", "sources.list", "", None);
    }
}

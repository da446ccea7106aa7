//! Everything the images take from their host, gathered once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::providers::ProviderKind;
use crate::settings::apt::{self, DebianMirror};
use crate::settings::certificates;
use crate::settings::pip::{self, PackageIndex};

/// What the host provides; read once by [`HostSettings::read`], then every field may be changed.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Where packages come from.
    pub package_index: PackageIndex,
    /// Certificates in PEM that the images trust besides Debian's own.
    pub certificates: String,
    /// The Debian mirror; `None` leaves the choice to mmdebstrap.
    pub debian_mirror: Option<DebianMirror>,
    /// `http_proxy` and its like: given to the builds, never written into an image.
    pub proxies: BTreeMap<String, String>,
    /// Which provider is asked first (`BOTTEGA_PYTHON_PROVIDERS`, comma-separated).
    pub providers: Vec<ProviderKind>,
    /// Directories that are, or hold, interpreter trees (`BOTTEGA_PYTHON_PREFIXES`, colon-separated, then pyenv's).
    pub prefix_directories: Vec<PathBuf>,
    /// Directories of programs, as in `PATH`.
    pub path: Vec<PathBuf>,
    /// What was found but cannot be used, a line each, for a person to read.
    pub warnings: Vec<String>,
}

const PROXY_VARIABLES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
];

impl HostSettings {
    /// Reads the given environment, and the files of pip, apt and the certificates on this host.
    pub fn read(environment: &BTreeMap<String, String>) -> Self {
        Self::read_beneath(environment, Path::new("/"))
    }

    fn read_beneath(environment: &BTreeMap<String, String>, root: &Path) -> Self {
        let mut found = pip::read(environment, root);
        let paths = |name: &str| {
            let text = environment.get(name).map_or("", String::as_str);
            std::env::split_paths(text).filter(|path| path.is_absolute()).collect::<Vec<_>>()
        };
        let mut prefix_directories = paths("BOTTEGA_PYTHON_PREFIXES");
        let home = environment.get("HOME").map(|home| Path::new(home).join(".pyenv"));
        let pyenv = environment.get("PYENV_ROOT").map(PathBuf::from);
        prefix_directories.extend(pyenv.or(home).map(|pyenv| pyenv.join("versions")));
        let providers = provider_order(environment.get("BOTTEGA_PYTHON_PROVIDERS"), &mut found.warnings);
        let proxies = PROXY_VARIABLES.iter().filter_map(|name| environment.get_key_value(*name));
        Self {
            package_index: found.index,
            certificates: certificates::read(&found.certificate_bundles, root),
            debian_mirror: apt::read(root),
            proxies: proxies.map(|(name, value)| (name.clone(), value.clone())).collect(),
            providers,
            prefix_directories,
            path: paths("PATH"),
            warnings: found.warnings,
        }
    }

    /// The program of that name, if the host has it.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        self.path.iter().map(|directory| directory.join(name)).find(|path| {
            path.metadata()
                .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        })
    }
}

fn provider_order(text: Option<&String>, warnings: &mut Vec<String>) -> Vec<ProviderKind> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return ProviderKind::ALL.to_vec() };
    let mut order = Vec::new();
    for name in text.split(',').map(str::trim) {
        match name.parse() {
            Ok(kind) if !order.contains(&kind) => order.push(kind),
            Ok(_) => {}
            Err(_) => warnings.push(format!(
                "BOTTEGA_PYTHON_PROVIDERS names {name:?}, which is no provider; there are: debian, prefix, conda"
            )),
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)]) -> HostSettings {
        let root = tempfile::tempdir().unwrap();
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HostSettings::read_beneath(&environment, root.path())
    }

    #[test]
    fn orders_the_providers() {
        use ProviderKind::{Conda, Debian, Prefix};
        let check = |text: &str, expected: &[ProviderKind], warnings: usize| {
            let settings = read(&[("BOTTEGA_PYTHON_PROVIDERS", text)]);
            assert_eq!(settings.providers, expected, "{text}");
            assert_eq!(settings.warnings.len(), warnings, "{text}");
        };
        check("", &[Debian, Prefix, Conda], 0);
        check("conda, prefix,conda", &[Conda, Prefix], 0);
        check("prefix,brew", &[Prefix], 1);
    }

    #[test]
    fn looks_for_trees_where_told_then_at_pyenv() {
        let check = |environment: &[(&str, &str)], expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(read(environment).prefix_directories, expected);
        };
        check(&[("HOME", "/h")], &["/h/.pyenv/versions"]);
        check(&[("HOME", "/h"), ("PYENV_ROOT", "/p")], &["/p/versions"]);
        check(&[("BOTTEGA_PYTHON_PREFIXES", "/apps/python:relative:/opt/py")], &["/apps/python", "/opt/py"]);
    }
}

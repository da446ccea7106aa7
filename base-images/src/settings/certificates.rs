//! The certificates that the host trusts.

use std::path::{Path, PathBuf};

/// The largest bundle that is read; a system's own has about 0.2 MB.
const MAX_BUNDLE_BYTES: u64 = 8 * 1024 * 1024;

/// Where distributions keep the bundle of all trusted certificates.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The texts of the system's bundle and of those named by settings, one after the other; a missing one counts as empty.
pub(super) fn read(named: &[PathBuf], root: &Path) -> String {
    let mut paths: Vec<PathBuf> =
        SYSTEM_BUNDLES.iter().map(PathBuf::from).chain(named.iter().cloned()).collect();
    let mut texts: Vec<String> = Vec::new();
    paths.dedup();
    for path in paths {
        let path = root.join(path.strip_prefix("/").unwrap_or(&path));
        let small =
            path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_BUNDLE_BYTES);
        if let Some(text) = small.then(|| std::fs::read_to_string(&path).ok()).flatten()
            && !texts.contains(&text)
        {
            texts.push(text);
        }
    }
    texts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_bundle_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/ssl/certs")).unwrap();
        std::fs::write(root.path().join("etc/ssl/certs/ca-certificates.crt"), "system").unwrap();
        std::fs::write(root.path().join("own.pem"), "own").unwrap();
        std::fs::write(root.path().join("copy.pem"), "system").unwrap();
        let named = ["/own.pem", "/copy.pem", "/missing.pem"].map(PathBuf::from);
        assert_eq!(read(&named, root.path()), "system\nown");
    }
}

//! Where packages come from: pip's and uv's settings, read from the host and written into an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The largest configuration file that is read.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Indexes and what reaching them needs; empty means the tools' own defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageIndex {
    /// The index that replaces the default one.
    pub index_url: Option<String>,
    /// Indexes searched as well.
    pub extra_index_urls: Vec<String>,
    /// Pages of links; directories of the host are left out, as they do not exist in an image.
    pub find_links: Vec<String>,
    /// Hosts reached without verified TLS.
    pub trusted_hosts: Vec<String>,
    /// How long pip and uv wait for an answer.
    pub timeout_seconds: Option<u32>,
}

/// The index settings, the certificate bundles they name, and what had to be left out.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) index: PackageIndex,
    pub(super) certificate_bundles: Vec<PathBuf>,
    pub(super) warnings: Vec<String>,
}

/// Reads pip's configuration files beneath `root` (later ones win), then the environment.
pub(super) fn read(environment: &BTreeMap<String, String>, root: &Path) -> Found {
    let mut values = BTreeMap::new();
    for file in config_files(environment) {
        let path = root.join(file.strip_prefix("/").unwrap_or(&file));
        let small = path.metadata().is_ok_and(|metadata| metadata.len() <= MAX_CONFIG_BYTES);
        if let Some(text) = small.then(|| std::fs::read_to_string(&path).ok()).flatten() {
            values.extend(parse(&text));
        }
    }
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix("PIP_") {
            values.insert(key.to_lowercase().replace('_', "-"), value.clone());
        }
    }
    from_values(&values, environment)
}

impl PackageIndex {
    /// The text of an image's `/etc/pip.conf`.
    pub(crate) fn pip_conf(&self) -> String {
        let mut text = String::from(
            "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ndisable-pip-version-check = true\nroot-user-action = ignore\n",
        );
        let mut line = |key: &str, values: &[String]| {
            if !values.is_empty() {
                text.push_str(&format!("{key} = {}\n", values.join("\n    ")));
            }
        };
        line("index-url", self.index_url.as_slice());
        line("extra-index-url", &self.extra_index_urls);
        line("find-links", &self.find_links);
        line("trusted-host", &self.trusted_hosts);
        line(
            "timeout",
            &self.timeout_seconds.map(|seconds| seconds.to_string()).into_iter().collect::<Vec<_>>(),
        );
        text
    }

    /// The same for uv, as environment variables.
    pub(crate) fn uv_environment(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        let mut set = |name: &str, value: String| {
            if !value.is_empty() {
                variables.push((name.to_owned(), value));
            }
        };
        set("UV_DEFAULT_INDEX", self.index_url.clone().unwrap_or_default());
        set("UV_INDEX", self.extra_index_urls.join(" "));
        set("UV_FIND_LINKS", self.find_links.join(","));
        set("UV_INSECURE_HOST", self.trusted_hosts.join(" "));
        set("UV_HTTP_TIMEOUT", self.timeout_seconds.map(|seconds| seconds.to_string()).unwrap_or_default());
        variables
    }
}

fn config_files(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = variable("HOME");
    let user = variable("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let mut files = vec![PathBuf::from("/etc/xdg/pip/pip.conf"), PathBuf::from("/etc/pip.conf")];
    files.extend(home.map(|home| home.join(".pip/pip.conf")));
    files.extend(user.map(|user| user.join("pip/pip.conf")));
    files.extend(variable("PIP_CONFIG_FILE"));
    files
}

/// The keys of `[global]` and `[install]`, in pip's own spelling; a value's continuation lines are joined by spaces.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let (mut wanted, mut key) = (false, None::<String>);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            wanted = matches!(section.trim(), "global" | "install");
            key = None;
        } else if line.starts_with([' ', '\t']) && key.is_some() {
            if let Some(value) = key.as_ref().and_then(|key| values.get_mut(key)) {
                *value = format!("{value} {trimmed}").trim().to_owned();
            }
        } else if let Some((name, value)) = trimmed.split_once(['=', ':']).filter(|_| wanted) {
            let name = name.trim().to_lowercase().replace('_', "-");
            values.insert(name.clone(), value.trim().to_owned());
            key = Some(name);
        }
    }
    values
}

fn from_values(values: &BTreeMap<String, String>, environment: &BTreeMap<String, String>) -> Found {
    let mut warnings = Vec::new();
    let words = |sources: [Option<&String>; 3]| -> Vec<String> {
        let text = sources.into_iter().flatten().find(|text| !text.trim().is_empty());
        text.map(|text| {
            text.split([' ', ',', '\n', '\t']).filter(|word| !word.is_empty()).map(ToOwned::to_owned)
        })
        .map(Iterator::collect)
        .unwrap_or_default()
    };
    let (pip, uv) = (|key: &str| values.get(key), |name: &str| environment.get(name));
    let mut urls = |urls: Vec<String>| -> Vec<String> {
        urls.into_iter().filter(|url| is_free_of_credentials(url, &mut warnings)).collect()
    };
    let index_url = urls(words([pip("index-url"), uv("UV_DEFAULT_INDEX"), uv("UV_INDEX_URL")]));
    let extra_index_urls = urls(words([pip("extra-index-url"), uv("UV_INDEX"), uv("UV_EXTRA_INDEX_URL")]));
    let find_links = urls(words([pip("find-links"), uv("UV_FIND_LINKS"), None]));
    let trusted_hosts = words([pip("trusted-host"), uv("UV_INSECURE_HOST"), None]);
    let find_links = find_links.into_iter().filter(|link| is_link_page(link, &mut warnings)).collect();
    let seconds = words([pip("timeout"), pip("default-timeout"), uv("UV_HTTP_TIMEOUT")]);
    let bundles = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].into_iter().filter_map(uv);
    Found {
        index: PackageIndex {
            index_url: index_url.into_iter().next(),
            extra_index_urls,
            find_links,
            trusted_hosts,
            timeout_seconds: seconds.first().and_then(|seconds| seconds.parse().ok()),
        },
        certificate_bundles: pip("cert").into_iter().chain(bundles).map(PathBuf::from).collect(),
        warnings,
    }
}

/// Secrets never enter an image, so a URL that carries one is left out.
fn is_free_of_credentials(url: &str, warnings: &mut Vec<String>) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    let Some((_, host)) = authority.rsplit_once('@') else { return true };
    warnings.push(format!(
        "the package index on {host} is left out: its URL carries credentials, and none may enter an image; \
         give one that needs none"
    ));
    false
}

fn is_link_page(link: &str, warnings: &mut Vec<String>) -> bool {
    let directory = Path::new(link.strip_prefix("file://").unwrap_or(link));
    if link.contains("://") && !link.starts_with("file://") {
        return true;
    }
    if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        warnings.push(format!(
            "the find-links directory {} is left out: images do not see the host's directories; serve it over HTTP",
            directory.display()
        ));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, environment: &[(&str, &str)]) -> Found {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/pip.conf"), config).unwrap();
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&environment, root.path())
    }

    #[test]
    fn takes_the_index_from_files_and_environment() {
        let check = |config: &str, environment: &[(&str, &str)], index: Option<&str>, extra: &[&str]| {
            let found = found(config, environment).index;
            assert_eq!(found.index_url.as_deref(), index, "{config}");
            assert_eq!(found.extra_index_urls, extra, "{config}");
        };
        check("", &[], None, &[]);
        check("[global]\nindex-url = https://a/simple\n", &[], Some("https://a/simple"), &[]);
        check(
            "[global]\nindex_url: https://a/simple",
            &[("PIP_INDEX_URL", "https://b")],
            Some("https://b"),
            &[],
        );
        check("[list]\nindex-url = https://a/simple\n", &[], None, &[]);
        check("", &[("UV_DEFAULT_INDEX", "https://u")], Some("https://u"), &[]);
        check(
            "[global]\nextra-index-url =\n    https://a\n    # no\n    https://b\n",
            &[],
            None,
            &["https://a", "https://b"],
        );
        check("[install]\nextra-index-url = https://a https://b", &[], None, &["https://a", "https://b"]);
    }

    #[test]
    fn leaves_out_what_must_not_or_cannot_enter_an_image() {
        let check = |environment: &[(&str, &str)], expected: &PackageIndex, warnings: usize| {
            let found = found("", environment);
            assert_eq!(&found.index, expected);
            assert_eq!(found.warnings.len(), warnings, "{:?}", found.warnings);
            assert!(!found.warnings.iter().any(|warning| warning.contains("secret")));
        };
        let links =
            PackageIndex { find_links: vec!["https://a/links".to_owned()], ..PackageIndex::default() };
        check(&[("PIP_INDEX_URL", "https://user:secret@a/simple")], &PackageIndex::default(), 1);
        check(&[("PIP_FIND_LINKS", "/no/such/directory https://a/links")], &links, 0);
        check(&[("PIP_FIND_LINKS", "/")], &PackageIndex::default(), 1);
    }

    #[test]
    fn writes_both_tools_settings() {
        let index = PackageIndex {
            index_url: Some("https://a/simple".to_owned()),
            extra_index_urls: vec!["https://b".to_owned(), "https://c".to_owned()],
            trusted_hosts: vec!["a".to_owned()],
            timeout_seconds: Some(180),
            ..PackageIndex::default()
        };
        let text = index.pip_conf();
        assert!(
            text.contains("index-url = https://a/simple\nextra-index-url = https://b\n    https://c\n"),
            "{text}"
        );
        assert_eq!(parse(&text)["timeout"], "180");
        let uv: BTreeMap<_, _> = index.uv_environment().into_iter().collect();
        assert_eq!(uv["UV_INDEX"], "https://b https://c");
        assert!(!uv.contains_key("UV_FIND_LINKS"));
    }
}

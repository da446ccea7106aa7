//! The Debian root that images of one release share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build::process::{self, Process, Running};
use crate::build::recipe::Recipe;
use crate::engine::{Engine, LABEL_BASE_IMAGE, LABEL_RECIPE, LABEL_SUITE, chunks};
use crate::error::BuildError;
use crate::pack::{self, ENVIRONMENT, PREFIX};
use crate::providers::{MMDEBSTRAP, ROOT_PACKAGES, Suite};
use crate::settings::HostSettings;

/// From a far mirror, on a small machine.
const ROOT_LIMIT: Duration = Duration::from_secs(40 * 60);

const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Any uv of these is fine; the newest is taken. From 0.11 on it knows `UV_SYSTEM_CERTS`.
const UV_REQUIREMENT: &str = "uv>=0.11,<1";

/// Files of Debian packages that no build and no test reads: half of a root.
const LEFT_OUT: [&str; 7] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/lib/*/libpython*.a",
    "path-exclude=/usr/lib/python*/config-*/libpython*.a",
];

/// The name of the image that holds the root.
pub(super) fn image_name(suite: Suite) -> String {
    format!("openswe-debian-{suite}")
}

/// The digest of everything that defines the root.
pub(super) fn recipe(suite: Suite, settings: &HostSettings) -> String {
    let recipe = Recipe::default()
        .part("suite", suite.name())
        .part("packages", &packages(suite))
        .part("left out", &LEFT_OUT.join("\n"))
        .part("uv", UV_REQUIREMENT)
        .part("environment", &environment(settings).join("\n"));
    let mirror = settings.debian_mirror.as_ref().map(|mirror| mirror.sources(suite.name()).join("\n"));
    recipe.part("mirror", &mirror.unwrap_or_default()).files(&pack::root_files(settings)).digest()
}

/// Makes the root and imports it as a scratch image, whose id is given.
pub(super) async fn make(
    engine: &Engine,
    suite: Suite,
    settings: &HostSettings,
    scratch: &Path,
    running: &Running,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<String, BuildError> {
    let archive_path = scratch.join("files.tar");
    let write = || {
        let mut archive = pack::create(&archive_path)?;
        pack::write_files(&mut archive, &pack::root_files(settings))?;
        archive.into_inner().map(drop)
    };
    write().map_err(BuildError::io(&archive_path))?;
    let environment = program_environment(settings, scratch);
    let mut command = namespace(settings, &environment).await;
    command.push(
        settings.program(MMDEBSTRAP).unwrap_or_else(|| PathBuf::from(MMDEBSTRAP)).display().to_string(),
    );
    command.extend(arguments(suite, settings, &archive_path));
    let mut process =
        Process::start(Path::new(&command[0]), &command[1..], &environment, running)?.named(MMDEBSTRAP);
    let Some(output) = process.take_output() else {
        return Err(BuildError::NoImage { step: "read mmdebstrap's output" });
    };
    let import = engine.import(chunks(output), changes(suite, settings));
    let (imported, ended) = tokio::join!(import, process.finish(ROOT_LIMIT, on_line));
    // mmdebstrap's own words tell more than an archive that ended early.
    ended?;
    imported
}

/// The command that gives what follows it a mount namespace of its own: as root, mmdebstrap mounts the host's
/// /dev/shm and /sys into the root, and those must vanish with it even if it is killed.
///
/// Empty where that is not permitted, as there nothing can be mounted either, and for others than root, whom
/// mmdebstrap gives a namespace by itself.
async fn namespace(settings: &HostSettings, environment: &BTreeMap<String, String>) -> Vec<String> {
    let Some(unshare) = settings.program("unshare").filter(|_| nix::unistd::Uid::effective().is_root())
    else {
        return Vec::new();
    };
    let mut command = ["--mount", "--propagation", "private", "--"].map(ToOwned::to_owned).to_vec();
    let probe: Vec<String> = command.iter().cloned().chain(["true".to_owned()]).collect();
    let permitted = process::output_of(&unshare, &probe, environment, PROBE_LIMIT, 0).await.is_ok();
    command.insert(0, unshare.display().to_string());
    if permitted { command } else { Vec::new() }
}

/// The variables of every image.
fn environment(settings: &HostSettings) -> Vec<String> {
    let path = format!("PATH={PREFIX}/bin:/opt/conda/bin:{SYSTEM_PATH}");
    let mut environment = vec![
        path,
        format!("CONDA_PREFIX={PREFIX}"),
        "CONDA_DEFAULT_ENV=testbed".to_owned(),
        "LANG=C.UTF-8".to_owned(),
    ];
    environment.extend(ENVIRONMENT.lines().map(ToOwned::to_owned));
    let uv = settings.package_index.uv_environment();
    environment.extend(uv.into_iter().map(|(name, value)| format!("{name}={value}")));
    environment
}

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn changes(suite: Suite, settings: &HostSettings) -> Vec<String> {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
    let environment = environment(settings);
    let environment = environment.iter().filter_map(|line| line.split_once('='));
    let mut changes: Vec<String> =
        environment.map(|(name, value)| format!("ENV {name}=\"{}\"", quoted(value))).collect();
    let label = format!("debian-{suite}");
    let recipe = recipe(suite, settings);
    let labels = [(LABEL_BASE_IMAGE, label.as_str()), (LABEL_SUITE, suite.name()), (LABEL_RECIPE, &recipe)];
    changes.extend(labels.map(|(name, value)| format!("LABEL {name}=\"{value}\"")));
    changes.push("CMD [\"bash\"]".to_owned());
    changes
}

fn packages(suite: Suite) -> String {
    let packages: Vec<&str> = ROOT_PACKAGES.iter().chain(suite.extra_packages()).copied().collect();
    packages.join(",")
}

fn arguments(suite: Suite, settings: &HostSettings, files: &Path) -> Vec<String> {
    let mut arguments = vec![
        "--variant=minbase".to_owned(),
        "--format=tar".to_owned(),
        format!("--include={}", packages(suite)),
        "--aptopt=APT::Install-Recommends \"false\"".to_owned(),
        format!("--customize-hook=tar-in {} /", quoted_for_shell(files)),
        format!("--customize-hook=chroot \"$1\" /bin/sh /tmp/root.sh '{UV_REQUIREMENT}'"),
    ];
    arguments.extend(LEFT_OUT.iter().map(|line| format!("--dpkgopt={line}")));
    arguments.extend([suite.name().to_owned(), "-".to_owned()]);
    if let Some(mirror) = &settings.debian_mirror {
        arguments.extend(mirror.sources(suite.name()));
    }
    arguments
}

fn quoted_for_shell(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn program_environment(settings: &HostSettings, scratch: &Path) -> BTreeMap<String, String> {
    let mut environment = settings.proxies.clone();
    let mut path = std::env::join_paths(&settings.path).unwrap_or_default().to_string_lossy().into_owned();
    path.push_str(":/usr/sbin:/sbin");
    environment.extend([("PATH".to_owned(), path), ("LANG".to_owned(), "C.UTF-8".to_owned())]);
    // Root makes the root there; anybody else needs a directory that mapped users can enter, which /tmp is.
    if nix::unistd::Uid::effective().is_root() {
        environment.insert("TMPDIR".to_owned(), scratch.display().to_string());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipe_changes_with_what_goes_in_only() {
        let settings = HostSettings::read(&BTreeMap::new());
        let changed = |change: fn(&mut HostSettings)| {
            let mut other = settings.clone();
            change(&mut other);
            recipe(Suite::Bookworm, &other) != recipe(Suite::Bookworm, &settings)
        };
        assert!(!changed(|_| {}));
        assert!(changed(|settings| settings.certificates.push('x')));
        assert!(changed(|settings| settings.package_index.timeout_seconds = Some(7)));
        assert!(!changed(|settings| settings.path.push("/x".into())));
        assert!(!changed(|settings| drop(settings.proxies.insert("http_proxy".into(), "x".into()))));
        assert_ne!(recipe(Suite::Bookworm, &settings), recipe(Suite::Trixie, &settings));
    }

    #[test]
    fn quotes_what_a_shell_or_a_dockerfile_reads() {
        assert_eq!(quoted_for_shell(Path::new("/a b/it's")), "'/a b/it'\\''s'");
        let mut settings = HostSettings::read(&BTreeMap::new());
        settings.package_index.index_url = Some("https://a/$x\"".to_owned());
        let changes = changes(Suite::Bookworm, &settings);
        assert!(changes.contains(&"ENV UV_DEFAULT_INDEX=\"https://a/\\$x\\\"\"".to_owned()), "{changes:?}");
    }
}

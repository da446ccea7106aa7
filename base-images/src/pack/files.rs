//! The files of our own in an image; most are templates.

use crate::settings::HostSettings;

/// Where the environment lies in every image.
pub(crate) const PREFIX: &str = "/opt/conda/envs/testbed";

/// The variables of every image that do not depend on the host, as `NAME=value` lines.
pub(crate) const ENVIRONMENT: &str = include_str!("../../templates/environment");

const ACTIVATE: &str = include_str!("../../templates/activate");
const APT_CONF: &str = include_str!("../../templates/apt.conf");
const CONDA: &str = include_str!("../../templates/conda");
const CONDA_SH: &str = include_str!("../../templates/conda.sh");
const PROFILE: &str = include_str!("../../templates/profile.sh");
const GITCONFIG: &str = include_str!("../../templates/gitconfig");
const ROOT_SCRIPT: &str = include_str!("../../templates/root.sh");
const INTERPRETER_SCRIPT: &str = include_str!("../../templates/interpreter.sh");
const CHECK_SCRIPT: &str = include_str!("../../templates/check.sh");

/// A file to put into an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageFile {
    /// Its path without the leading slash.
    pub(crate) path: &'static str,
    pub(crate) mode: u32,
    pub(crate) content: String,
}

/// What a fresh Debian root gets, its script `/tmp/root.sh` included.
pub(crate) fn root_files(settings: &HostSettings) -> Vec<ImageFile> {
    let file = |path, mode, content: &str| ImageFile { path, mode, content: content.to_owned() };
    let mut environment = ENVIRONMENT.to_owned();
    for (name, value) in settings.package_index.uv_environment() {
        environment.push_str(&format!("{name}={value}\n"));
    }
    let mut files = vec![
        file("etc/apt/apt.conf.d/90image", 0o644, APT_CONF),
        file("etc/gitconfig", 0o644, GITCONFIG),
        file("etc/pip.conf", 0o644, &settings.package_index.pip_conf()),
        file("etc/profile.d/testbed.sh", 0o644, PROFILE),
        file("opt/conda/bin/activate", 0o644, ACTIVATE),
        file("opt/conda/bin/conda", 0o755, CONDA),
        file("opt/conda/etc/environment", 0o644, &environment),
        file("opt/conda/etc/profile.d/conda.sh", 0o644, CONDA_SH),
        file("tmp/root.sh", 0o755, ROOT_SCRIPT),
    ];
    if !settings.certificates.is_empty() {
        files.push(file("tmp/host-certificates.pem", 0o644, &settings.certificates));
    }
    files
}

/// What a root gets to become the image of one Python.
pub(crate) fn interpreter_files() -> Vec<ImageFile> {
    vec![ImageFile { path: "tmp/interpreter.sh", mode: 0o755, content: INTERPRETER_SCRIPT.to_owned() }]
}

/// The script that checks a finished image from inside; its argument is the version.
pub(crate) fn check_script() -> &'static str {
    CHECK_SCRIPT
}

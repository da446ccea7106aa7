//! Has the host's conda create an environment, to be moved into an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build::process::{Process, Running};
use crate::error::BuildError;
use crate::pack::PREFIX;
use crate::settings::HostSettings;
use crate::version::PythonVersion;

const CREATE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Creates the environment and gives its directory, whose path is at least as long as the one it moves to: paths
/// inside of binaries can be shortened, not lengthened.
pub(super) async fn create(
    executable: &Path,
    version: PythonVersion,
    settings: &HostSettings,
    scratch: &Path,
    running: &Running,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<PathBuf, BuildError> {
    let prefix = long_path(scratch);
    let arguments = ["create", "--yes", "--quiet", "--prefix"].map(ToOwned::to_owned);
    let mut arguments = arguments.to_vec();
    arguments.extend([prefix.display().to_string(), format!("python={version}")]);
    arguments.extend(["pip", "setuptools", "wheel"].map(ToOwned::to_owned));
    let mut environment: BTreeMap<String, String> = settings.proxies.clone();
    let path = std::env::join_paths(&settings.path).unwrap_or_default().to_string_lossy().into_owned();
    let set = [("PATH", path), ("HOME", scratch.display().to_string()), ("LANG", "C.UTF-8".to_owned())];
    environment.extend(set.map(|(name, value)| (name.to_owned(), value)));
    let mut process = Process::start(executable, &arguments, &environment, running)?;
    let output = process.take_output();
    let drain = async {
        if let Some(mut output) = output {
            // What it says there is its progress; only its errors are of use.
            let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
        }
    };
    let ((), ended) = tokio::join!(drain, process.finish(CREATE_LIMIT, on_line));
    ended.map(|()| prefix)
}

fn long_path(scratch: &Path) -> PathBuf {
    let mut path = scratch.join("environment").display().to_string();
    while path.len() < PREFIX.len() {
        path.push('_');
    }
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_never_shorter_than_the_one_it_becomes() {
        for scratch in ["/", "/t", "/a/quite/long/directory/of/the/host"] {
            assert!(long_path(Path::new(scratch)).display().to_string().len() >= PREFIX.len());
        }
    }
}

//! conda: the host's own executable makes the environment, which then moves into the image.

use crate::providers::{Interpreter, Offer, ProviderKind, Suite};
use crate::settings::HostSettings;
use crate::version::PythonVersion;

/// The executables that can create an environment, in order of speed.
const EXECUTABLES: [&str; 3] = ["micromamba", "mamba", "conda"];

/// What the host's conda would create, or why it cannot; whether its channel is reachable shows in the build.
pub(super) fn offer(version: PythonVersion, settings: &HostSettings) -> Result<Offer, String> {
    let executable = EXECUTABLES
        .iter()
        .find_map(|name| settings.program(name))
        .ok_or_else(|| format!("none of {} is on PATH; install one of them", EXECUTABLES.join(", ")))?;
    Ok(Offer {
        version,
        provider: ProviderKind::Conda,
        // conda's packages ask for an old glibc only.
        suite: Suite::Bookworm,
        origin: executable.display().to_string(),
        interpreter: Interpreter::Conda { executable },
    })
}

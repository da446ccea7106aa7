//! The base images `openswe-python-*`: which Pythons there are, who can bring each onto this host, and how an
//! image of it is made and checked.
//!
//! Every image has the same face, whoever brought the interpreter: Debian below, an environment `testbed` in
//! `/opt/conda/envs/testbed` that `. /opt/conda/etc/profile.d/conda.sh; conda activate testbed` and a login shell
//! activate, `uv` and `pip` that install into it, the host's package index and certificates, a C compiler, git, and
//! an ordinary user `testbed` (uid 1000). `templates/check.sh` states it all; an image gets its name only after it.
//!
//! [`choose`] and [`CATALOGUE`] are plain data. [`offers`] and [`sources`] look at the host only, [`available`] at the
//! engine only; [`ImageBuilder`] needs both. Nothing here prints, reads the environment, or calls a container
//! engine's command line.

mod build;
mod catalogue;
mod engine;
mod error;
mod pack;
mod providers;
mod settings;
mod version;

pub use build::{Built, ImageBuilder, Progress};
pub use catalogue::{CATALOGUE, Choice, Release, choose, nearest, release_of};
pub use engine::{
    AvailableImage, DEFAULT_ADDRESS, LABEL_BASE_IMAGE, LABEL_PROVIDER, LABEL_PYTHON, LABEL_RECIPE,
    LABEL_SUITE, ListedContainer, Lookup, LookupError, Unreachable, Which, available, is_build_step,
    is_workers_build_step, list_images, short_name,
};
pub use error::BuildError;
pub use providers::{Offer, ParseProviderError, ProviderKind, Source, offers, sources};
pub use settings::{DebianMirror, HostSettings, PackageIndex};
pub use version::{IMAGE_PREFIX, Installer, ParsePythonVersionError, PythonVersion};

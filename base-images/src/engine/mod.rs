//! The few things that are asked of the container engine, always over its API.

mod address;
mod container;
mod images;
mod labels;
mod lookup;
mod name;
mod owner;
mod step;

pub use address::{DEFAULT_ADDRESS, Unreachable};
pub use images::{AvailableImage, available, list_images};
pub use labels::{LABEL_BASE_IMAGE, LABEL_PROVIDER, LABEL_PYTHON, LABEL_RECIPE, LABEL_SUITE};
pub use lookup::{ListedContainer, Lookup, LookupError, Which};
pub use name::short_name;
pub use step::{is_build_step, is_workers_build_step};

pub(crate) use container::{Finished, Job, Lines, chunks};
pub(crate) use images::{Engine, Found};

//! What the host tells the images: package index, certificates, mirrors, interpreters, order of providers.

mod apt;
mod certificates;
mod host;
mod pip;

pub use apt::DebianMirror;
pub use host::HostSettings;
pub use pip::PackageIndex;

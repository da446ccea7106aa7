//! Who can bring a Python onto this host, behind one face: asked for a version, a provider makes an offer or says
//! why it has none.

mod conda;
mod debian;
mod kind;
mod offer;
mod tree;

pub use kind::{ParseProviderError, ProviderKind};
pub use offer::{Offer, Source, offers, sources};

pub(crate) use debian::{ROOT_PACKAGES, Suite};
pub(crate) use offer::{Interpreter, MMDEBSTRAP};
pub(crate) use tree::InterpreterTree;

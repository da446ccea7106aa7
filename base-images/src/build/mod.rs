//! Makes the images.

mod builder;
mod conda;
mod interpreter;
mod libraries;
mod process;
mod progress;
mod recipe;
mod root;
mod work;

pub use builder::{Built, ImageBuilder};
pub use progress::Progress;

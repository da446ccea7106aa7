//! The labels of our images and of the containers that make them.

/// On everything of ours: the Python, `3.11`, or for the root below the images `debian-bookworm`.
pub const LABEL_BASE_IMAGE: &str = "bottega.base-image";

/// Who brought the interpreter.
pub const LABEL_PROVIDER: &str = "bottega.base-image.provider";

/// The digest of everything that defines the image.
pub const LABEL_RECIPE: &str = "bottega.base-image.recipe";

/// The Python with its patch number, `3.11.2`.
pub const LABEL_PYTHON: &str = "bottega.base-image.python";

/// The Debian release below it.
pub const LABEL_SUITE: &str = "bottega.base-image.suite";

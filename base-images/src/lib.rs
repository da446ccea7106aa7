//! base-images

//! From an image and a script to evidence, and from evidence to a verdict.

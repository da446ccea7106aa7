//! queue-format

//! How values are written for people: durations, sizes, counts, and text that came from untrusted code.

mod clean;
mod table;
mod units;

pub use clean::{clean, clean_line};
pub use table::table;
pub use units::{bytes, duration, ellipsis, list_of, plural};

//! `bottega up`: the three daemons on one machine over a local spool, watched and shown until they are done.
//!
//! ```text
//! starting ──READY, or alive for STARTED──▶ running ──died, at most RESTARTS_MAX in RESTART_WINDOW──▶ starting
//!     │ died                                    │ died once more
//!     └────────────▶ up ends with the log's last lines ◀────┘
//! ```
//!
//! Each daemon has a process group of its own, so that a Ctrl-C reaches `up` alone, and is killed by the kernel
//! when `up` is: nothing is left running, however `up` ends. What killed daemons held, the next run takes back.

mod child;
mod listener;
mod log;
mod progress;
mod results;
mod run;
mod screen;

pub use child::{Event, Program, Role};
pub use results::{Before, Results};
pub use run::{Settings, Up, UpError};
pub(crate) use screen::Screen;
pub use screen::TerminalSize;

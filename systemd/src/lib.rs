//! How a daemon lives on a host: configuration, logs, readiness, shutdown.
//!
//! Everything works the same without systemd: then readiness is told to nobody and logs go to stderr. The
//! process's environment is read once, in a `main`, into an [`Environment`], and handed in from there:
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use systemd::{Environment, Notifier, Shutdown, Source, config, log};
//!
//! #[derive(Default, serde::Serialize, serde::Deserialize)]
//! #[serde(default)]
//! struct Config {
//!     slots: u32,
//! }
//!
//! let environment = Environment::from_os(std::env::vars_os());
//! let config: Config = config::load(&Source::named_or_default(None), "worker")?;
//! log::init("info", &environment)?;
//! let notifier = Notifier::new(&environment);
//! let shutdown = Shutdown::on_signals()?;
//! notifier.ready(&format!("{} slots", config.slots));
//! shutdown.requested().await;
//! notifier.stopping("waiting for the tasks that run");
//! # Ok(())
//! # }
//! ```

mod chain;
pub mod config;
mod environment;
mod host;
pub mod log;
pub mod manual;
mod nearest;
mod notify;
mod reload;
mod shutdown;
mod span;
pub mod state_file;

pub use chain::chain;
pub use config::{ConfigError, Source};
pub use environment::Environment;
pub use host::{hostname, state_dir};
pub use log::{LogError, Sink};
pub use nearest::nearest;
pub use notify::Notifier;
pub use reload::Reload;
pub use shutdown::{Phase, Shutdown, Trigger};

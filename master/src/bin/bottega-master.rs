//! The master daemon: reads the command line, the environment, the clock and randomness, then serves until it is
//! told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use jiff::Timestamp;
use master::daemon::{Daemon, MasterConfig};
use queue_format::{Incarnation, Owner, Spool};
use systemd::manual::FILES;
use systemd::{Environment, Notifier, Reload, Shutdown, Source, config, log};
use uuid::Uuid;

/// Publishes what is dropped into a spool's incoming/, releases delayed tasks, keeps the summary.
#[derive(Debug, Parser)]
#[command(name = "bottega-master", version, max_term_width = 100, after_long_help = format!("{SIGNALS}\n\n{FILES}"))]
struct Cli {
    /// The spool's directory [default: what the configuration says]
    #[arg(long, value_name = "DIR", env = "BOTTEGA_SPOOL")]
    spool: Option<PathBuf>,
    /// Where this machine keeps its locks; on a local disk [default: /var/lib/bottega for root, else
    /// ~/.local/state/bottega]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The configuration; its [master] section counts
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration as TOML and end
    #[arg(long)]
    print_config: bool,
}

const SIGNALS: &str = "\
Signals:
  SIGTERM, SIGINT  end once what is being written is whole; at a second one at once
  SIGHUP           read the configuration again

Exit status:
  0  it has ended as it was told to
  1  it cannot serve; it says why
  2  the command line is wrong";

fn main() -> ExitCode {
    if let Some(status) = systemd::manual::asked::<Cli>(std::env::args_os()) {
        return status;
    }
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bottega-master: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    let environment = Environment::from_os(std::env::vars_os());
    let source = Source::named_or_default(cli.config);
    let here = std::env::current_dir()?;
    let check = move |config: &MasterConfig| config.check().and_then(|()| config.template(&here).map(drop));
    let config = config::load_checked(&source, "master", &check)?;
    if cli.print_config {
        print!("{}", config::print(&config, "master")?);
        return Ok(());
    }
    let spool = config::named_or_said_spool(cli.spool, &source)?;
    log::init(&config.log, &environment)?;
    let is_root = nix::unistd::geteuid().is_root();
    let state_dir = cli.state.or_else(|| systemd::state_dir(is_root, &environment));
    let daemon = Daemon {
        spool: Spool::open(&spool)?,
        owner: Owner::new(&systemd::hostname(), Incarnation::new(Uuid::now_v7())),
        state_dir: state_dir.ok_or("there is no home directory: say where state lies, with --state DIR")?,
        working_dir: std::env::current_dir()?,
        config,
        now: Timestamp::now,
        unique: Uuid::now_v7,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?;
        let notifier = Notifier::new(&environment);
        let mut reload = Reload::listen(source, "master", daemon.config.clone(), check, notifier.clone())?;
        let served = daemon.serve(&notifier, &shutdown, &mut reload).await;
        served.map_err(Box::<dyn std::error::Error>::from)
    });
    // A round that hangs on its mount must not keep the process.
    runtime.shutdown_timeout(Duration::ZERO);
    served
}

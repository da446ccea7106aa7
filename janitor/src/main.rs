//! `bottega-janitor`: the daemon, a single run of it, and what that would do.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use base_images::DEFAULT_ADDRESS;
use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand};
use janitor::{Audit, Config, Janitor, Place};
use systemd::manual::FILES;
use systemd::{Environment, Notifier, Reload, Shutdown, Source};

/// Removes what finished or dead tasks left on this node, and nothing else.
#[derive(Parser)]
#[command(name = "bottega-janitor", version, max_term_width = 100, after_long_help = format!("{SIGNALS}\n\n{FILES}"))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The spool [default: what the configuration says].
    #[arg(long, global = true, env = "BOTTEGA_SPOOL", value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Where this node's workers keep their ledger [default: /var/lib/bottega, or the user's state directory].
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The configuration; its [janitor] section counts [default: /etc/bottega/bottega.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints the effective configuration and ends.
    #[arg(long, global = true)]
    print_config: bool,
    /// What is logged: error, warn, info, debug, or directives such as info,janitor=debug.
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    log: String,
}

const SIGNALS: &str = "\
Signals:
  SIGTERM, SIGINT  end after the removal that is under way; the next run goes on
  SIGHUP           read the configuration again

Exit status:
  0  done, or ended as it was told to
  1  something could not be looked at or removed, or `once` was ended
     before; it says why
  2  the command line is wrong";

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Act(Act),
    /// Tells what was removed, when and why, the latest last.
    History {
        /// Only of this container, image, directory or task.
        object: Option<String>,
        /// So many lines at most, the latest.
        #[arg(long, default_value_t = 1000, value_name = "N")]
        lines: usize,
    },
}

/// What is said where an engine should be.
const UNSEEN: &str = "the container engine does not answer: containers and images were not looked at";

/// What takes the spool.
#[derive(Subcommand)]
enum Act {
    /// Goes on until SIGTERM.
    Run,
    /// Looks, waits for the grace period, looks again, removes, ends.
    Once,
    /// Prints what `once` would do, and does nothing.
    Plan,
    /// Tells why something stays or goes.
    Explain {
        /// A container, an image, a directory or a task: by name, id or the beginning of an id.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        object: String,
    },
}

fn main() -> ExitCode {
    if let Some(status) = systemd::manual::asked::<Arguments>(std::env::args_os()) {
        return status;
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bottega-janitor: {}", systemd::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let environment = Environment::from_os(std::env::vars_os());
    let source = Source::named_or_default(arguments.config);
    let config = systemd::config::load_checked(&source, "janitor", Config::validate)?;
    if arguments.print_config {
        write!(std::io::stdout(), "{}", systemd::config::print(&config, "janitor")?)?;
        return Ok(());
    }
    let state =
        arguments.state.or_else(|| systemd::state_dir(nix::unistd::geteuid().is_root(), &environment));
    let state = state.context("there is no home directory for the state; name one with --state DIR")?;
    let command = match arguments.command {
        Command::Act(command) => command,
        // Wherever the spool is just now.
        Command::History { object, lines } => {
            let past = Audit::new(&state, config.audit_bytes_max).past();
            let told = janitor::history(&past, object.as_deref(), jiff::Timestamp::now());
            print(&told[told.len().saturating_sub(lines)..])?;
            return Ok(());
        }
    };
    let spool = systemd::config::named_or_said_spool(arguments.spool, &source)?;
    systemd::log::init(&arguments.log, &environment)?;
    let place = Place {
        spool,
        state,
        hostname: systemd::hostname(),
        engine: environment.get("DOCKER_HOST").map(ToOwned::to_owned),
    };
    // A node that makes no containers has none.
    let socket = DEFAULT_ADDRESS.trim_start_matches("unix://");
    let has_engine = place.engine.is_some() || Path::new(socket).exists();
    let notifier = Notifier::new(&environment);
    let janitor = Janitor::open(place, config.clone(), jiff::Timestamp::now, notifier.clone())?;
    // One thread is enough for a daemon that mostly sleeps; files are looked at on a second one.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
    let done = runtime.block_on(async {
        // Before anything that takes long: until then, a SIGHUP ends the process.
        let reload = Reload::listen(source, "janitor", config, Config::validate, notifier.clone());
        act(command, janitor, has_engine, &notifier, reload.context("cannot handle signals")?).await
    });
    // A directory that is being removed must not hold the end: the next run goes on with it.
    runtime.shutdown_background();
    done
}

async fn act(
    command: Act,
    mut janitor: Janitor,
    has_engine: bool,
    notifier: &Notifier,
    mut reload: Reload<Config>,
) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot handle signals")?;
    let lacks_engine = |janitor: &Janitor| has_engine && !janitor.engine_answers();
    match command {
        Act::Run => {
            let random = || uuid::Uuid::now_v7().as_u64_pair().1;
            janitor::run(janitor, notifier, &shutdown, &mut reload, random).await;
        }
        Act::Once => {
            let ending = janitor.ending();
            let report = janitor::unless_ended(janitor.once(), &ending, &shutdown).await;
            let report = report.context("ended by a signal; the next run goes on")??;
            tracing::info!(
                "removed {}, kept {}, failed {}, {} wait",
                report.removed,
                report.kept,
                report.failed,
                report.waiting + report.postponed
            );
            anyhow::ensure!(report.failed == 0, "{} removals failed; see the log above", report.failed);
            anyhow::ensure!(!lacks_engine(&janitor), UNSEEN);
        }
        Act::Plan => {
            print(&janitor.plan().await?)?;
            anyhow::ensure!(!lacks_engine(&janitor), UNSEEN);
        }
        Act::Explain { object } => {
            let lines = janitor.explain(&object).await?;
            let looked = if janitor.engine_answers() { "" } else { "; the container engine does not answer" };
            anyhow::ensure!(!lines.is_empty(), "nothing here is called {object}{looked}");
            print(&lines)?;
        }
    }
    Ok(())
}

fn print(lines: &[String]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}

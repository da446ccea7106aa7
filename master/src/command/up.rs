use std::io::Write;
use std::path::Path;
use std::time::Instant;

use queue_format::{Life, LifeLock, Spool, Tally, node_name};
use systemd::Shutdown;

use super::cli::UpArguments;
use super::programs::{find, verb};
use super::{CommandError, Host, Success};
use crate::summary::{Status, Watch};
use crate::text::{duration, plural};
use crate::up::{Before, Program, Results, Role, Settings, UpError};

/// Runs the daemons, and tells what came of it.
pub(super) fn run(
    arguments: &UpArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let state_dir = host.state_dir(arguments.state.as_ref())?;
    let status = Status::take(&spool, &mut Watch::default(), (host.now)())?;
    let (open, settled) = (status.counts.open(), status.counts.settled());
    writeln!(
        out,
        "spool: {}: {} open, {settled} settled already",
        status.path.display(),
        plural(open, "task")
    )?;
    if arguments.until_idle && status.is_idle() {
        writeln!(out, "nothing is pending, claimed, delayed or unread: nothing to do")?;
        let results = Results::gather(&spool, &Before::default())?;
        finish(&results, host, out)?;
        return Ok(Success::Yes);
    }
    warn_of_strangers(&spool, &state_dir, host, out)?;
    let root = spool.layout().root();
    let programs = Role::ALL.into_iter().map(|role| program(role, arguments, root, &state_dir, host));
    let settings = Settings {
        programs: programs.collect::<Result<_, _>>()?,
        spool,
        state_dir: state_dir.clone(),
        until_idle: arguments.until_idle,
        terminal: host.terminal,
        now: host.now,
        unique: host.unique,
    };
    // One thread: the kernel ends the daemons with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let up = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(UpError::Signals)?;
        settings.run(&shutdown, out).await
    })?;
    let how = if up.interrupted { "interrupted" } else { "ended" };
    let open = settings.spool.count(&mut Tally::default(), Instant::now())?.open();
    let rest = if open > 0 {
        format!("; {} open, the next run goes on", plural(open, "task"))
    } else {
        String::new()
    };
    writeln!(out, "{how} after {}; nothing is left running{rest}", duration(up.seconds))?;
    let before = if arguments.table { Before::default() } else { up.before };
    finish(&Results::gather(&settings.spool, &before)?, host, out)?;
    // Without --until-idle, a Ctrl-C is how it ends.
    Ok(if up.interrupted && arguments.until_idle { Success::Interrupted } else { Success::Yes })
}

fn finish(results: &Results, host: &Host, out: &mut dyn Write) -> Result<(), CommandError> {
    if results.is_empty() {
        writeln!(out, "no task was settled")?;
    } else {
        writeln!(out, "{}\n{}", results.table(host.columns()), results.totals())?;
    }
    Ok(())
}

fn program(
    role: Role,
    arguments: &UpArguments,
    spool: &Path,
    state_dir: &Path,
    host: &Host,
) -> Result<Program, CommandError> {
    let path = find(role, host)?;
    let text = |path: &Path| path.display().to_string();
    let mut given: Vec<String> = verb(role).into_iter().map(str::to_owned).collect();
    given.extend(["--spool".to_owned(), text(spool), "--state".to_owned(), text(state_dir)]);
    if let (Role::Worker, Some(brain)) = (role, &arguments.brain) {
        given.extend(["--brain".to_owned(), brain.clone()]);
    }
    if let Some(file) = &arguments.config {
        given.extend(["--config".to_owned(), text(&host.working_dir.join(file))]);
    }
    Ok(Program { role, path, arguments: given })
}

/// A claim of this node's that nobody here can prove dead would be waited for without end: say so.
fn warn_of_strangers(
    spool: &Spool,
    state_dir: &Path,
    host: &Host,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    for owner in spool.owners_on(&node_name(&host.hostname))? {
        let claims = spool.claims_of(&owner)?.len();
        if claims > 0 && LifeLock::look(state_dir, &owner)? == Life::Unknown {
            let dir = spool.layout().lease(&owner);
            writeln!(
                out,
                "note: {} claimed by {owner}, of which {} knows nothing; if that worker is gone: mv {}/*/*.json {}/",
                plural(claims, "task"),
                state_dir.display(),
                dir.display(),
                spool.layout().pending().join("5-build").display()
            )?;
        }
    }
    Ok(())
}

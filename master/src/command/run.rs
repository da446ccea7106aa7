use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write, stdin};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use queue_format::{
    Digest, InputError, InputFile, InvalidSpec, Resources, RunTask, Shape, Spool, TaskId, TaskSpec,
};

use super::cli::SpoolArguments;
use super::{CommandError, Host, Success};
use crate::pulse::Pulse;
use crate::run::{
    Followed, Plan, PlanError, Published, Publishing, RunError, Template, follow, parse_bytes, parse_seconds,
};
use crate::text::{bytes, clean_line, duration, list_of, plural};
use crate::up::Screen;

pub(super) const RUN: &str = "\
The command runs in a container of IMAGE without a network, as user 1000:1000, or with --native on the node itself
(only on workers whose configuration allows that). docs/run.md tells what it finds there and what is kept of it.
With --array each line of a file that is not empty is an item: a command of its own, in which {} stands for the item
(which is added at its end where there is no {}), with BOTTEGA_ARRAY_INDEX 1, 2, 3 … in its environment.
Killed, and run again with the same --name, it goes on: no task is published twice.
By hand: drop the JSON of a task, as any of them in SPOOL/pending/5-run/ has it, into SPOOL/incoming/.

Examples:
  bottega run --spool /srv/spool --cores 2 --memory 4GiB --wait debian:12 -- sh -c 'nproc; free'
  bottega run --spool /srv/spool --input model.bin --output /outputs/scores python:3.12 -- python /inputs/model.bin
  seq 10000 | bottega run --spool /srv/spool --name sweep --array - --bundle 100 debian:12 -- echo {}
  bottega run --spool /srv/spool --native --wait -- hostname";

/// Arguments of `bottega run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    spool: SpoolArguments,
    /// CPUs, as nproc counts them; where they are more than a slot has, slots are joined [default: all of a slot]
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
    /// Memory, such as 4GiB or 512MiB; where it is more than a slot has, slots are joined [default: all of a slot]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Time after which it is killed, such as 90s, 10m or 2h; of a bundle, of all its commands together [default: the
    /// workers' run_timeout_seconds]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    timeout: Option<u64>,
    /// The task's id, and how an array's ids begin [default: run- and the time]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// 0 (first) to 9
    #[arg(long, value_name = "P", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: u8,
    /// A variable in its environment
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A file that it finds, under PATH [default: /inputs/NAME, or NAME with --native]
    #[arg(long, value_name = "FILE[:PATH]")]
    input: Vec<String>,
    /// A file or directory that is kept; absolute, or with --native relative to where the command begins
    #[arg(long, value_name = "PATH")]
    output: Vec<String>,
    /// Who it is in its container, as UID:GID [default: 1000:1000]
    #[arg(long, value_name = "UID:GID", conflicts_with = "native")]
    user: Option<String>,
    /// Give it a network
    #[arg(long, conflicts_with = "native")]
    network: bool,
    /// A command for each line of FILE; - is the standard input
    #[arg(long, value_name = "FILE")]
    array: Option<PathBuf>,
    /// Commands of an array in one task, one after another in one container: for short ones
    #[arg(long, value_name = "N", requires = "array", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    bundle: u16,
    /// Without a container, as the worker's user
    #[arg(long, conflicts_with = "image")]
    native: bool,
    /// Wait until all is done; the exit status is 0 only if every command ended with 0
    #[arg(long)]
    wait: bool,
    /// What the container is made of
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
    /// The program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Publishes commands, and follows them where that is asked for.
pub(super) fn run(
    arguments: &RunArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    if arguments.image.is_none() && !arguments.native {
        return Err(CommandError::usage(
            "no image is named: put one before --, as in: bottega run debian:12 -- hostname; or use --native",
        ));
    }
    if arguments.command.is_empty() {
        return Err(CommandError::usage(
            "no command is given: put it after --, as in: bottega run debian:12 -- hostname",
        ));
    }
    let name = name_of(arguments, host)?;
    let mut template = Template {
        name: name.clone(),
        priority: arguments.priority,
        resources: Resources {
            cores: arguments.cores,
            memory_bytes: arguments.memory,
            timeout_seconds: arguments.timeout,
        },
        task: RunTask {
            image: arguments.image.clone(),
            commands: vec![arguments.command.clone()],
            env: variables(&arguments.env)?,
            user: arguments.user.clone(),
            network: arguments.network,
            outputs: arguments.output.clone(),
            ..RunTask::default()
        },
    };
    let files = arguments.input.iter().map(|text| input_of(text, arguments.native));
    let files: Vec<(File, PathBuf, String)> = files.collect::<Result<_, _>>()?;
    let array = arguments.array.as_deref().map(open_array).transpose()?;
    for (file, _, path) in &files {
        let mode = file.metadata().map_or(0o644, |found| found.permissions().mode() & 0o777);
        template.task.inputs.push(InputFile { path: path.clone(), digest: Digest::of(b""), bytes: 0, mode });
    }
    // Before anything is written: what is wrong with the task itself.
    let Template { priority, resources, task, .. } = &template;
    let checked = TaskSpec::run(name.clone(), *priority, resources.clone(), task.clone());
    let shape = checked.map_err(|why| usage(&why))?.class().shape();
    let spool = Spool::open(&arguments.spool.spool)?;
    for ((mut file, from, _), input) in files.into_iter().zip(&mut template.task.inputs) {
        (input.digest, input.bytes) = spool.keep_input(&mut file).map_err(|error| match error {
            InputError::Path(error) => error.into(),
            error => {
                CommandError::usage(format!("--input {}: {error}", clean_line(&from.display().to_string())))
            }
        })?;
    }
    let plan = match array {
        Some(lines) => Plan::array(template.clone(), lines, usize::from(arguments.bundle)),
        None => Plan::single(template.clone()),
    };
    let is_array = plan.is_array();
    let published = publish(plan, &spool, arguments.name.is_some(), host, out)?;
    let count = published.published + published.known;
    if count == 0 {
        return Err(CommandError::usage("--array: it has no item; each line that is not empty is one"));
    }
    let known = match published.known {
        0 => String::new(),
        known => format!(", {known} were there already: it goes on"),
    };
    writeln!(
        out,
        "{name}: {} published{known}{}",
        plural(published.published, "task"),
        exact(&template.resources)
    )?;
    let one = published.first.as_ref().unwrap_or(&name);
    if fits_nowhere(&spool, &shape)? {
        writeln!(out, "  no slot of the workers here now is as large: it waits for one that is")?;
    }
    if arguments.wait {
        writeln!(out, "  meanwhile, why it waits:  bottega explain {one}")?;
        return wait(&spool, &name, count, is_array, host, out);
    }
    writeln!(out, "  to follow it:  bottega status --watch")?;
    writeln!(out, "  one task:      bottega show {one}    (why it waits: bottega explain {one})")?;
    Ok(Success::Yes)
}

/// Whether workers are here, and none of them takes tasks that ask for so much.
fn fits_nowhere(spool: &Spool, shape: &Shape) -> Result<bool, CommandError> {
    let workers: Vec<_> = spool.worker_statuses()?;
    let has_slots = workers.iter().any(|worker| !worker.slots.is_empty());
    Ok(has_slots && !workers.iter().any(|worker| worker.fits(shape)))
}

fn publish(
    plan: Plan<'_>,
    spool: &Spool,
    may_go_on: bool,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Published, CommandError> {
    let producer = host.owner();
    let mut screen = Screen::new(out, host.terminal);
    let name = plan.name().clone();
    let publishing = Publishing { spool, producer: &producer, may_go_on };
    // A long array must not be taken for what a dead publisher left.
    let published = Pulse::during(spool, &producer, || {
        publishing.run(plan, |so_far| {
            // A screen that is gone is found out when the result is written.
            let _ = screen.draw(&[format!("{name}: {} published", plural(so_far.published, "task"))]);
        })
    })?;
    screen.wipe()?;
    published.map_err(|error| match error {
        RunError::Plan { why: PlanError::Spec(why), published } if published == Published::default() => {
            usage(&why)
        }
        error @ (RunError::Plan { .. } | RunError::Taken(_)) => CommandError::usage(error.to_string()),
        RunError::Spool(error) => error.into(),
    })
}

fn wait(
    spool: &Spool,
    name: &TaskId,
    count: usize,
    is_array: bool,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let began = (host.now)();
    let mut screen = Screen::new(out, host.terminal);
    let seen = follow(spool, name, count, is_array, |seen| {
        let _ = screen.draw(&[format!("{name}: {}", progress(seen))]);
    })?;
    screen.wipe()?;
    let took = duration((host.now)().duration_since(began).as_secs_f64());
    let failures = match seen.failures() {
        0 => String::new(),
        failures => format!(", {failures} failed ({})", list_of(&seen.failed)),
    };
    let gone = match count.saturating_sub(seen.done + seen.failures()) {
        0 => String::new(),
        gone => format!(", {gone} gone: somebody removed their files"),
    };
    writeln!(out, "{name}: {} completed{failures}{gone}, after {took}", plural(seen.done, "task"))?;
    if let Some(id) = &seen.one_failed {
        writeln!(out, "  why:  bottega show {id}    what it printed:  bottega show {id} --log output")?;
    }
    Ok((seen.done >= count).into())
}

fn progress(seen: &Followed) -> String {
    let mut parts = vec![
        format!("{} waiting", seen.waiting),
        format!("{} at work", seen.claimed),
        format!("{} completed", seen.done),
        format!("{} failed", seen.failures()),
    ];
    if seen.hold > 0 {
        parts.push(format!("{} on hold (bottega resume ID)", seen.hold));
    }
    parts.join(" · ")
}

/// What a decimal unit stands for, where one was used: people often mean the other.
fn exact(resources: &Resources) -> String {
    match resources.memory_bytes {
        Some(memory) if memory % (1 << 20) != 0 => {
            format!(", with {memory} bytes ({}) of memory each", bytes(memory))
        }
        _ => String::new(),
    }
}

fn name_of(arguments: &RunArguments, host: &Host) -> Result<TaskId, CommandError> {
    let name = arguments.name.clone().unwrap_or_else(|| {
        let unique = (host.unique)().simple().to_string();
        format!("run-{}-{}", (host.now)().strftime("%Y%m%dt%H%M%S"), &unique[unique.len() - 6..])
    });
    name.parse().map_err(|why| CommandError::usage(format!("--name: {why}")))
}

fn variables(given: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    let mut variables = BTreeMap::new();
    for text in given {
        let Some((name, value)) = text.split_once('=') else {
            return Err(CommandError::usage(format!("--env: {text:?} has no =; expected NAME=VALUE")));
        };
        if variables.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(CommandError::usage(format!(
                "--env: {name:?} is given twice; leave one of them out"
            )));
        }
    }
    Ok(variables)
}

/// The file of `FILE[:PATH]`, opened, and the path under which the command finds it.
fn input_of(text: &str, native: bool) -> Result<(File, PathBuf, String), CommandError> {
    let (file, path) = match text.rsplit_once(':') {
        // A file's own name may have a colon.
        Some((file, path)) if !path.is_empty() && !Path::new(text).exists() => (file, Some(path.to_owned())),
        _ => (text, None),
    };
    let refuse = |why: String| CommandError::usage(format!("--input {}: {why}", clean_line(file)));
    let opened = File::open(file).map_err(|e| refuse(format!("it cannot be read: {e}; check the path")))?;
    let found = opened.metadata().map_err(|e| refuse(e.to_string()))?;
    if !found.is_file() {
        return Err(refuse("it is no file; of a directory, make an archive first (tar -cf)".to_owned()));
    }
    let name = Path::new(file).file_name().map(|name| name.to_string_lossy().into_owned());
    let default = || name.map(|name| if native { name } else { format!("/inputs/{name}") });
    let path = path.or_else(default).ok_or_else(|| refuse("it names no file".to_owned()))?;
    Ok((opened, PathBuf::from(file), path))
}

fn open_array(path: &Path) -> Result<Box<dyn Read>, CommandError> {
    if path == Path::new("-") {
        return Ok(Box::new(stdin().lock()));
    }
    let refuse = |why: String| CommandError::usage(format!("--array {}: {why}", path.display()));
    let opened =
        File::open(path).map_err(|e| refuse(format!("it cannot be read: {e}; check the path, or give -")))?;
    if opened.metadata().is_ok_and(|found| found.is_dir()) {
        return Err(refuse("it is a directory; name a file of lines".to_owned()));
    }
    Ok(Box::new(opened))
}

/// An invalid task, in the words of the command line.
fn usage(why: &InvalidSpec) -> CommandError {
    let flag = |field: &str| match field.split(['[', '.']).next().unwrap_or_default() {
        "image" => "IMAGE",
        "commands" => "COMMAND",
        "env" => "--env",
        "user" => "--user",
        "inputs" => "--input",
        "outputs" => "--output",
        "cores" => "--cores",
        "memory_bytes" => "--memory",
        _ => "--timeout",
    };
    CommandError::usage(match why {
        InvalidSpec::Run(invalid) => format!("{} ({}): {}", flag(&invalid.field), invalid.field, invalid.why),
        InvalidSpec::Resources { field, value, from, to } => {
            format!("{}: it is {value}, expected {from} to {to}", flag(field))
        }
        other => other.to_string(),
    })
}

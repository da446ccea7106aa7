use std::fs::File;
use std::io::{Read, Write, stdin};
use std::path::Path;

use queue_format::{Known, Spool};

use super::cli::{CheckCommits, SubmitArguments};
use super::{CommandError, Host, Success};
use crate::ingest::{Ingest, Looking, Report, Source, Template};
use crate::pulse::Pulse;
use crate::text::{clean_line, ellipsis, plural};
use crate::up::Screen;

/// The longest refusal shown.
const REFUSAL_CHARS_MAX: usize = 400;

/// Publishes the rows of files.
pub(super) fn run(
    arguments: &SubmitArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let template = arguments.repositories.as_deref().map(|text| Template::parse(text, &host.working_dir));
    let template =
        template.transpose().map_err(|why| CommandError::usage(format!("--repositories: {why}")))?;
    // Before anything is published: a misspelt name among many should not leave half of them done.
    for file in arguments.files.iter().filter(|file| !is_stdin(file)) {
        open(file)?;
    }
    let spool = Spool::open(&arguments.spool.spool)?;
    let producer = host.owner();
    let ingest = Ingest {
        priority: arguments.priority,
        shard_tasks: arguments.shard.into(),
        looking: match arguments.check {
            CheckCommits::Here => Looking::Here,
            CheckCommits::All => Looking::All,
            CheckCommits::None => Looking::None,
        },
        is_dry: arguments.dry_run,
        ..Ingest::new(&spool, &producer, template.as_ref())
    };
    // A long submission must not be taken for what a dead one left.
    Pulse::during(&spool, &producer, || submit(&ingest, arguments, host, out))?
}

fn submit(
    ingest: &Ingest<'_>,
    arguments: &SubmitArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let mut known = Known::default();
    let mut is_success = true;
    for file in &arguments.files {
        let (name, input): (String, Box<dyn Read>) = if is_stdin(file) {
            ("stdin".to_owned(), Box::new(stdin().lock()))
        } else {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (name, Box::new(open(file)?))
        };
        let mut screen = Screen::new(out, host.terminal);
        let source = Source { name: &name, number: (host.unique)(), known: &mut known };
        let report = ingest.run(source, (host.now)(), input, |report| {
            // A screen that is gone is found out when the result is written.
            let _ = screen.draw(&[format!("{name}: {}", counts(report))]);
        })?;
        screen.wipe()?;
        print(&report, file, arguments, out)?;
        is_success &= report.is_success();
    }
    Ok(is_success.into())
}

fn print(
    report: &Report,
    file: &Path,
    arguments: &SubmitArguments,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let Report { unseen, without_end, split, rejected, shown, kept, .. } = report;
    let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
    let note = if arguments.dry_run { " (nothing was done: a dry run)" } else { "" };
    writeln!(out, "{name}: {}{note}", counts(report))?;
    if *split > 0 {
        let rows = plural(*split, "row");
        writeln!(out, "  {rows} had no test_patch: the test files in their patch were moved there")?;
    }
    if *unseen > 0 && arguments.check != CheckCommits::None {
        let where_not = if arguments.check == CheckCommits::All { "cannot be asked" } else { "not here" };
        writeln!(out, "  {}: repository {where_not}, not checked", plural(*unseen, "row"))?;
    }
    if *without_end > 0 {
        writeln!(
            out,
            "  {}: repository without the end commit, which no task needs",
            plural(*without_end, "row")
        )?;
    }
    for refusal in shown {
        writeln!(out, "  {}", ellipsis(&clean_line(refusal), REFUSAL_CHARS_MAX))?;
    }
    if rejected > &shown.len() {
        writeln!(out, "  and {}", plural(rejected - shown.len(), "more row"))?;
    }
    if let Some(path) = kept {
        writeln!(out, "  rejected rows:  {}", path.display())?;
        writeln!(out, "  their reasons:  {}.reasons", path.display())?;
    }
    Ok(())
}

fn counts(report: &Report) -> String {
    let Report { published, known, rejected, .. } = report;
    format!("{published} published, {known} already known, {rejected} rejected")
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn open(file: &Path) -> Result<File, CommandError> {
    let opened = File::open(file).and_then(|opened| {
        let is_dir = opened.metadata()?.is_dir();
        if is_dir {
            Err(std::io::Error::other("it is a directory; name the files in it"))
        } else {
            Ok(opened)
        }
    });
    opened.map_err(|source| CommandError::Open { path: file.to_owned(), source })
}

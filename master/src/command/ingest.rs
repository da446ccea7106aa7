use std::io::Write;
use std::path::Path;

use systemd::{Source, config};

use super::cli::{FilterArguments, IngestArguments, IngestSource, RowsArguments};
use super::{CommandError, Host, Success};
use crate::filter::{EvaluationSet, Filter, FilterConfig, Funnel, ROWS_FILE, Run};
use crate::ingest::Rows;
use crate::text::plural;
use crate::up::Screen;

/// Makes rows for `bottega submit` of pull requests.
pub(super) fn run(
    arguments: &IngestArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    match &arguments.source {
        IngestSource::Jsonl(arguments) => rows(arguments, host, out),
    }
}

fn rows(arguments: &RowsArguments, host: &Host, out: &mut dyn Write) -> Result<Success, CommandError> {
    let files: Vec<&Path> = arguments.files.iter().map(AsRef::as_ref).collect();
    // Before anything is read: a misspelt name among many should not cost an hour.
    files.iter().try_for_each(|file| open(file).map(drop))?;
    filter(&files, &arguments.filter, host, out)
}

/// Filters files of rows into the output directory, and tells what became of them.
fn filter(
    files: &[&Path],
    arguments: &FilterArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let config: FilterConfig = config::load(&Source::named_or_default(arguments.config.clone()), "ingest")?;
    config.check().map_err(CommandError::Usage)?;
    let evaluation = evaluation_set(&config, &arguments.evaluation_sets, out)?;
    let filter = Filter::new(config.clone(), evaluation);
    let mut run = Run::begin(&filter, &arguments.out)?;
    for file in files {
        let mut rows = open(file)?;
        let mut screen = Screen::new(out, host.terminal);
        let name = file.display().to_string();
        run.read(&name, &mut rows, |funnel| {
            // A screen that is gone is found out when the result is written.
            let _ = screen.draw(&[format!("{name}: {}", counts(funnel))]);
        })?;
        screen.wipe()?;
    }
    let funnel = run.finish(&config)?;
    writeln!(out, "{}", funnel.text(host.columns()))?;
    let rows = arguments.out.join(ROWS_FILE);
    let accepted = plural(usize::try_from(funnel.accepted()).unwrap_or(usize::MAX), "row");
    writeln!(out, "\n{accepted} in {}; the others, with their reasons, beside it", rows.display())?;
    Ok((funnel.accepted() > 0 || funnel.read() == 0).into())
}

fn counts(funnel: &Funnel) -> String {
    format!("{} read, {} accepted", funnel.read(), funnel.accepted())
}

/// Every row of the evaluation sets; one that is not understood is said, for leaving it out would let it pass.
fn evaluation_set(
    config: &FilterConfig,
    named: &[std::path::PathBuf],
    out: &mut dyn Write,
) -> Result<EvaluationSet, CommandError> {
    let mut evaluation = EvaluationSet::default();
    for file in config.evaluation_sets.iter().chain(named) {
        let mut rows = open(file)?;
        let unreadable = |source| CommandError::Open { path: file.clone(), source };
        while let Some(row) = rows.next_row().map_err(unreadable)? {
            let added = row.value.map_err(|why| why.to_string()).and_then(|value| evaluation.insert(&value));
            if let Err(why) = added {
                writeln!(out, "{}, {}: {why}; nothing is left out for it", file.display(), row.place)?;
            }
        }
    }
    Ok(evaluation)
}

fn open(file: &Path) -> Result<Rows<'static>, CommandError> {
    Rows::open(file).map_err(|source| CommandError::Open { path: file.to_owned(), source })
}

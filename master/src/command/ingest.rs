use std::io::Write;
use std::path::Path;

use systemd::{Source, config};

use super::cli::{FilterArguments, GithubArguments, IngestArguments, IngestSource, RowsArguments};
use super::telling::{Telling, line};
use super::{CommandError, Host, Success};
use crate::filter::{
    EvaluationSet, Filter, FilterConfig, FilterError, Funnel, REPOSITORIES_FILE, ROWS_FILE, Run,
};
use crate::github::{Collector, PASSED_FILE, PULLS_FILE, Patience, Repositories, SKIPPED_FILE};
use crate::ingest::Rows;
use crate::text::{clean_line, plural};
use crate::up::Screen;

/// Where pull requests are collected, in the output directory.
const COLLECTED_DIR: &str = "collected";

/// Repositories shown of which nothing could be collected; the others are in a file.
const SKIPPED_SHOWN_MAX: usize = 10;

/// The credential that holds tokens, as systemd's `LoadCredential=` names it.
const TOKENS_CREDENTIAL: &str = "github-tokens";

/// Makes rows for `bottega submit` of pull requests.
pub(super) fn run(
    arguments: &IngestArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    match &arguments.source {
        IngestSource::Jsonl(arguments) => rows(arguments, host, out),
        IngestSource::Github(arguments) => github(arguments, host, out),
    }
}

fn rows(arguments: &RowsArguments, host: &Host, out: &mut dyn Write) -> Result<Success, CommandError> {
    let files: Vec<&Path> = arguments.files.iter().map(AsRef::as_ref).collect();
    // Before anything is read: a misspelt name among many should not cost an hour.
    files.iter().try_for_each(|file| open(file).map(drop))?;
    filter(&files, &arguments.filter, filter_of(&arguments.filter)?, host, out)
}

fn github(arguments: &GithubArguments, host: &Host, out: &mut dyn Write) -> Result<Success, CommandError> {
    let since = time_of(&arguments.since).ok_or_else(|| {
        CommandError::usage(format!("--since {}: expected a date such as 2024-05-01", arguments.since))
    })?;
    let repositories = match (&arguments.repos, &arguments.search) {
        (Some(file), _) => Repositories::Named(named(file)?),
        (None, Some(query)) => Repositories::Search(query.clone()),
        (None, None) => {
            return Err(CommandError::usage("say which repositories: --repos FILE or --search QUERY"));
        }
    };
    let dir = arguments.filter.out.join(COLLECTED_DIR);
    // Before hours of collecting, too.
    let (config, filtering) = filter_of(&arguments.filter)?;
    let collecting = Filter::new(config.clone(), EvaluationSet::default());
    let tokens = tokens(host)?;
    if tokens.is_empty() {
        return Err(CommandError::usage(
            "GitHub's GraphQL answers nobody without a token; set BOTTEGA_GITHUB_TOKENS",
        ));
    }
    let mut collector =
        Collector::new(&dir, &arguments.api_url, tokens, &collecting, Patience::default(), host.now)?;
    let mut screen = Screen::new(out, host.terminal);
    let began = (host.now)();
    let (mut first, mut telling) = (None, Telling::new(began));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let collected = runtime.block_on(collector.run(&repositories, since, |progress| {
        // Until it is known how much there is, nothing has begun.
        if progress.all > 0 {
            first.get_or_insert_with(|| progress.clone());
        }
        let first = first.as_ref().unwrap_or(progress);
        let now = (host.now)();
        let elapsed = now.duration_since(began).as_secs_f64();
        // A screen that is gone is found out when the result is written.
        let _ = telling.tell(line(progress, first, elapsed), now, &mut screen);
    }));
    screen.wipe()?;
    writeln!(out, "{} collected in {}", plural(collected?, "pull request"), dir.display())?;
    let skipped = collector.skipped();
    for (repo, why) in skipped.iter().take(SKIPPED_SHOWN_MAX) {
        writeln!(out, "  nothing of {repo}: {}", clean_line(why))?;
    }
    if skipped.len() > SKIPPED_SHOWN_MAX {
        let more = plural(skipped.len() - SKIPPED_SHOWN_MAX, "other");
        writeln!(out, "  nor of {more}: {} says why", dir.join(SKIPPED_FILE).display())?;
    }
    let passed = collector.passed_over().len();
    if passed > 0 {
        let (pulls, file) = (plural(passed, "pull request"), dir.join(PASSED_FILE));
        writeln!(out, "  {pulls} cannot be read: {} says why", file.display())?;
    }
    let waiting = collector.waiting();
    if waiting > 0 {
        let pulls = plural(waiting, "pull request");
        writeln!(
            out,
            "  {pulls} without the diff, which the server could not give; the next run asks again"
        )?;
    }
    filter(&[&dir.join(PULLS_FILE)], &arguments.filter, (config, filtering), host, out)
}

/// A repository a line; what stands after a # is for people.
fn named(file: &Path) -> Result<Vec<String>, CommandError> {
    let unreadable = |source| CommandError::Open { path: file.to_owned(), source };
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let mut repositories = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let name = line.split('#').next().unwrap_or_default().trim();
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        match name.split_once('/') {
            _ if name.is_empty() => {}
            Some((owner, rest)) if is_part(owner) && is_part(rest) => repositories.push(name.to_owned()),
            _ => {
                let why = format!("line {}: {name:?} is no owner/name", index + 1);
                return Err(unreadable(std::io::Error::other(why)));
            }
        }
    }
    Ok(repositories)
}

/// The tokens that systemd hands over, or else those of the environment.
fn tokens(host: &Host) -> Result<Vec<String>, CommandError> {
    let text =
        match host.variables.get("CREDENTIALS_DIRECTORY").map(|dir| Path::new(dir).join(TOKENS_CREDENTIAL)) {
            Some(file) if file.exists() => {
                std::fs::read_to_string(&file).map_err(|source| CommandError::Open { path: file, source })?
            }
            _ => {
                let named = ["BOTTEGA_GITHUB_TOKENS", "GITHUB_TOKEN"]
                    .into_iter()
                    .find_map(|name| host.variables.get(name));
                named.cloned().unwrap_or_default()
            }
        };
    Ok(text
        .split([',', '\n', ' '])
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect())
}

fn time_of(text: &str) -> Option<jiff::Timestamp> {
    let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse().ok().or_else(|| day().map(|zoned| zoned.timestamp()))
}

/// The thresholds, and the filter with them and with what must not be learnt from.
fn filter_of(arguments: &FilterArguments) -> Result<(FilterConfig, Filter), CommandError> {
    let source = Source::named_or_default(arguments.config.clone());
    let config: FilterConfig = config::load_checked(&source, "ingest", FilterConfig::check)?;
    let evaluation = evaluation_set(&config, &arguments.evaluation_sets)?;
    Ok((config.clone(), Filter::new(config, evaluation)))
}

/// Filters files of rows into the output directory, and tells what became of them.
fn filter(
    files: &[&Path],
    arguments: &FilterArguments,
    (config, filter): (FilterConfig, Filter),
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let mut run = Run::begin(&filter, &arguments.out)?;
    let mut telling = Telling::new((host.now)());
    for file in files {
        let mut rows = open(file)?;
        let mut screen = Screen::new(out, host.terminal);
        let name = file.display().to_string();
        run.read(&name, &mut rows, |funnel| {
            // A screen that is gone is found out when the result is written.
            let _ = telling.tell(format!("{name}: {}", counts(funnel)), (host.now)(), &mut screen);
        })?;
        screen.wipe()?;
    }
    let repositories = run.repositories();
    let funnel = run.finish(&config)?;
    writeln!(out, "{}", funnel.text(host.columns()))?;
    let rows = arguments.out.join(ROWS_FILE);
    let accepted = plural(usize::try_from(funnel.accepted()).unwrap_or(usize::MAX), "row");
    writeln!(out, "\n{accepted} in {}; the others, with their reasons, beside it", rows.display())?;
    if repositories > 0 {
        let (named, file) = (repositories_of(repositories), arguments.out.join(REPOSITORIES_FILE));
        writeln!(out, "{named} worth collecting in {}, for bottega ingest github --repos", file.display())?;
    }
    Ok((funnel.accepted() > 0 || funnel.read() == 0 || repositories > 0).into())
}

fn repositories_of(count: usize) -> String {
    if count == 1 { "1 repository".to_owned() } else { format!("{count} repositories") }
}

fn counts(funnel: &Funnel) -> String {
    format!("{} read, {} accepted", funnel.read(), funnel.accepted())
}

/// Every row of the evaluation sets; one that is not understood ends the run, for leaving it out would let it pass.
fn evaluation_set(
    config: &FilterConfig,
    named: &[std::path::PathBuf],
) -> Result<EvaluationSet, CommandError> {
    let mut evaluation = EvaluationSet::default();
    for file in config.evaluation_sets.iter().chain(named) {
        let mut rows = open(file)?;
        let unreadable = |source| FilterError::Read { name: file.display().to_string(), source };
        while let Some(row) = rows.next_row().map_err(unreadable)? {
            let added = row.value.map_err(|why| why.to_string()).and_then(|value| evaluation.insert(&value));
            added.map_err(|why| {
                let why = format!("{}: {why}; name a file of rows as an evaluation set", row.place);
                unreadable(std::io::Error::other(why))
            })?;
        }
    }
    Ok(evaluation)
}

fn open(file: &Path) -> Result<Rows<'static>, CommandError> {
    Rows::open(file).map_err(|source| CommandError::Open { path: file.to_owned(), source })
}

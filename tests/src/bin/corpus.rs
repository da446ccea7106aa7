//! `corpus`: makes the corpus of real tasks, and holds a run's outcomes against what was expected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use queue_format::Spool;
use tests::corpus::{self, Downloader, Expectations, FETCH_IMAGE, Selection, Table};

#[derive(Parser)]
#[command(about = "The corpus of real tasks: tests/corpus/tasks.toml made into repositories and rows")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch what is missing and write DIR/tasks.jsonl, DIR/expected.json and DIR/repositories.
    Make {
        /// Only these tasks, by id.
        #[arg(long, value_delimiter = ',', value_name = "ID", conflicts_with_all = ["demo", "ci"])]
        only: Vec<String>,
        /// The handful of `make demo`.
        #[arg(long, conflicts_with = "ci")]
        demo: bool,
        /// The few of `make test`.
        #[arg(long)]
        ci: bool,
        /// Where everything goes; what lies there already is used again.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The base image whose pip downloads.
        #[arg(long, default_value = FETCH_IMAGE)]
        image: String,
    },
    /// Compare outcomes with expectations: a table; exit status 1 where one differs, 2 on an error.
    Check {
        /// expected.json of `corpus make`.
        #[arg(long, value_name = "FILE")]
        expected: PathBuf,
        /// The spool that the tasks went through.
        #[arg(long, value_name = "DIR", env = "BOTTEGA_SPOOL")]
        spool: PathBuf,
    },
    /// Print the tasks of the table.
    List,
    /// Print the table's lines for further releases of a package.
    Look {
        /// As its source distributions are called.
        package: String,
        /// One or more.
        versions: Vec<String>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("corpus: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let downloader = |image: &str| Downloader::new(image, &format!("corpus-{}", std::process::id()));
    match command {
        Command::Make { only, demo, ci, out, image } => {
            let selection = match (only.is_empty(), demo, ci) {
                (false, ..) => Selection::Only(only),
                (_, true, _) => Selection::Demo,
                (.., true) => Selection::Ci,
                _ => Selection::All,
            };
            let made = corpus::make(&Table::shipped()?, &selection, &downloader(&image), &out).await?;
            println!("source distributions: {} downloaded, {} reused", made.downloaded, made.cached);
            println!("tasks: {} made, {} reused", made.tasks - made.tasks_reused, made.tasks_reused);
            println!("dataset:      {}", made.dataset.display());
            println!("expectations: {}", made.expected.display());
            println!("submit with:  --repositories '{}'", made.repositories);
        }
        Command::Check { expected, spool } => {
            let outcomes = corpus::outcomes(&Spool::open(&spool)?)?;
            let comparison = corpus::compare(&read_expectations(&expected)?, &outcomes);
            println!("{comparison}");
            if !comparison.is_ok() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::List => list(&Table::shipped()?),
        Command::Look { package, versions } => {
            for line in corpus::look(&package, &versions, &downloader(FETCH_IMAGE)).await? {
                println!("{line}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(table: &Table) {
    let mut packages = BTreeMap::new();
    for task in &table.tasks {
        let marks = [(task.demo, " demo"), (task.ci, " ci")].map(|(is, mark)| if is { mark } else { "" });
        println!(
            "{:32} {:16} {} {} → {}{}",
            task.id,
            task.expected,
            task.package,
            task.base,
            task.fixed,
            marks.concat()
        );
        *packages.entry(&task.package).or_insert(0) += 1;
    }
    println!("{} tasks of {} packages", table.tasks.len(), packages.len());
}

fn read_expectations(path: &Path) -> anyhow::Result<Expectations> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what `corpus make` writes", path.display()))
}

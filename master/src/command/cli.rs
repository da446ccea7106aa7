use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use systemd::manual::FILES;

use super::operate::{
    CANCEL, DOCTOR, DRAIN, DoctorArguments, DrainArguments, EXPLAIN, ExplainArguments, FSCK, FsckArguments,
    HOLD, PAUSE, PauseArguments, RESUME, ResumeArguments, TasksArguments,
};
use super::run::{RUN, RunArguments};

/// Turns bug-fix pull requests into verified, executable environments.
#[derive(Debug, Parser)]
#[command(name = "bottega", version, max_term_width = 100, after_help = BEGIN, after_long_help = format!("{BEGIN}\n\n{EXIT_STATUS}\n\n{FILES}"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const BEGIN: &str = "\
To begin:
  bottega images build
  bottega init --spool /srv/spool
  bottega submit --spool /srv/spool --repositories '/mirrors/{owner}+{name}/repo' tasks.jsonl
  bottega up --spool /srv/spool --until-idle
  bottega export --spool /srv/spool --out dataset.jsonl";

const EXIT_STATUS: &str = "\
Exit status:
  0    all that was asked for is done
  1    not all of it; it says why
  2    the command line is wrong
  130  ended by Ctrl-C";

/// One subcommand a variant.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a spool: the directory that holds all tasks and results
    Init(SpoolArguments),
    /// Filter pull requests into rows for submit: split, scored, each rejection with its reason
    #[command(after_help = INGEST)]
    Ingest(IngestArguments),
    /// Publish the rows of datasets as tasks
    #[command(after_help = SUBMIT)]
    Submit(SubmitArguments),
    /// Publish any command as a task, or one for each line of a file
    #[command(after_help = RUN)]
    Run(RunArguments),
    /// Run master, worker and janitor on this machine, and show how they get on
    #[command(after_help = UP)]
    Up(UpArguments),
    /// Count tasks by state, class and reason; tell what workers do
    #[command(after_help = STATUS)]
    Status(StatusArguments),
    /// Tell of one task: where it is, why, what it cost, what to do
    #[command(after_help = SHOW)]
    Show(ShowArguments),
    /// Make an attempt of agents again from its journal: without model and engine, byte for byte
    #[command(after_help = REPLAY)]
    Replay(ReplayArguments),
    /// Make failed tasks (or such on hold) pending again, with a fresh budget of automatic retries
    #[command(after_help = RETRY)]
    Retry(RetryArguments),
    /// Set tasks aside for good, wherever they are
    #[command(after_help = CANCEL)]
    Cancel(TasksArguments),
    /// Park tasks until somebody resumes them
    #[command(after_help = HOLD)]
    Hold(TasksArguments),
    /// Keep every worker from claiming
    #[command(after_help = PAUSE)]
    Pause(PauseArguments),
    /// End the pause, or let tasks on hold go on
    #[command(after_help = RESUME)]
    Resume(ResumeArguments),
    /// Keep a node from claiming: it finishes what it has
    #[command(after_help = DRAIN)]
    Drain(DrainArguments),
    /// Tell why a task is where it is and not further, with a timeline
    #[command(after_help = EXPLAIN)]
    Explain(ExplainArguments),
    /// Measure the spool's file system, and tell what is wrong with it
    #[command(after_help = DOCTOR)]
    Doctor(DoctorArguments),
    /// Check every invariant of the spool; repair on demand
    #[command(after_help = FSCK)]
    Fsck(FsckArguments),
    /// Write the accepted environments as a dataset
    #[command(after_help = EXPORT)]
    Export(ExportArguments),
    /// Build and list the base images that environments begin with
    #[command(after_help = IMAGES)]
    Images(ImagesArguments),
    /// Print the effective configuration of the three daemons, or check a file
    #[command(after_help = CONFIG)]
    Config(ConfigArguments),
}

/// Which spool.
#[derive(Clone, Debug, Args)]
pub struct SpoolArguments {
    /// The spool's directory
    #[arg(long, value_name = "DIR", env = "BOTTEGA_SPOOL")]
    pub spool: PathBuf,
}

const INGEST: &str = "\
The thresholds are in the [ingest] section of the configuration; docs/ingest.md tells of every stage.

Examples:
  bottega ingest jsonl --out swe-gym swe-gym.jsonl.zst
  bottega ingest parquet --out rows --evaluation-set swe-bench-verified.parquet train-*.parquet
  BOTTEGA_GITHUB_TOKENS=one,two bottega ingest github --out pulls --search 'language:python stars:>1000' --since 2024-01-01
  bottega submit --spool /srv/spool --repositories '/mirrors/{owner}+{name}/repo' rows/rows.jsonl";

/// Arguments of `bottega ingest`.
#[derive(Debug, Args)]
pub struct IngestArguments {
    #[command(subcommand)]
    pub(super) source: IngestSource,
}

/// Where pull requests come from.
#[derive(Debug, Subcommand)]
pub(super) enum IngestSource {
    /// Files of rows: OpenSWE, SWE-bench, SWE-Gym, SWE-rebench, Multi-SWE-bench; or of GitHub's events, as GH Archive's
    #[command(visible_alias = "parquet")]
    Jsonl(RowsArguments),
    /// Merged pull requests of repositories on GitHub, or on a server with its API; interrupted, it goes on from there
    Github(GithubArguments),
}

/// Arguments of `bottega ingest github`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["repos", "search"]))]
pub(super) struct GithubArguments {
    #[command(flatten)]
    pub(super) filter: FilterArguments,
    /// A file of repositories, owner/name in each line
    #[arg(long, value_name = "FILE")]
    pub(super) repos: Option<PathBuf>,
    /// What a search for repositories finds, such as 'language:python stars:>1000'
    #[arg(long, value_name = "QUERY")]
    pub(super) search: Option<String>,
    /// Only pull requests that were opened since
    #[arg(long, value_name = "DATE")]
    pub(super) since: String,
    /// The REST API, such as https://forge.example/api/v3 of GitHub Enterprise
    #[arg(long, value_name = "URL", default_value = "https://api.github.com")]
    pub(super) api_url: String,
}

/// Arguments of `bottega ingest jsonl`.
#[derive(Debug, Args)]
pub(super) struct RowsArguments {
    #[command(flatten)]
    pub(super) filter: FilterArguments,
    /// Files of rows: one a line (JSONL) or one JSON document, plain or packed with gzip or zstd, or Parquet; the content
    /// tells
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
}

/// How pull requests are filtered, and where to.
#[derive(Debug, Args)]
pub(super) struct FilterArguments {
    /// The directory of what comes out: rows.jsonl, rejected.jsonl, funnel.json, funnel.svg, report.md
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// The thresholds are in its [ingest] section [default: /etc/bottega/bottega.toml where it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A file of rows that must not be learnt from, beside those of the configuration
    #[arg(long = "evaluation-set", value_name = "FILE")]
    pub(super) evaluation_sets: Vec<PathBuf>,
}

const SUBMIT: &str = "\
Rows are one a line (JSONL) or one JSON document, of OpenSWE, SWE-bench, SWE-Gym, SWE-rebench or Multi-SWE-bench.
Rows that are not valid are refused by line and field and kept in SPOOL/incoming/rejected/; the rest goes on.
Ids that the spool has already are skipped: submitting again is safe.

Examples:
  bottega submit --spool /srv/spool --repositories '/mirrors/{owner}+{name}/repo' tasks.jsonl
  bottega submit --spool /srv/spool --repositories '/mirrors/{repo}.git' --shard 200 --priority 3 --dry-run rows.jsonl
  zcat rows.jsonl.gz | bottega submit --spool /srv/spool --repositories 'https://forge.example/{repo}.git' -";

/// Arguments of `bottega submit`.
#[derive(Debug, Args)]
pub struct SubmitArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// Where repositories lie: a path or URL with {owner}, {name} or {repo}; without it each row names its own in
    /// "repository" or "repository_url"
    #[arg(long, value_name = "TEMPLATE")]
    pub(super) repositories: Option<String>,
    /// Of the tasks, 0 (first) to 9 [default: 5 for rows, their own for task files]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(super) priority: Option<u8>,
    /// Tasks in a shard, the directory that appears in pending/ at once; 200 as OpenSWE has them, say
    #[arg(long, value_name = "TASKS", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) shard: u16,
    /// Where base commits are looked for: in repositories on this machine, in all of them (servers are asked), in none
    #[arg(long, value_enum, value_name = "WHERE", default_value_t = CheckCommits::Here)]
    pub(super) check: CheckCommits,
    /// Only tell what would be published and refused
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Files of rows; - is the standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
}

/// In which repositories `bottega submit` looks for commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum CheckCommits {
    Here,
    All,
    None,
}

const UP: &str = "\
Ctrl-C ends all three: the worker hands back what it has begun, and the next run goes on from there. A second
Ctrl-C kills them.

Examples:
  bottega up --spool /srv/spool
  bottega up --spool /srv/spool --until-idle --table --config bottega.toml
  bottega up --spool /srv/spool --brain auto --config bottega.toml     # docs/agents.md";

/// Arguments of `bottega up`.
#[derive(Debug, Args)]
pub struct UpArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// End when nothing is pending, claimed, delayed or unread; the exit status is 0 whatever the verdicts
    #[arg(long)]
    pub(super) until_idle: bool,
    /// The daemons' configuration [default: /etc/bottega/bottega.toml where it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where this machine keeps logs, locks and work directories; on a local disk [default: /var/lib/bottega for
    /// root, else ~/.local/state/bottega]
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// Who makes environments: fixed rules, agents that ask a model, or agents where the rules cannot [default: what the
    /// configuration says]
    #[arg(long, value_parser = ["rules", "agents", "auto"])]
    pub(super) brain: Option<String>,
    /// At the end, show every settled task of the spool, not only those of this run
    #[arg(long)]
    pub(super) table: bool,
}

const STATUS: &str = "\
Examples:
  bottega status --spool /srv/spool --watch
  bottega status --spool /srv/spool --json | jq .failed_by_reason";

/// Arguments of `bottega status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// For programs; docs/status.md describes it
    #[arg(long)]
    pub(super) json: bool,
    /// Show it again every few seconds, until Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
}

const SHOW: &str = "\
Examples:
  bottega show pallets__click-12 --spool /srv/spool
  bottega show pallets__click-12 --spool /srv/spool --log with-fix | less
  bottega show pallets__click-12 --spool /srv/spool --conversation | less";

/// Arguments of `bottega show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// The task's id, or the path of its file
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Print a log of it instead: of the last attempt that has one
    #[arg(long, value_enum, conflicts_with = "json")]
    pub(super) log: Option<LogKind>,
    /// Print what agents were told and answered instead: of the last attempt that has a conversation
    #[arg(long, conflicts_with_all = ["json", "log"])]
    pub(super) conversation: bool,
    /// With --log or --conversation: of this attempt, such as a002
    #[arg(long, value_name = "TOKEN")]
    pub(super) attempt: Option<String>,
    /// For programs; docs/status.md describes it
    #[arg(long)]
    pub(super) json: bool,
}

/// Which log.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum LogKind {
    /// The image's build
    Build,
    /// The tests before the fix
    TestOnly,
    /// The tests with the fix
    WithFix,
    /// What a run printed
    Output,
}

const REPLAY: &str = "\
Attempts with brain = \"agents\" or \"auto\" keep a journal with their results. Every file comes out as it was, but for
cost.json, which tells wall time; the exit status is 0 if so.

Examples:
  bottega replay --spool /srv/spool pallets__click-12
  bottega replay --spool /srv/spool pallets__click-12 --attempt a002";

/// Arguments of `bottega replay`.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// The task's id
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// This attempt, such as a002 [default: the last that was recorded]
    #[arg(long, value_name = "TOKEN")]
    pub(super) attempt: Option<String>,
}

const RETRY: &str = "\
By hand:
  mv SPOOL/failed/build/*.json SPOOL/pending/5-build/
  mv SPOOL/failed/build/*/*.json SPOOL/pending/5-build/     # where thousands lie there, in directories

Examples:
  bottega retry --spool /srv/spool pallets__click-12
  bottega retry --spool /srv/spool --reason timeout
  bottega retry --spool /srv/spool --all";

/// Arguments of `bottega retry`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "reason", "all_failed"]))]
pub struct RetryArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// These tasks
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// All that failed for this reason, such as build or timeout
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// All that failed; with --reason, all of that reason
    #[arg(long, visible_alias = "all")]
    pub(super) all_failed: bool,
}

const EXPORT: &str = "\
Only official results are written: a task in done/ and the attempt that its name carries. The file appears whole or
not at all.

Examples:
  bottega export --spool /srv/spool --out dataset.jsonl
  bottega export --spool /srv/spool --format swebench --class strict,per-test --out - | gzip > rows.jsonl.gz";

/// Arguments of `bottega export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// What rows look like
    #[arg(long, value_enum, default_value = "openswe")]
    pub(super) format: RowFormat,
    /// The file; - is the standard output
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// Only these acceptance classes: strict, per-test, new-module, command [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CLASS")]
    pub(super) class: Vec<String>,
}

/// What rows look like.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum RowFormat {
    /// The submitted row, with Dockerfile, scripts, image and tests
    Openswe,
    /// The fields of a SWE-bench dataset, lists of tests as JSON strings
    Swebench,
}

const IMAGES: &str = "\
Providers are debian (mmdebstrap), prefix (interpreter trees of this host: pyenv's, and those that
BOTTEGA_PYTHON_PREFIXES names) and conda. BOTTEGA_PYTHON_PROVIDERS sets which are asked, and in which order.

Examples:
  bottega images list
  bottega images build
  bottega images build 3.9 3.11 --provider debian";

/// Arguments of `bottega images`.
#[derive(Debug, Args)]
pub struct ImagesArguments {
    #[command(subcommand)]
    pub(super) action: ImagesAction,
}

/// What to do with base images.
#[derive(Debug, Subcommand)]
pub(super) enum ImagesAction {
    /// Build the base images of these Pythons
    Build {
        /// Such as 3.9; none means all that this machine can provide
        #[arg(value_name = "VERSION")]
        versions: Vec<String>,
        /// Only by this provider: debian, prefix or conda
        #[arg(long)]
        provider: Option<String>,
        /// Make images again that are here already, say for newer Debian packages
        #[arg(long)]
        rebuild: bool,
        /// Where this machine keeps temporary files, up to 1 GB; on a local disk [default: /var/lib/bottega for root,
        /// else ~/.local/state/bottega]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// List every Python, whether its image is here, and who could provide it
    List,
}

const CONFIG: &str = "\
Examples:
  bottega config                           # what holds on this node
  bottega config check
  bottega config check bottega.toml";

/// Arguments of `bottega config`.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    #[command(subcommand)]
    pub(super) action: Option<ConfigAction>,
    /// The file to begin with [default: /etc/bottega/bottega.toml where it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
}

/// What else to do with a configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigAction {
    /// Check a file: every key must be known, every value fit; notes tell which paths are missing
    Check {
        /// The file; as well by --config
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
    },
}

//! The arguments of the commands that steer a running fleet and look into it. Each help says what it is by hand.

use clap::Args;

use super::cli::SpoolArguments;

pub(super) const CANCEL: &str = "\
The task goes to failed/cancelled/, wherever it is; a worker that has it ends its attempt within one heartbeat.
By hand, for the same effect:
  mkdir -p SPOOL/control/cancel && touch SPOOL/control/cancel/pallets__click-12
or, where no worker has it:
  mv SPOOL/pending/5-build/*/pallets__click-12.*.json SPOOL/failed/cancelled/

To have it done after all: bottega retry ID";

pub(super) const HOLD: &str = "\
Parked tasks are left alone until somebody moves them back; a worker that has one gives it up within one heartbeat.
By hand:
  mkdir -p SPOOL/hold/5-build
  mv SPOOL/pending/5-build/*/pallets__click-12.*.json SPOOL/hold/5-build/

To let it go on: bottega resume ID";

pub(super) const PAUSE: &str = "\
Work that has begun goes on to its end; bottega drain does the same for one node.
By hand:
  echo 'moving the file server' > SPOOL/control/pause

To end it: bottega resume";

pub(super) const RESUME: &str = "\
By hand:
  rm SPOOL/control/pause
  mv SPOOL/hold/5-build/pallets__click-12.*.json SPOOL/pending/5-build/

Examples:
  bottega resume --spool /srv/spool
  bottega resume --spool /srv/spool pallets__click-12";

pub(super) const DRAIN: &str = "\
By hand:
  mkdir -p SPOOL/control/drain && touch SPOOL/control/drain/node07
  rm SPOOL/control/drain/node07

Examples:
  bottega drain --spool /srv/spool node07
  bottega drain --spool /srv/spool --undo node07";

pub(super) const EXPLAIN: &str = "\
By hand: find SPOOL -name 'ID.*.json'; ls SPOOL/control SPOOL/nodes; grep '\"ID\"' SPOOL/log/*.jsonl*

Example:
  bottega explain --spool /srv/spool pallets__click-12";

pub(super) const DOCTOR: &str = "\
It makes some hundred small files under SPOOL/tmp/, moves them through every directory, and removes them.
By hand: findmnt -T SPOOL; df -h SPOOL; df -i SPOOL; date; touch SPOOL/tmp/x; stat SPOOL/tmp/x; rm SPOOL/tmp/x
The exit status is 1 where anything is an error.

Examples:
  bottega doctor --spool /srv/spool
  bottega doctor --spool /srv/spool --json | jq .measured.rename.median_seconds";

pub(super) const FSCK: &str = "\
Nothing is changed without --repair, and a spool may be checked while daemons work on it. Each repair is printed as
the mv (rmdir, rm of a leftover) that it is, so that it can be done by hand instead. No task is ever removed: what
cannot stay where it is goes to failed/badspec/, to pending/ again, or to incoming/rejected/ with a reason beside it.
The exit status is 1 where an error is left.

Examples:
  bottega fsck --spool /srv/spool
  bottega fsck --spool /srv/spool --names-only --json
  bottega fsck --spool /srv/spool --repair";

/// Arguments of `bottega cancel` and `bottega hold`.
#[derive(Debug, Args)]
pub struct TasksArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// The tasks' ids, or the paths of their files
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<String>,
}

/// Arguments of `bottega pause`.
#[derive(Debug, Args)]
pub struct PauseArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// What people are told who ask why nothing is claimed
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) reason: String,
}

/// Arguments of `bottega resume`.
#[derive(Debug, Args)]
pub struct ResumeArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// Tasks on hold, or delayed; none ends the pause
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
}

/// Arguments of `bottega drain`.
#[derive(Debug, Args)]
pub struct DrainArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// The nodes' names, as bottega status shows them
    #[arg(required = true, value_name = "NODE")]
    pub(super) nodes: Vec<String>,
    /// Let them claim again
    #[arg(long)]
    pub(super) undo: bool,
}

/// Arguments of `bottega explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// The task's id, or the path of its file
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Arguments of `bottega doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// For programs; docs/status.md describes it
    #[arg(long)]
    pub(super) json: bool,
    /// Renames that are timed
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub(super) renames: u32,
}

/// Arguments of `bottega fsck`.
#[derive(Debug, Args)]
pub struct FsckArguments {
    #[command(flatten)]
    pub(super) spool: SpoolArguments,
    /// Mend what can be mended by moving files
    #[arg(long)]
    pub(super) repair: bool,
    /// Read no file: quick, but damaged content stays unseen
    #[arg(long)]
    pub(super) names_only: bool,
    /// One object a line, for programs; docs/status.md describes it
    #[arg(long)]
    pub(super) json: bool,
}

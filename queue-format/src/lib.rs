//! The spool: what lies on disk, what it is called, and how it moves.
//!
//! A spool is one directory, on a local disk or on NFS. **Every state is a directory, every task one readable
//! JSON file, every change of state exactly one rename of one file.** There is no database, no journal and no
//! server; whoever can `ls`, `cat` and `mv` can see and steer everything.
//!
//! ```text
//! $SPOOL/
//!   spool.toml                               identity, format version, timing; written once
//!   incoming/                                files of rows that people drop; a master takes them
//!   incoming/rejected/                       rows that were refused, each file with its reasons beside it
//!   incoming/read/                           files that were read, for ten minutes: they may still grow
//!   tmp/<owner>/                             staging, never scanned
//!   tmp/<owner>/incoming/                    what one master has taken and not finished yet
//!   ledger/<source>/<n>/chunk.json           what publishers have taken on: each chunk of a source once
//!   inputs/<hh>/<digest>                     files that tasks begin with, each once, by the BLAKE3 of its content
//!   pending/<p>-<class>/<shard>/<task>       p = 0 (first) … 9; at most 4096 tasks a shard
//!   pending/<p>-<class>/<task>               also legal: what people `mv` here, files or directories of them
//!   delayed/<due>/<p>-<class>/<task>         waiting for a retry; <due> in seconds since 1970
//!   hold/<p>-<class>/<task>                  parked by a person; never scanned
//!   claimed/<owner>/<p>-<class>/<task>       the lease directory of one worker incarnation
//!   done/<verdict>/<hh>/<task>               <task> carries @<owner>; strict, per-test, new-module, command (of
//!                                            builds), completed (of runs)
//!   failed/<reason>/<task>                   the dead letters; once some 4096 lie there,
//!   failed/<reason>/<hh>/<task>              in 256 directories, so that `ls` and `mv *` still work
//!   results/<hh>/<id>/<token>/               one attempt's output; manifest.json last
//!   nodes/<owner>.<counter>                  heartbeats: the *name* counts; empty files
//!   nodes/gone/                              the last beats of those that were given up
//!   control/                                 what people ask of all daemons at once ([`Control`]): pause,
//!                                            drain/<node>, cancel/<id>, limits.toml
//!   log/<owner>.jsonl                        what happened, one writer a file ([`EventLog`])
//!   spend/<owner>.json                       what models have cost, one writer a file ([`Spend`])
//!   status/                                  what the daemons last said; never needed to continue
//! ```
//!
//! A task file is called `<id>.a<NNN>[@<owner>].r<N>.json` ([`TaskName`]). `a` counts the claims so far and is
//! the **fencing token**: raised by every claim, never lowered. `r` counts automatic retries. `<owner>` is
//! `<node>~<incarnation>`, never used twice ([`Owner`]).
//!
//! `<class>` is the kind of work (`build`, `run`, `native`), and for runs what they need, as in `run-2c-4096m`
//! ([`Class`]): workers claim from those classes only that fit their slots.
//!
//! A result is official if and only if a name in `done/` carries its token; everything else under `results/`
//! is a report about an attempt that failed or was overtaken.
//!
//! Nothing here prints, reads the environment or the clock: time, randomness and host names are arguments.

mod attempt;
mod building;
mod claim;
mod class;
mod control;
mod counts;
mod cpu_set;
mod doctor;
mod error;
mod event;
mod evidence;
mod files;
mod filesystem;
mod find;
mod fsck;
mod heartbeat;
mod id;
mod incoming;
mod inputs;
mod instance;
mod judge;
mod known;
mod labels;
mod layout;
mod lease;
mod ledger;
mod limits;
mod litter;
mod liveness;
mod log;
mod manifest;
mod name;
mod node;
mod owner;
mod presence;
mod publish;
mod reap;
mod reason;
mod reference;
mod rejects;
mod retry;
mod run_task;
mod settling;
mod shelf;
mod spec;
mod spend;
mod spool;
mod status;
mod steer;
mod tally;
mod timing;

pub use building::{BUILD_WAIT_MAX, BuildGate, Building, Emergency, NoBuilds};
pub use claim::{Claim, ClaimError, RETRIES_MAX};
pub use class::{Class, Shape};
pub use control::Control;
pub use counts::Counts;
pub use cpu_set::{CpuSet, CpuSetError};
pub use doctor::{Diagnosis, Measured, Mount, Space, Spread, Symptom};
pub use error::{PathError, SpoolError};
pub use event::{Event, LoggedEvent};
pub use evidence::{Condition, EVIDENCE_FILE, Evidence, RunEnd, RunRecord, TestStatus, Transitions};
pub use filesystem::{Disk, Entry, EntryKind, Filesystem, NewFile, OpenFile};
pub use find::{Located, State, WaitingImages};
pub use fsck::{Check, Checked, Depth, Finding, Severity, Step};
pub use heartbeat::Heartbeat;
pub use id::{InvalidId, TaskId};
pub use incoming::{Dropped, Intake, READ_KEPT, Taken, Unread};
pub use inputs::{Digest, INPUT_BYTES_MAX, InputError, InvalidDigest};
pub use instance::{Instance, InvalidInstance};
pub use judge::Judge;
pub use known::Known;
pub use labels::{LABEL_NODE, LABEL_OBJECT, LABEL_SPOOL, LABEL_TASK, LABEL_TOKEN, Labels, image_name};
pub use layout::Layout;
pub use lease::{Lease, Next, Revocation};
pub use ledger::{Ledger, LedgerEntry, ObjectKind};
pub use limits::{Limits, Room};
pub use litter::{Litter, LitterAges, LitterKind};
pub use liveness::{Life, LifeLock};
pub use log::EventLog;
pub use manifest::{
    AgentsRecord, BuildReport, COMMANDS_FILE, CONVERSATION_FILE, CommandRecord, JOURNAL_FILE, MANIFEST_FILE,
    Manifest, OUTPUT_FILE, PythonRecord, RunReport, StageRecord, WorkReport,
};
pub use name::{InvalidName, TaskName, Token};
pub use node::{NodeRecord, PressureOf};
pub use owner::{Incarnation, InvalidOwner, Owner, node_name};
pub use presence::{Deceased, Presence, Watch};
pub use publish::{CHUNK_TASKS_MAX, Published, Publisher};
pub use reap::Reaped;
pub use reason::{AcceptanceClass, DoneClass, FailureReason, Verdict};
pub use reference::repository_and_tag;
pub use rejects::Rejects;
pub use retry::Retried;
pub use run_task::{COMMANDS_MAX, InputFile, InvalidRun, RunTask, output_name};
pub use settling::Settling;
pub use spec::{BuildTask, InvalidSpec, Resources, TASK_FILE_BYTES_MAX, TaskSpec, Work};
pub use spend::Spend;
pub use spool::{Spool, SpoolId};
pub use status::{Pace, SlotActivity, SlotStatus, Summary, WorkerStatus};
pub use steer::Cancelled;
pub use tally::Tally;
pub use timing::Timing;

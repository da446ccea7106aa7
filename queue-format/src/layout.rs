use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::{Class, Digest, DoneClass, FailureReason, Owner, TaskId, Token};

/// Where everything lies in a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the spool at `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The spool's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The spool's identity.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.root.join("spool.toml")
    }

    /// Where people drop files of rows.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Rows that were refused, with their reasons beside them.
    #[must_use]
    pub fn rejected(&self) -> PathBuf {
        self.root.join("incoming/rejected")
    }

    /// Files of rows that were read, for a while.
    #[must_use]
    pub fn read(&self) -> PathBuf {
        self.root.join("incoming/read")
    }

    /// All staging areas.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// One process's staging area.
    #[must_use]
    pub fn staging(&self, owner: &Owner) -> PathBuf {
        self.tmp().join(owner.to_string())
    }

    /// What one master has taken from `incoming/` and not finished yet.
    #[must_use]
    pub fn intake(&self, owner: &Owner) -> PathBuf {
        self.staging(owner).join("incoming")
    }

    /// What publishers have taken on.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// The chunks of one source.
    #[must_use]
    pub fn ledger_of(&self, source: Uuid) -> PathBuf {
        self.ledger().join(source.simple().to_string())
    }

    /// Files that tasks begin with, each kept once.
    #[must_use]
    pub fn inputs(&self) -> PathBuf {
        self.root.join("inputs")
    }

    /// One of them.
    #[must_use]
    pub fn input(&self, digest: &Digest) -> PathBuf {
        self.inputs().join(digest.bucket()).join(digest.as_str())
    }

    /// Tasks that wait for a worker.
    #[must_use]
    pub fn pending(&self) -> PathBuf {
        self.root.join("pending")
    }

    /// What a chunk of a source brings to one class.
    #[must_use]
    pub(crate) fn shard(&self, class: &Class, source: Uuid, chunk: &str) -> PathBuf {
        self.pending_class(class).join(format!("{}-{chunk}", source.simple()))
    }

    /// Where tasks of one class wait.
    #[must_use]
    pub fn pending_class(&self, class: &Class) -> PathBuf {
        self.pending().join(class.to_string())
    }

    /// Tasks that wait for a time.
    #[must_use]
    pub fn delayed(&self) -> PathBuf {
        self.root.join("delayed")
    }

    /// Tasks parked by a person.
    #[must_use]
    pub fn hold(&self) -> PathBuf {
        self.root.join("hold")
    }

    /// All lease directories.
    #[must_use]
    pub fn claimed(&self) -> PathBuf {
        self.root.join("claimed")
    }

    /// The lease directory of one worker incarnation.
    #[must_use]
    pub fn lease(&self, owner: &Owner) -> PathBuf {
        self.claimed().join(owner.to_string())
    }

    /// Accepted tasks.
    #[must_use]
    pub fn done(&self) -> PathBuf {
        self.root.join("done")
    }

    /// The accepted tasks of one class.
    #[must_use]
    pub fn done_of(&self, class: DoneClass) -> PathBuf {
        self.done().join(class.as_str())
    }

    /// Where one accepted task lies.
    #[must_use]
    pub fn done_bucket(&self, class: DoneClass, id: &TaskId) -> PathBuf {
        self.done_of(class).join(id.bucket())
    }

    /// The dead letters.
    #[must_use]
    pub fn failed(&self) -> PathBuf {
        self.root.join("failed")
    }

    /// The dead letters of one reason.
    #[must_use]
    pub fn failed_for(&self, reason: FailureReason) -> PathBuf {
        self.failed().join(reason.as_str())
    }

    /// What all attempts came to.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// All attempts of one task.
    #[must_use]
    pub fn attempts(&self, id: &TaskId) -> PathBuf {
        self.results().join(id.bucket()).join(id.as_str())
    }

    /// One attempt's output.
    #[must_use]
    pub fn attempt(&self, id: &TaskId, token: Token) -> PathBuf {
        self.attempts(id).join(token.to_string())
    }

    /// The heartbeats.
    #[must_use]
    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// The last heartbeats of those that were given up.
    #[must_use]
    pub fn nodes_gone(&self) -> PathBuf {
        self.nodes().join("gone")
    }

    /// What the daemons last said.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.root.join("status")
    }

    /// What each worker last said.
    #[must_use]
    pub fn worker_status(&self) -> PathBuf {
        self.status().join("workers")
    }

    /// What people ask of all daemons at once.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// While this file is there, nobody claims.
    #[must_use]
    pub fn pause(&self) -> PathBuf {
        self.control().join("pause")
    }

    /// Nodes that are to claim no more; made when it is first needed.
    #[must_use]
    pub fn drained(&self) -> PathBuf {
        self.control().join("drain")
    }

    /// Tasks that are to be set aside; made when it is first needed.
    #[must_use]
    pub fn cancelled(&self) -> PathBuf {
        self.control().join("cancel")
    }

    /// How much may be claimed at once.
    #[must_use]
    pub fn limits(&self) -> PathBuf {
        self.control().join("limits.toml")
    }

    /// What happened, a file for each incarnation.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// What one incarnation did.
    #[must_use]
    pub fn log(&self, owner: &Owner) -> PathBuf {
        self.logs().join(format!("{owner}.jsonl"))
    }

    /// What models have cost, a file for each incarnation.
    #[must_use]
    pub fn spends(&self) -> PathBuf {
        self.root.join("spend")
    }

    /// What models have cost one incarnation.
    #[must_use]
    pub fn spend(&self, owner: &Owner) -> PathBuf {
        self.spends().join(format!("{owner}.json"))
    }

    /// Every directory that a spool begins with.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let plain = [
            "tmp", "incoming", "pending", "delayed", "hold", "claimed", "done", "failed", "results",
            "status", "nodes", "ledger", "control", "log", "inputs", "spend",
        ];
        let mut all: Vec<PathBuf> = plain.iter().map(|name| self.root.join(name)).collect();
        all.push(self.rejected());
        all.push(self.read());
        all.push(self.nodes_gone());
        all.push(self.worker_status());
        all.push(self.pending().join("5-build"));
        all.extend(DoneClass::all().map(|class| self.done_of(class)));
        all.extend(FailureReason::ALL.iter().map(|reason| self.failed_for(*reason)));
        all
    }
}

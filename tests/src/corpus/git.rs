//! git by its command line, deaf to the configuration of whoever runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;

use super::CorpusError;

const AUTHOR_NAME: &str = "Bottega corpus";
const AUTHOR_EMAIL: &str = "corpus@bottega.invalid";

/// A bare repository.
#[derive(Clone, Debug)]
pub(super) struct Git {
    directory: PathBuf,
}

impl Git {
    /// Opens the bare repository at `directory`; makes it where there is none.
    pub(super) fn open(directory: &Path) -> Result<Self, CorpusError> {
        let git = Self { directory: directory.to_owned() };
        if !directory.join("HEAD").exists() {
            std::fs::create_dir_all(directory).map_err(CorpusError::io("create", directory))?;
            git.run(&["init", "--quiet", "--bare", "--initial-branch=main", "."], &[])?;
        }
        Ok(git)
    }

    /// Runs a subcommand, with further environment variables; gives its standard output without the last newline.
    pub(super) fn run(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<String, CorpusError> {
        let mut command = Command::new("git");
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
            command.env_remove(variable);
        }
        let output = command
            .args([
                "-c",
                "core.autocrlf=false",
                "-c",
                "core.fileMode=true",
                "-c",
                "core.attributesFile=/dev/null",
            ])
            .args(["-c", "safe.directory=*", "-c", "gc.auto=0"])
            .args(arguments)
            .current_dir(&self.directory)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("LC_ALL", "C")
            .envs(environment.iter().copied())
            .output()
            .map_err(CorpusError::NoGit)?;
        let failed = |stderr: String| CorpusError::Git {
            command: arguments.first().copied().unwrap_or_default().to_owned(),
            repository: self.directory.clone(),
            stderr,
        };
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let text =
            String::from_utf8(output.stdout).map_err(|error| failed(format!("its output: {error}")))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Commits everything below `tree`, ignored files too; the id depends on nothing but the arguments.
    pub(super) fn commit(
        &self,
        tree: &Path,
        parent: Option<&str>,
        message: &str,
        at: Timestamp,
    ) -> Result<String, CorpusError> {
        let index =
            tempfile::tempdir().map_err(CorpusError::io("create a directory in", &std::env::temp_dir()))?;
        let (index, tree) = (index.path().join("index"), tree.display().to_string());
        let place = [
            ("GIT_INDEX_FILE", index.to_str().unwrap_or_default()),
            ("GIT_WORK_TREE", tree.as_str()),
            ("GIT_DIR", self.directory.to_str().unwrap_or_default()),
        ];
        self.run(&["add", "--all", "--force", &tree], &place)?;
        let written = self.run(&["write-tree"], &place)?;
        let date = format!("{} +0000", at.as_second());
        let identity = [
            ("GIT_AUTHOR_NAME", AUTHOR_NAME),
            ("GIT_AUTHOR_EMAIL", AUTHOR_EMAIL),
            ("GIT_AUTHOR_DATE", date.as_str()),
            ("GIT_COMMITTER_NAME", AUTHOR_NAME),
            ("GIT_COMMITTER_EMAIL", AUTHOR_EMAIL),
            ("GIT_COMMITTER_DATE", date.as_str()),
        ];
        let mut arguments = vec!["commit-tree", "-m", message];
        arguments.extend(parent.iter().flat_map(|parent| ["-p", parent]));
        arguments.push(&written);
        self.run(&arguments, &identity)
    }

    /// The patch between two commits, of the given paths alone; ends with a newline.
    pub(super) fn diff(&self, from: &str, to: &str, paths: &[&str]) -> Result<String, CorpusError> {
        let mut arguments = vec![
            "diff",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--no-renames",
            "--full-index",
            "--binary",
            "--diff-algorithm=myers",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            from,
            to,
            "--",
        ];
        arguments.extend(paths);
        let patch = self.run(&arguments, &[("GIT_LITERAL_PATHSPECS", "1")])?;
        Ok(if patch.is_empty() { patch } else { patch + "\n" })
    }

    /// Points a reference at a commit, whatever it pointed at.
    pub(super) fn point(&self, reference: &str, commit: &str) -> Result<(), CorpusError> {
        self.run(&["update-ref", reference, commit], &[]).map(drop)
    }

    /// Whether a reference points at that commit, and the commit is there.
    pub(super) fn points(&self, reference: &str, commit: &str) -> bool {
        let named = format!("{reference}^{{commit}}");
        self.run(&["rev-parse", "--verify", "--quiet", &named], &[]).is_ok_and(|seen| seen == commit)
    }
}

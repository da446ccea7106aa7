use std::path::{Path, PathBuf};

/// What can go wrong while the corpus is made; each message names the package, the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The table is not valid TOML, or has unknown or missing fields.
    #[error("tests/corpus/tasks.toml does not parse: mend the line that is named")]
    TableSyntax(#[source] toml::de::Error),
    /// The table parses, but an entry is not usable.
    #[error("tests/corpus/tasks.toml, {entry}: {why}")]
    TableEntry {
        /// The task or package.
        entry: String,
        /// What is wrong, and what is expected.
        why: String,
    },
    /// A selection names a task that the table does not have.
    #[error("there is no task {0:?} in tests/corpus/tasks.toml: `corpus list` prints those there are")]
    UnknownTask(String),
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A JSON file of the corpus directory is not what this program writes.
    #[error("{} is not valid: delete it and run `corpus make` again", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The container that downloads could not be run.
    #[error(
        "cannot {action} to download {files}: is the Docker daemon running, and may this user reach its socket? \
         Without Docker, put the files into {} by hand", directory.display()
    )]
    Engine {
        /// What was asked of the engine.
        action: &'static str,
        /// Which files are missing.
        files: String,
        /// Where they may be put instead.
        directory: PathBuf,
        /// What the engine said.
        source: Box<bollard::errors::Error>,
    },
    /// The image that has pip in it is not there.
    #[error(
        "the image {image} is missing, which downloads {files}: run `bottega images build 3.11`, \
         or put the files into {} by hand", directory.display()
    )]
    NoImage {
        /// The image.
        image: String,
        /// Which files are missing.
        files: String,
        /// Where they may be put instead.
        directory: PathBuf,
    },
    /// The program in the container failed, or left out a file.
    #[error("downloading failed: {why}: see that pip on this host reaches its index, or put the files into {} by hand", directory.display())]
    Download {
        /// What it said, a line a file.
        why: String,
        /// Where the files may be put instead.
        directory: PathBuf,
    },
    /// Ctrl-C while downloading.
    #[error("interrupted while downloading; nothing is left running, and the next call goes on")]
    Interrupted,
    /// An archive is not the one the table was written for.
    #[error(
        "{package}: {} has sha256 {seen}, the table says {expected}: delete it and run again; \
         if it stays so, the release was changed and its tasks must be looked at anew", path.display()
    )]
    Digest {
        /// The package.
        package: String,
        /// The archive.
        path: PathBuf,
        /// What it has.
        seen: String,
        /// What the table says.
        expected: String,
    },
    /// An archive holds something that an honest source distribution does not.
    #[error("{package}: {} is refused: {why}", path.display())]
    Archive {
        /// The package.
        package: String,
        /// The archive.
        path: PathBuf,
        /// Which entry, and why.
        why: String,
    },
    /// A file that the table lists is not as the table expects.
    #[error("task {task}: {file}: {why}")]
    Listed {
        /// The task.
        task: String,
        /// The path in the tree.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// git could not be started.
    #[error("cannot run git: install it (Debian: apt-get install git)")]
    NoGit(#[source] std::io::Error),
    /// git failed.
    #[error("git {command} failed in {}: {stderr}: delete that directory and run again", repository.display())]
    Git {
        /// Its subcommand.
        command: String,
        /// Where.
        repository: PathBuf,
        /// What it said.
        stderr: String,
    },
}

impl CorpusError {
    /// For `map_err` on an I/O call.
    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

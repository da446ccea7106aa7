//! The git command line, as a worker calls it: no configuration of the host, no prompt, no hook, none of the worker's
//! environment but what it needs, bounded in time and output.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What git may talk to; `ext::` and the like would run commands.
const PROTOCOLS: &str = "file:git:http:https:ssh";

/// What git, and the ssh and the HTTP client that it calls, need of this process's environment. The rest stays here:
/// it may have keys in it, and a repository decides what git does.
const KEPT: [&str; 18] = [
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "TZ",
];

/// The most of git's error output that is kept, in bytes.
const STDERR_BYTES_MAX: usize = 4096;

/// Why a git command failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It said no.
    #[error("git {command} in {}: {stderr}", dir.display())]
    Refused {
        /// Its first words.
        command: String,
        /// Where it ran.
        dir: PathBuf,
        /// The end of what it printed.
        stderr: String,
    },
    /// It could not be started.
    #[error("cannot run git: {0}; install git")]
    Missing(std::io::Error),
    /// It took too long.
    #[error("git {command} in {} did not end within {seconds} s", dir.display())]
    TimedOut {
        /// Its first words.
        command: String,
        /// Where it ran.
        dir: PathBuf,
        /// Its limit.
        seconds: u64,
    },
}

/// A git command line in one directory.
#[derive(Clone, Debug)]
pub struct Git {
    dir: PathBuf,
    timeout: Duration,
    environment: Vec<(String, OsString)>,
}

impl Git {
    /// Commands that run in `dir`, each for at most `timeout`.
    #[must_use]
    pub fn new(dir: &Path, timeout: Duration) -> Self {
        Self { dir: dir.to_owned(), timeout, environment: Vec::new() }
    }

    /// The same, but whatever it writes goes to an index and an object store in `scratch`, an existing directory.
    #[must_use]
    pub fn writing_to(&self, scratch: &Path) -> Self {
        let mut git = self.clone();
        let objects = self.dir.join(".git/objects");
        let set = |name: &str, path: PathBuf| (name.to_owned(), path.into_os_string());
        git.environment.push(set("GIT_INDEX_FILE", scratch.join("index")));
        git.environment.push(set("GIT_OBJECT_DIRECTORY", scratch.to_owned()));
        git.environment.push(set("GIT_ALTERNATE_OBJECT_DIRECTORIES", objects));
        git
    }

    /// The same, but it also reads the objects of another repository.
    #[must_use]
    pub fn seeing(&self, objects: &Path) -> Self {
        let mut git = self.clone();
        git.environment.push(("GIT_ALTERNATE_OBJECT_DIRECTORIES".to_owned(), objects.into()));
        git
    }

    /// The same, but commits are made at this time, as git writes times, by nobody in particular.
    #[must_use]
    pub fn dated(&self, date: &str) -> Self {
        let mut git = self.clone();
        for who in ["AUTHOR", "COMMITTER"] {
            git.environment.push((format!("GIT_{who}_DATE"), date.into()));
            git.environment.push((format!("GIT_{who}_NAME"), "bottega".into()));
            git.environment.push((format!("GIT_{who}_EMAIL"), "bottega@localhost".into()));
        }
        git
    }

    /// Runs a command and gives its standard output, without the last newline.
    ///
    /// # Errors
    /// It failed, or took too long.
    pub async fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String, GitError> {
        self.run_with_input(args, b"").await
    }

    /// Runs a command that reads `input`.
    ///
    /// # Errors
    /// It failed, or took too long.
    pub async fn run_with_input<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        input: &[u8],
    ) -> Result<String, GitError> {
        let shown = || {
            let words =
                args.iter().map(|arg| arg.as_ref().to_string_lossy()).filter(|word| !word.starts_with('-'));
            words.take(1).collect::<String>()
        };
        let ended = tokio::time::timeout(self.timeout, self.spawn_and_wait(args, input)).await;
        let output = match ended {
            Ok(output) => output.map_err(GitError::Missing)?,
            Err(_) => {
                let seconds = self.timeout.as_secs();
                return Err(GitError::TimedOut { command: shown(), dir: self.dir.clone(), seconds });
            }
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
        }
        let stderr = &output.stderr[output.stderr.len().saturating_sub(STDERR_BYTES_MAX)..];
        let stderr = String::from_utf8_lossy(stderr).trim().to_owned();
        Err(GitError::Refused { command: shown(), dir: self.dir.clone(), stderr })
    }

    async fn spawn_and_wait<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        input: &[u8],
    ) -> std::io::Result<std::process::Output> {
        let mut child = self.command(args).spawn()?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command that does not want its input closes the pipe; its exit status tells.
                let _ = stdin.write_all(input).await;
            }
        };
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        output
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.dir)
            .args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"])
            .args(["-c", "core.logAllRefUpdates=false", "-c", "advice.detachedHead=false"])
            .args(["-c", "protocol.file.allow=always"])
            .args(args)
            .env_clear()
            .envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("LC_ALL", "C")
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

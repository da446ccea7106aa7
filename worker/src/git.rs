//! The git command line, as a worker calls it: no configuration of the host, no prompt, no hook, none of the worker's
//! environment but what it needs, bounded in time and output.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

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

/// The most of git's error output that is kept, in bytes; a server may send as much of it as it likes.
const STDERR_BYTES_MAX: usize = 4096;

/// The most that git may print: the files of a commit are named in less.
const STDOUT_BYTES_MAX: usize = 256 << 20;

/// What git says where the node, not what it was asked for, is at fault; lower case.
const NODES_WORDS: [&str; 21] = [
    "no space left on device",
    "disk quota exceeded",
    "input/output error",
    "read-only file system",
    "stale file handle",
    "cannot allocate memory",
    "out of memory",
    "too many open files",
    "resource temporarily unavailable",
    "could not resolve host",
    "unable to look up",
    "temporary failure in name resolution",
    "network is unreachable",
    "no route to host",
    "connection refused",
    "connection timed out",
    "connection reset",
    "failed to connect",
    "unable to create thread",
    "operation too slow",
    "operation timed out",
];

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
    /// Somebody ended it, such as a kernel without memory.
    #[error("git {command} in {} was killed by signal {signal}", dir.display())]
    Killed {
        /// Its first words.
        command: String,
        /// Where it ran.
        dir: PathBuf,
        /// By what.
        signal: i32,
    },
    /// It printed too much.
    #[error("git {command} in {} printed more than {STDOUT_BYTES_MAX} bytes", dir.display())]
    TooMuch {
        /// Its first words.
        command: String,
        /// Where it ran.
        dir: PathBuf,
    },
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

impl GitError {
    /// What git said, where it was git that said no, and not the node that failed it.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        let Self::Refused { stderr, .. } = self else { return None };
        let said = stderr.to_ascii_lowercase();
        (!NODES_WORDS.iter().any(|words| said.contains(words))).then_some(stderr)
    }
}

/// A git command line in one directory.
#[derive(Clone, Debug)]
pub struct Git {
    dir: PathBuf,
    timeout: Duration,
    options: Vec<String>,
    alternates: Vec<PathBuf>,
    environment: Vec<(String, OsString)>,
}

impl Git {
    /// Commands that run in `dir`, each for at most `timeout`.
    #[must_use]
    pub fn new(dir: &Path, timeout: Duration) -> Self {
        let (options, alternates, environment) = (Vec::new(), Vec::new(), Vec::new());
        Self { dir: dir.to_owned(), timeout, options, alternates, environment }
    }

    /// The same, but each for at most `timeout`.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// The same, with a key of git's configuration set.
    #[must_use]
    pub fn set(&self, key: &str, value: &str) -> Self {
        let mut git = self.clone();
        git.options.extend(["-c".to_owned(), format!("{key}={value}")]);
        git
    }

    /// The same, but whatever it writes goes to an index and an object store in `scratch`, an existing directory.
    #[must_use]
    pub fn writing_to(&self, scratch: &Path) -> Self {
        let mut git = self.clone();
        let objects = self.dir.join(".git/objects");
        let set = |name: &str, path: PathBuf| (name.to_owned(), path.into_os_string());
        git.environment.push(set("GIT_INDEX_FILE", scratch.join("index")));
        git.environment.push(set("GIT_OBJECT_DIRECTORY", scratch.to_owned()));
        git.seeing(&objects)
    }

    /// The same, but it also reads the objects of another repository.
    #[must_use]
    pub fn seeing(&self, objects: &Path) -> Self {
        let mut git = self.clone();
        git.alternates.push(objects.to_owned());
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
        let printed = self.bytes(args, input).await?;
        Ok(String::from_utf8_lossy(&printed).trim_end_matches('\n').to_owned())
    }

    /// The same, as it was printed: names in a repository may be no UTF-8.
    ///
    /// # Errors
    /// It failed, or took too long.
    pub async fn bytes<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> Result<Vec<u8>, GitError> {
        let words =
            args.iter().map(|arg| arg.as_ref().to_string_lossy()).filter(|word| !word.starts_with('-'));
        let (command, dir) = (words.take(1).collect::<String>(), self.dir.clone());
        let ended = tokio::time::timeout(self.timeout, self.spawn_and_wait(args, input)).await;
        let Ok(ended) = ended else {
            return Err(GitError::TimedOut { command, dir, seconds: self.timeout.as_secs() });
        };
        let Output { status, stdout, stderr } = ended.map_err(GitError::Missing)?;
        let Some(stdout) = stdout else { return Err(GitError::TooMuch { command, dir }) };
        if status.success() {
            return Ok(stdout);
        }
        if let Some(signal) = status.signal() {
            return Err(GitError::Killed { command, dir, signal });
        }
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(GitError::Refused { command, dir, stderr })
    }

    async fn spawn_and_wait<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> std::io::Result<Output> {
        let mut command = tokio::process::Command::from(self.command(args));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut group = Group(child.id());
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command that does not want its input closes the pipe; its exit status tells.
                let _ = stdin.write_all(input).await;
            }
        };
        let ((), stdout, stderr) = tokio::join!(feed, begin_of(stdout), end_of(stderr));
        let status = child.wait().await?;
        group.0 = None;
        Ok(Output { status, stdout: stdout?, stderr: stderr? })
    }

    /// The command itself, for who reads what it prints while it runs, and sees to it that it ends.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.dir)
            .args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"])
            .args(["-c", "core.logAllRefUpdates=false", "-c", "advice.detachedHead=false"])
            .args(["-c", "protocol.file.allow=always", "-c", "core.attributesFile=/dev/null"])
            .args(&self.options)
            .args(args)
            .env_clear()
            .envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            // A repository that is a partial clone would ask its remote for one missing object after the other.
            .env("GIT_NO_LAZY_FETCH", "1")
            // A commit is what its name says, whatever a repository would have in its place.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("LC_ALL", "C")
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", path_list(&self.alternates))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .process_group(0);
        command
    }
}

/// As git reads lists of paths: a colon parts them, unless they are quoted.
fn path_list(paths: &[PathBuf]) -> OsString {
    let quoted = paths.iter().map(|path| {
        let bytes = path.as_os_str().as_bytes();
        let escaped = bytes.iter().flat_map(|byte| {
            let backslash = matches!(byte, b'"' | b'\\').then_some(b'\\');
            backslash.into_iter().chain([*byte])
        });
        [b"\"", &escaped.collect::<Vec<_>>()[..], b"\""].concat()
    });
    OsStr::from_bytes(&quoted.collect::<Vec<_>>().join(&b':')).to_owned()
}

/// What became of a command.
struct Output {
    status: ExitStatus,
    /// `None`: it was too much.
    stdout: Option<Vec<u8>>,
    /// The end of it.
    stderr: Vec<u8>,
}

/// The process group of a command that is not waited for to its end: its helpers would write on after it.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Nobody has waited for its first process yet, so the number is still its own.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

async fn begin_of(reader: Option<impl AsyncRead + Unpin>) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(reader) = reader {
        reader.take(STDOUT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() <= STDOUT_BYTES_MAX).then_some(bytes))
}

async fn end_of(reader: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let (mut kept, mut part) = (Vec::new(), [0; STDERR_BYTES_MAX]);
    if let Some(mut reader) = reader {
        loop {
            let count = reader.read(&mut part).await?;
            if count == 0 {
                break;
            }
            kept.extend_from_slice(&part[..count]);
            kept.drain(..kept.len().saturating_sub(STDERR_BYTES_MAX));
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(timeout: Duration) -> (tempfile::TempDir, Git) {
        let dir = tempfile::tempdir().expect("a directory");
        let git = Git::new(dir.path(), timeout);
        (dir, git)
    }

    #[tokio::test]
    async fn of_what_goes_wrong_the_end_is_kept() {
        let (_dir, git) = git(Duration::from_secs(60));
        let alias = "alias.x=!i=0; while [ $i -lt 9999 ]; do echo line $i >&2; i=$((i+1)); done; exit 3";
        let error = git.run(&["-c", alias, "x"]).await.expect_err("it says no");
        let said = error.refusal().expect("a refusal");
        assert!(said.len() <= STDERR_BYTES_MAX && said.ends_with("line 9998"), "{said}");
    }

    #[tokio::test]
    async fn a_helper_does_not_outlive_its_command() {
        let (dir, git) = git(Duration::from_millis(300));
        let file = dir.path().join("beats");
        let alias = "alias.x=!sh -c 'while :; do echo >> beats; sleep 0.05; done' & wait";
        let error = git.run(&["-c", alias, "x"]).await.expect_err("it does not end");
        assert!(matches!(error, GitError::TimedOut { .. }), "{error}");
        let beats = || std::fs::metadata(&file).map_or(0, |file| file.len());
        // It may be in the middle of one, and of being killed.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = beats();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(beats(), before);
    }

    #[tokio::test]
    async fn what_the_node_lacks_is_no_refusal() {
        let (_dir, git) = git(Duration::from_secs(60));
        let check = async |script: &str, expected: Option<&str>| {
            let error = git.run(&["-c", &format!("alias.x=!{script}"), "x"]).await.expect_err("it fails");
            assert_eq!(error.refusal(), expected, "{error}");
        };
        check("echo 'fatal: no such path' >&2; exit 1", Some("fatal: no such path")).await;
        check("echo 'fatal: write error: No space left on device' >&2; exit 1", None).await;
        check("echo 'fatal: unable to access x: Could not resolve host: x' >&2; exit 1", None).await;
        check("echo 'error: RPC failed; curl 28 Operation too slow. Less than' >&2; exit 1", None).await;
        check("kill -9 $PPID", None).await;
    }
}

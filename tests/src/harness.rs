//! A spool and a state directory of their own, and the programs that work on them.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bollard::Docker;
use queue_format::{LABEL_SPOOL, Spool};
use serde_json::Value;

/// Where a test's spool, state and logs lie; all gone when it is dropped.
#[derive(Debug)]
pub struct House {
    dir: tempfile::TempDir,
}

impl House {
    /// An empty house.
    ///
    /// # Errors
    /// There is no temporary directory.
    pub fn new() -> io::Result<Self> {
        tempfile::tempdir().map(|dir| Self { dir })
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its spool's directory.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.path("spool")
    }

    /// Its node's state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// `bottega ARGS` on this house's spool, not started yet.
    #[must_use]
    pub fn bottega(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("bottega"));
        command.args(args).env("BOTTEGA_SPOOL", self.spool_dir()).stdin(Stdio::null());
        command
    }

    /// `bottega up --until-idle` on this house, with `more` arguments, not started yet.
    #[must_use]
    pub fn up(&self, more: &[&str]) -> Command {
        let mut command = self.bottega(&["up", "--until-idle"]);
        command.arg("--state").arg(self.state_dir()).args(more);
        command
    }

    /// The ids of the containers that this house's spool has on the engine, running or not.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn containers(&self, spool: &Spool) -> reqwest::Result<Vec<String>> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        // Whoever was first has chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy();
        let (client, base) = match host.strip_prefix("unix://") {
            Some(path) => (client.unix_socket(path), "http://engine".to_owned()),
            None => (client, host.replacen("tcp://", "http://", 1)),
        };
        let filters = serde_json::json!({ "label": [format!("{LABEL_SPOOL}={}", spool.id())] });
        // Not by bollard, which cannot read a list that has a state of Podman's own in it.
        let asked = client.build()?.get(format!("{base}/v1.41/containers/json"));
        let asked = asked.query(&[("all", "true"), ("filters", &filters.to_string())]).send().await?;
        let listed: Vec<Value> = asked.error_for_status()?.json().await?;
        Ok(listed.iter().filter_map(|container| container["Id"].as_str().map(str::to_owned)).collect())
    }
}

/// The engine that the programs use too.
///
/// # Errors
/// `DOCKER_HOST` is not an address.
pub fn engine() -> Result<Docker, bollard::errors::Error> {
    Docker::connect_with_defaults()
}

/// The engine behind a socket of our own, which can be taken away and given back.
#[derive(Debug)]
pub struct EngineProxy {
    path: PathBuf,
    is_open: Arc<AtomicBool>,
}

impl EngineProxy {
    /// Listens at `path`, as `DOCKER_HOST=unix://PATH`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let is_open = Arc::new(AtomicBool::new(true));
        let open = is_open.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if open.load(Ordering::SeqCst) {
                    let _ = pass_on(&client, &open);
                }
            }
        });
        Ok(Self { path: path.to_owned(), is_open })
    }

    /// The value of `DOCKER_HOST`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Takes the engine away, from every connection, or gives it back to new ones.
    pub fn set_open(&self, open: bool) {
        self.is_open.store(open, Ordering::SeqCst);
    }
}

/// Copies both ways until either side or the proxy closes.
fn pass_on(client: &UnixStream, open: &Arc<AtomicBool>) -> io::Result<()> {
    let engine = UnixStream::connect("/var/run/docker.sock")?;
    for (mut from, mut to) in [(client.try_clone()?, engine.try_clone()?), (engine, client.try_clone()?)] {
        let open = open.clone();
        from.set_read_timeout(Some(Duration::from_millis(200)))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while open.load(Ordering::SeqCst) {
                match from.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) if to.write_all(&buffer[..read]).is_ok() => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    _ => break,
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Write);
            if !open.load(Ordering::SeqCst) {
                let _ = to.shutdown(std::net::Shutdown::Both);
            }
        });
    }
    Ok(())
}

/// Makes the corpus tasks that are marked for CI, and gives the directory.
///
/// # Panics
/// They cannot be made.
#[must_use]
pub fn ci_corpus(out: PathBuf) -> PathBuf {
    let made = Command::new(program("corpus")).args(["make", "--ci", "--out"]).arg(&out).output();
    let made = made.unwrap_or_else(|error| panic!("the corpus cannot be made: {error}"));
    assert!(made.status.success(), "the corpus cannot be made:\n{}", printed(&made));
    out
}

/// One of the project's own programs, as cargo built it beside the test.
///
/// # Panics
/// It is not there: build it with `cargo build --workspace --bins`.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let found = here.ancestors().skip(1).take(3).map(|dir: &Path| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built; run: cargo build --workspace --bins"))
}

/// What a finished program printed, both streams, for a message.
#[must_use]
pub fn printed(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

/// Waits until `met` gives a value, `at_most` so long.
pub fn wait_for<T>(at_most: Duration, mut met: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    while started.elapsed() < at_most {
        if let Some(value) = met() {
            return Some(value);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Waits for a child to end; kills it after `at_most`.
///
/// # Errors
/// It had to be killed, or cannot be waited for.
pub fn wait_with_bound(mut child: Child, at_most: Duration) -> io::Result<Output> {
    let ended = wait_for(at_most, || child.try_wait().transpose());
    if ended.is_none() {
        child.kill()?;
        let output = child.wait_with_output()?;
        return Err(io::Error::other(format!("it did not end within {at_most:?}:\n{}", printed(&output))));
    }
    child.wait_with_output()
}

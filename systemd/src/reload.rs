use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use crate::config::{self, Source};
use crate::{Notifier, chain};

/// A file that is being written is left alone until nothing has happened to it for so long.
const QUIET: Duration = Duration::from_millis(200);
/// Events that are waited out; a file that never rests is read all the same.
const BURST_MAX: usize = 20;

/// Reads a daemon's section of the configuration again, on SIGHUP and when the file changes.
///
/// What is invalid changes nothing: the error is logged, and stands in the status until a valid file is there.
pub struct Reload<T> {
    source: Source,
    section: &'static str,
    check: Check<T>,
    holds: T,
    notifier: Notifier,
    hangup: Signal,
    changes: Changes,
    is_applied: bool,
    /// What was wrong when it was read last.
    trouble: Option<String>,
    /// The spool that it named then.
    spool: Option<PathBuf>,
}

impl<T> Reload<T>
where
    T: Serialize + DeserializeOwned + Default + Clone + PartialEq,
{
    /// Listens from now on; before, a SIGHUP would end the process. `holds` is what the daemon runs with, and
    /// `check` finds what a type cannot express.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The signal handler cannot be installed.
    pub fn listen(
        source: Source,
        section: &'static str,
        holds: T,
        check: impl Fn(&T) -> Result<(), String> + Send + 'static,
        notifier: Notifier,
    ) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let changes = Changes::watch(source.path());
        let spool = config::spool(&source).ok().flatten();
        Ok(Self {
            source,
            section,
            check: Box::new(check),
            holds,
            notifier,
            hangup,
            changes,
            is_applied: true,
            trouble: None,
            spool,
        })
    }

    /// Resolves with a configuration that is valid and not the one that holds; from then on it does. Nothing is lost
    /// where the future is dropped early.
    ///
    /// systemd hears that the daemon reloads, and with the next call that what this one gave is applied.
    pub async fn next(&mut self) -> T {
        loop {
            if !std::mem::replace(&mut self.is_applied, true) {
                self.notifier.reloaded();
            }
            let is_asked = tokio::select! {
                _ = self.hangup.recv() => true,
                () = self.changes.next() => false,
            };
            // Before it is read: what changes from now on is seen.
            self.changes.follow(self.source.path());
            if let Some(config) = self.read(is_asked) {
                return config;
            }
        }
    }

    fn read(&mut self, is_asked: bool) -> Option<T> {
        self.notifier.reloading();
        self.is_applied = false;
        let path = self.source.path();
        if matches!(self.source, Source::Default(_)) && !path.exists() {
            tracing::info!("there is no {}: what holds goes on", path.display());
            return None;
        }
        let checked = config::load_checked::<T>(&self.source, self.section, &self.check);
        let checked = checked.map_err(|error| chain(&error));
        self.look_at_spool();
        let wrong = |why: &String| format!("the configuration is invalid, the one before holds: {why}");
        let trouble = checked.as_ref().err().map(wrong);
        self.notifier.trouble(trouble.clone());
        let is_news = self.trouble != trouble;
        self.trouble.clone_from(&trouble);
        match checked {
            Ok(config) if config == self.holds => {
                if is_news {
                    tracing::info!("the configuration is valid again: nothing in [{}] is new", self.section);
                } else if is_asked {
                    tracing::info!("the configuration was read again: nothing in [{}] is new", self.section);
                }
                None
            }
            Ok(config) => {
                tracing::info!("the configuration was read again: [{}] has changed", self.section);
                self.holds = config.clone();
                Some(config)
            }
            Err(_) => {
                // A SIGHUP after an edit is told, but not the edit that is seen after its SIGHUP.
                if is_asked || is_news {
                    tracing::error!("{}", trouble.unwrap_or_default());
                }
                None
            }
        }
    }
}

impl<T> Reload<T> {
    /// A daemon serves the spool that it has begun with.
    fn look_at_spool(&mut self) {
        let Ok(spool) = config::spool(&self.source) else { return };
        if spool != self.spool {
            tracing::warn!(
                "spool has changed in the configuration, which holds after: systemctl daemon-reload, and a restart"
            );
            self.spool = spool;
        }
    }
}

type Check<T> = Box<dyn Fn(&T) -> Result<(), String> + Send>;

/// Changes of one file, each told once it rests.
#[derive(Debug)]
struct Changes {
    settled: Receiver<()>,
    /// Kept, for a channel without a sender would seem to change all the time.
    _settle: Sender<()>,
    _watcher: Option<RecommendedWatcher>,
    /// The file itself, where it is named by a link.
    target: Option<PathBuf>,
}

impl Changes {
    fn watch(path: &Path) -> Self {
        let (seen, events) = channel(1);
        let (settle, settled) = channel(1);
        let watcher = watch(path, seen);
        match &watcher {
            Ok(_) => drop(tokio::spawn(settle_events(events, settle.clone()))),
            Err(error) => tracing::info!("changes of {} are seen on SIGHUP only: {error}", path.display()),
        }
        Self { settled, _settle: settle, _watcher: watcher.ok(), target: path.canonicalize().ok() }
    }

    /// Watches what a link leads to now.
    fn follow(&mut self, path: &Path) {
        if path.canonicalize().ok() != self.target {
            *self = Self::watch(path);
        }
    }

    async fn next(&mut self) {
        self.settled.recv().await;
    }
}

/// Watches the file's directory: editors and package managers do not write a file, they replace it. And the directory of
/// what it is a link to.
fn watch(path: &Path, seen: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut paths = vec![path.to_owned()];
    paths.extend(path.canonicalize().ok().filter(|target| target.file_name().is_some()));
    let names: Vec<_> = paths.iter().filter_map(|path| Some(path.file_name()?.to_owned())).collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let is_one =
            |path: &PathBuf| path.file_name().is_some_and(|name| names.iter().any(|one| one == name));
        let is_ours = |event: &notify::Event| event.paths.iter().any(is_one);
        // Reading it ourselves is an event too.
        if event.is_ok_and(|event| !event.kind.is_access() && is_ours(&event)) {
            // Full: one is waited out already.
            let _ = seen.try_send(());
        }
    })?;
    for path in paths {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Passes on one event for each burst of them. Ends with the watcher.
async fn settle_events(mut events: Receiver<()>, settle: Sender<()>) {
    while events.recv().await.is_some() {
        for _ in 0..BURST_MAX {
            if timeout(QUIET, events.recv()).await.is_err() {
                break;
            }
        }
        let _ = settle.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixDatagram;

    use nix::sys::signal::{Signal as Kind, raise};
    use serde::Deserialize;

    use super::*;
    use crate::Environment;

    /// Far longer than any of it takes; it only keeps a failing test from hanging.
    const BOUND: Duration = Duration::from_secs(30);

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Config {
        slots: u32,
    }

    fn few(config: &Config) -> Result<(), String> {
        if config.slots > 9 { Err("worker.slots is too large".to_owned()) } else { Ok(()) }
    }

    struct Room {
        path: PathBuf,
        said: UnixDatagram,
        reload: Reload<Config>,
        _dir: tempfile::TempDir,
    }

    impl Room {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let (path, socket) = (dir.path().join("b.toml"), dir.path().join("notify"));
            let said = UnixDatagram::bind(&socket).expect("a socket");
            said.set_read_timeout(Some(BOUND)).expect("set");
            let socket = socket.display().to_string();
            let notifier = Notifier::new(&Environment::from([("NOTIFY_SOCKET", socket.as_str())]));
            let source = Source::Named(path.clone());
            let reload =
                Reload::listen(source, "worker", Config::default(), few, notifier).expect("a handler");
            Self { path, said, reload, _dir: dir }
        }

        async fn next(&mut self) -> u32 {
            timeout(BOUND, self.reload.next()).await.expect("a configuration").slots
        }

        /// Polls until systemd has heard a message that contains `part`; no configuration may come meanwhile.
        async fn hears(&mut self, part: &str) {
            let mut bytes = [0; 4096];
            self.said.set_nonblocking(true).expect("set");
            for _ in 0..BOUND.as_millis() / 10 {
                let turned = timeout(Duration::from_millis(10), self.reload.next()).await;
                assert!(turned.is_err(), "{turned:?}");
                while let Ok(length) = self.said.recv(&mut bytes) {
                    if String::from_utf8_lossy(&bytes[..length]).contains(part) {
                        return;
                    }
                }
            }
            panic!("systemd never heard {part:?}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_read_and_a_bad_one_changes_nothing() {
        let mut room = Room::new();
        fs::write(&room.path, "[worker]\nslots = 3\n").expect("written");
        assert_eq!(room.next().await, 3);
        room.hears("READY=1").await;
        fs::write(&room.path, "[worker]\nslot = 4\n").expect("written");
        room.hears("STATUS=the configuration is invalid, the one before holds: ").await;
        fs::write(&room.path, "[worker]\nslots = 10\n").expect("written");
        room.hears("worker.slots is too large").await;
        let new = tempfile::NamedTempFile::new_in(room.path.parent().expect("a directory")).expect("a file");
        fs::write(new.path(), "[worker]\nslots = 5\n").expect("written");
        new.persist(&room.path).expect("renamed");
        assert_eq!(room.next().await, 5, "a file that was put in its place counts as well");
    }

    #[tokio::test]
    async fn a_change_behind_a_link_is_seen() {
        let mut room = Room::new();
        let target = room.path.with_file_name("site").join("real.toml");
        fs::create_dir(target.parent().expect("a directory")).expect("made");
        fs::write(&target, "[worker]\nslots = 1\n").expect("written");
        std::os::unix::fs::symlink(&target, &room.path).expect("linked");
        assert_eq!(room.next().await, 1);
        fs::write(&target, "[worker]\nslots = 2\n").expect("written");
        assert_eq!(room.next().await, 2);
    }

    #[tokio::test]
    async fn a_signal_is_heard_where_no_change_is() {
        let mut room = Room::new();
        let elsewhere = room.path.with_file_name("c.toml");
        fs::write(&elsewhere, "[worker]\nslots = 7\n").expect("written");
        room.reload.source = Source::Named(elsewhere);
        raise(Kind::SIGHUP).expect("raised");
        assert_eq!(room.next().await, 7);
        raise(Kind::SIGHUP).expect("raised");
        room.hears("READY=1").await;
    }
}

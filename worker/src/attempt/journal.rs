//! What an attempt has done so far, on the node's disk: enough for a process that comes after to go on with it.
//!
//! One file an attempt, `attempts/<owner>/<task>.<token>.jsonl` in the node's state directory, one JSON object a line.
//! The rules that make an attempt are deterministic, and every name and nonce in it is drawn from the journal's seed: so
//! whoever goes on makes the same requests of the engine, and of models, again. Those that had their outcome get it from
//! here, one whose container runs on adopts it, and the rest is new. A node that was started anew since has lost the
//! containers.
//!
//! What is published is here first, byte for byte: so a write of a process that is gone, however late it comes, changes
//! nothing in a result.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use base_images::PythonVersion;
use jiff::Timestamp;
use queue_format::{LifeLock, Owner, SpoolId, TaskName};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::report::Conclusion;
use crate::agents::{Reference, Reply};
use crate::config::WorkerConfig;
use crate::engine::{BuildEnd, BuildOutcome, Limits, Network, RunOutcome};

/// The longest journal that is read, in bytes: all outcomes of an attempt, and far more.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;
/// The longest first line.
const FIRST_LINE_BYTES_MAX: u64 = 1 << 20;

/// What an attempt began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// When.
    pub at: Timestamp,
    /// Which of the node's workers began it.
    pub instance: String,
    /// Which start of the machine that was.
    pub boot: String,
    /// For which spool.
    pub spool: SpoolId,
    /// The CPUs that it was given, in their order: the first of the slot that leads.
    pub cpus: Vec<u32>,
    /// What all names and nonces are drawn from; secret, for nonces tell what the tests cannot forge.
    pub seed: [u8; 32],
    /// Where.
    pub limits: Limits,
}

impl Begun {
    /// What the attempts that an incarnation left began with, each by its first line.
    #[must_use]
    pub fn all_of(state_dir: &Path, owner: &Owner) -> Vec<Self> {
        let journals =
            std::fs::read_dir(LifeLock::attempts_dir(state_dir, owner)).into_iter().flatten().flatten();
        let first = |path: PathBuf| {
            let file = BufReader::new(File::open(path).ok()?.take(FIRST_LINE_BYTES_MAX));
            let line = file.lines().map_while(Result::ok).find(|line| !line.is_empty())?;
            match serde_json::from_str::<Line<IgnoredAny, IgnoredAny, IgnoredAny>>(&line).ok()? {
                Line::Begun { begun } => Some(*begun),
                _ => None,
            }
        };
        journals.filter_map(|entry| first(entry.path())).collect()
    }
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line<R, B, C> {
    Begun {
        begun: Box<Begun>,
    },
    /// A container is about to be made.
    Run {
        object: Uuid,
    },
    Ran {
        request: String,
        object: Uuid,
        outcome: R,
    },
    Built {
        request: String,
        outcome: B,
    },
    /// What the attempt was made under.
    Circumstances {
        circumstances: Box<Circumstances>,
    },
    /// A model was asked.
    Replied {
        request: String,
        reply: Box<Reply>,
    },
    /// This is going to be published.
    Concluded {
        conclusion: C,
    },
}

/// What an attempt was made under, beside what it began with: all that it takes to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Circumstances {
    /// The limits; endpoints are left out.
    pub config: WorkerConfig,
    /// The Pythons that there were images for.
    pub pythons: Vec<PythonVersion>,
    /// What builds could reach.
    pub build_network: Network,
    /// What agents were offered.
    pub reference: Option<Reference>,
}

/// The journal of one attempt.
#[derive(Debug)]
pub struct Journal {
    kept: Option<(PathBuf, Mutex<File>)>,
    begun: Begun,
    drawn: AtomicU64,
    past: Past,
    /// It has told something, or had something to tell.
    is_continued: AtomicBool,
}

/// What an earlier process has written, each by the digest of its request.
#[derive(Debug, Default)]
struct Past {
    begun_runs: HashSet<Uuid>,
    ran: HashMap<String, RunOutcome>,
    built: HashMap<String, BuildOutcome>,
    replied: HashMap<String, Reply>,
    circumstances: Option<Circumstances>,
    conclusion: Option<Conclusion>,
}

impl Journal {
    /// The journal of a new attempt.
    ///
    /// # Errors
    /// It cannot be written: then the attempt must not begin.
    pub fn begin(state_dir: &Path, owner: &Owner, name: &TaskName, begun: Begun) -> io::Result<Self> {
        let path = path_of(state_dir, owner, name);
        std::fs::create_dir_all(path.parent().unwrap_or(state_dir))?;
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        let journal = Self::new(Some((path, file)), begun.clone(), Past::default());
        journal.write(&Line::<(), (), ()>::Begun { begun: Box::new(begun) })?;
        Ok(journal)
    }

    /// Of an attempt that nobody could go on with.
    #[must_use]
    pub fn unkept(begun: Begun) -> Self {
        Self::new(None, begun, Past::default())
    }

    /// The journal that a process before this one has left; `None` where there is none that helps.
    #[must_use]
    pub fn resume(state_dir: &Path, owner: &Owner, name: &TaskName, boot: &str) -> Option<Self> {
        let path = path_of(state_dir, owner, name);
        let file = OpenOptions::new().read(true).append(true).open(&path).ok()?;
        if file.metadata().ok()?.len() > JOURNAL_BYTES_MAX {
            return None;
        }
        let (begun, past) = read(BufReader::new(&file))?;
        (begun.boot == boot).then(|| Self::new(Some((path, file)), begun, past))
    }

    /// The journal of an attempt that is over, as its results keep it; nothing is added to it any more.
    #[must_use]
    pub fn recorded(bytes: &[u8]) -> Option<Self> {
        let (begun, past) = read(bytes)?;
        Some(Self::new(None, begun, past))
    }

    /// Everything in it so far, for the results.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let (path, _) = self.kept.as_ref()?;
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// What the attempt was made under, where that is known.
    #[must_use]
    pub fn circumstances(&self) -> Option<&Circumstances> {
        self.past.circumstances.as_ref()
    }

    /// Keeps what the attempt is made under.
    pub fn note_circumstances(&self, circumstances: Circumstances) {
        if self.past.circumstances.is_none() {
            let circumstances = Box::new(circumstances);
            self.note_outcome(&Line::<(), (), ()>::Circumstances { circumstances });
        }
    }

    /// The images that were built.
    pub(super) fn images(&self) -> impl Iterator<Item = &String> {
        self.past.built.values().filter_map(|built| match &built.end {
            BuildEnd::Built(id) => Some(id),
            _ => None,
        })
    }

    fn new(kept: Option<(PathBuf, File)>, begun: Begun, past: Past) -> Self {
        let kept = kept.map(|(path, file)| (path, Mutex::new(file)));
        Self { kept, begun, drawn: AtomicU64::new(0), past, is_continued: AtomicBool::new(false) }
    }

    /// What the attempt began with.
    #[must_use]
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// Whether anything of a process before this one was made use of.
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.is_continued.load(Ordering::Relaxed)
    }

    /// The next name: the same ones in the same order for whoever goes on.
    #[must_use]
    pub fn draw(&self) -> Uuid {
        let nth = self.drawn.fetch_add(1, Ordering::Relaxed);
        drawn(&self.begun.seed, nth)
    }

    /// The containers that a process before this one may have left running.
    #[must_use]
    pub fn left_running(&self) -> &HashSet<Uuid> {
        &self.past.begun_runs
    }

    /// What the process before this one was publishing, and may have published.
    #[must_use]
    pub fn conclusion(&self) -> Option<&Conclusion> {
        self.past.conclusion.as_ref()
    }

    /// Keeps what is going to be published. Where that cannot be, nobody goes on with this attempt if we end meanwhile.
    pub fn note_conclusion(&self, conclusion: &Conclusion) {
        if let Err(error) = self.write(&Line::<(), (), _>::Concluded { conclusion }) {
            tracing::warn!(%error, "cannot keep the attempt's journal: it has no successor");
            if let Some((path, _)) = &self.kept {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// The attempt is over: nobody goes on with it.
    pub fn end(self) {
        // One that stays names a claim that is gone; it goes with its incarnation.
        let _ = self.kept.map(|(path, _)| std::fs::remove_file(path));
    }

    pub(super) fn ran(&self, request: &str) -> Option<&RunOutcome> {
        self.past.ran.get(request)
    }

    pub(super) fn built(&self, request: &str) -> Option<&BuildOutcome> {
        self.past.built.get(request)
    }

    /// What a model said to a request.
    pub(crate) fn replied(&self, request: &str) -> Option<&Reply> {
        self.past.replied.get(request)
    }

    pub(crate) fn note_replied(&self, request: &str, reply: &Reply) -> io::Result<()> {
        let (request, reply) = (request.to_owned(), Box::new(reply.clone()));
        self.write(&Line::<(), (), ()>::Replied { request, reply })
    }

    pub(crate) fn continued(&self) {
        self.is_continued.store(true, Ordering::Relaxed);
    }

    pub(super) fn note_run(&self, object: Uuid) -> io::Result<()> {
        self.write(&Line::<(), (), ()>::Run { object })
    }

    pub(super) fn note_ran(&self, request: String, object: Uuid, outcome: &RunOutcome) {
        self.note_outcome(&Line::<_, (), ()>::Ran { request, object, outcome });
    }

    pub(super) fn note_built(&self, request: String, outcome: &BuildOutcome) {
        self.note_outcome(&Line::<(), _, ()>::Built { request, outcome });
    }

    /// A successor that does not find it does it once more.
    fn note_outcome(&self, line: &Line<impl Serialize, impl Serialize, impl Serialize>) {
        if let Err(error) = self.write(line) {
            tracing::warn!(%error, "cannot keep the attempt's journal: a successor would do this again");
        }
    }

    /// Outlives the process, which is what it is for; a machine that dies takes the containers with it.
    fn write(&self, line: &Line<impl Serialize, impl Serialize, impl Serialize>) -> io::Result<()> {
        let Some((_, file)) = &self.kept else { return Ok(()) };
        // First of all what ends a line that could not be written whole.
        let mut bytes = vec![b'\n'];
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
        file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }
}

/// Which start of the machine this is.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn path_of(state_dir: &Path, owner: &Owner, name: &TaskName) -> PathBuf {
    LifeLock::attempts_dir(state_dir, owner).join(format!("{}.{}.jsonl", name.id, name.token))
}

fn drawn(seed: &[u8; 32], nth: u64) -> Uuid {
    let hash = blake3::keyed_hash(seed, &nth.to_le_bytes());
    uuid::Builder::from_random_bytes(std::array::from_fn(|n| hash.as_bytes()[n])).into_uuid()
}

/// Lines that are none, such as a last one that was cut off, are passed over.
fn read(lines: impl BufRead) -> Option<(Begun, Past)> {
    let (mut begun, mut past) = (None, Past::default());
    for line in lines.split(b'\n') {
        let line: Result<Line<RunOutcome, BuildOutcome, Conclusion>, _> = serde_json::from_slice(&line.ok()?);
        let Ok(line) = line else { continue };
        match line {
            Line::Begun { begun: first } => begun = Some(*first),
            Line::Run { object } => drop(past.begun_runs.insert(object)),
            Line::Ran { request, object, outcome } => {
                past.begun_runs.remove(&object);
                past.ran.insert(request, outcome);
            }
            Line::Built { request, outcome } => drop(past.built.insert(request, outcome)),
            Line::Circumstances { circumstances } => past.circumstances = Some(*circumstances),
            Line::Replied { request, reply } => drop(past.replied.insert(request, *reply)),
            Line::Concluded { conclusion } => past.conclusion = Some(conclusion),
        }
    }
    Some((begun?, past))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use queue_format::Incarnation;

    use super::*;
    use crate::agents::NoAnswer;
    use crate::engine::ContainerEnd;
    use crate::slots::tests::machine;

    fn begun() -> Begun {
        let slots = crate::slots::plan(&machine(1, 2, 1, 4 << 30), &WorkerConfig::default()).slots;
        let limits = slots[0].limits.clone();
        let (at, instance, boot) = (Timestamp::UNIX_EPOCH, "worker".to_owned(), "boot".to_owned());
        let spool = serde_json::from_str(&format!("\"{}\"", Uuid::from_u128(1))).unwrap();
        Begun { at, instance, boot, spool, cpus: vec![0], seed: [7; 32], limits }
    }

    fn outcome(log: &str) -> RunOutcome {
        RunOutcome {
            end: ContainerEnd::Exited(1),
            log: log.to_owned(),
            seconds: 1.5,
            peak_memory_bytes: None,
            files_out: BTreeMap::from([("/out".to_owned(), vec![0, 255, b'a'])]),
            outputs: BTreeMap::new(),
            node: None,
            warnings: Vec::new(),
        }
    }

    /// A replay compares files byte for byte, and durations stand in them.
    #[test]
    fn a_duration_is_read_back_as_it_was_written() {
        for nth in 1..20_000_u32 {
            let seconds = std::time::Duration::from_nanos(u64::from(nth) * 15_485_863).as_secs_f64();
            let text = serde_json::to_string(&seconds).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), seconds.to_bits(), "{text}");
        }
    }

    #[test]
    fn a_successor_is_told_what_was_done_and_what_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::new("node", Incarnation::new(Uuid::now_v7()));
        let name: TaskName = "task.a001.r0.json".parse().unwrap();
        let first = Journal::begin(dir.path(), &owner, &name, begun()).unwrap();
        let drawn: [Uuid; 3] = std::array::from_fn(|_| first.draw());
        first.note_run(drawn[1]).unwrap();
        first.note_ran("one".to_owned(), drawn[1], &outcome("said"));
        first.note_run(drawn[2]).unwrap();
        // It dies while it writes: half a line stays.
        let path = path_of(dir.path(), &owner, &name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"event\":\"ran\",\"requ");
        std::fs::write(&path, bytes).unwrap();

        assert!(Journal::resume(dir.path(), &owner, &name, "another boot").is_none());
        let second = Journal::resume(dir.path(), &owner, &name, "boot").unwrap();
        assert_eq!(std::array::from_fn(|_| second.draw()), drawn);
        assert_eq!(second.ran("one"), Some(&outcome("said")));
        assert_eq!(second.ran("two"), None);
        assert_eq!(second.left_running().iter().collect::<Vec<_>>(), [&drawn[2]]);
        assert!(second.conclusion().is_none());
        // What comes after the half line is read too.
        second.note_ran("two".to_owned(), drawn[2], &outcome("more"));
        let third = Journal::resume(dir.path(), &owner, &name, "boot").unwrap();
        assert_eq!(third.ran("two"), Some(&outcome("more")));
        assert!(third.left_running().is_empty());
        assert_eq!(Begun::all_of(dir.path(), &owner), [begun()]);
        third.end();
        assert!(Begun::all_of(dir.path(), &owner).is_empty());
    }

    #[test]
    fn an_answer_that_cannot_be_kept_is_none() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let journal = Journal::new(Some(("/dev/full".into(), full)), begun(), Past::default());
        let reply = Reply::TooLong(NoAnswer { why: "x".repeat(1 << 16), ..NoAnswer::default() });
        assert!(journal.note_replied("one", &reply).is_err());
    }
}

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Result;
use queue_format::{
    Depth, DoneClass, Event, FailureReason, Located, LoggedEvent, OUTPUT_FILE, Owner, Severity, Spool, State,
    TaskId, Token,
};

use super::work::Published;

/// The longest output that is compared; tasks of a lab print a line.
const OUTPUT_BYTES_MAX: u64 = 1 << 16;

/// What a spool is found to hold when all is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Tasks that were published.
    pub tasks: usize,
    /// Of them, those that lie in `done/` with the output that they must have.
    pub done: usize,
    /// Those that lie nowhere.
    pub lost: Vec<String>,
    /// Those that lie in two places, or that two attempts were told to have been accepted, or one whose result is not
    /// the official one.
    pub doubled: Vec<String>,
    /// Those whose official result is not whole, or not what the task prints.
    pub torn: Vec<String>,
    /// Those that wait or are worked on still.
    pub stuck: Vec<String>,
    /// Those that were set aside for another reason than a person's wish.
    pub failed: Vec<String>,
    /// Tasks that nobody published, and what `fsck` calls an error.
    pub findings: Vec<String>,
    /// Claims that were taken back from somebody taken for dead.
    pub reaped: usize,
    /// Attempts beyond the first that a claim was made for.
    pub repeated: usize,
}

impl Judgement {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let Self { lost, doubled, torn, stuck, failed, findings, .. } = self;
        [lost, doubled, torn, stuck, failed, findings].iter().all(|wrong| wrong.is_empty())
    }
}

/// Judges the spool in a directory that nobody works on any more, by the names and files in it, and by what its workers
/// said of themselves in their logs.
///
/// # Errors
/// It is no spool, or cannot be read.
pub fn judge(dir: &Path, published: &[Published]) -> Result<Judgement> {
    let spool = Spool::open(dir)?;
    let mut expected: BTreeMap<TaskId, String> = BTreeMap::new();
    for Published { name, count } in published {
        for n in 1..=*count {
            expected.insert(format!("{name}-{n:06}").parse()?, format!("{name}-{n}\n"));
        }
    }
    let mut places: BTreeMap<TaskId, Vec<Located>> = BTreeMap::new();
    spool.visit(|task| places.entry(task.name.id.clone()).or_default().push(task))?;
    let mut found = Judgement { tasks: expected.len(), ..Judgement::default() };
    for id in places.keys().filter(|id| !expected.contains_key(*id)) {
        found.findings.push(format!("{id}: nobody published it"));
    }
    let mut official: BTreeMap<&TaskId, (Token, Option<Owner>)> = BTreeMap::new();
    for (id, output) in &expected {
        match places.get(id).map(Vec::as_slice) {
            None => found.lost.push(id.to_string()),
            Some([one]) => {
                found.repeated += usize::try_from(one.name.token.0.saturating_sub(1))?;
                match &one.state {
                    State::Done(DoneClass::Completed) => {
                        official.insert(id, (one.name.token, one.name.owner.clone()));
                        match flaw(&spool, one, output) {
                            None => found.done += 1,
                            Some(why) => found.torn.push(format!("{id}: {why}")),
                        }
                    }
                    State::Failed(FailureReason::Cancelled) => {}
                    State::Done(_) | State::Failed(_) => found.failed.push(format!("{id}: {:?}", one.state)),
                    _ => found.stuck.push(format!("{id}: {:?}", one.state)),
                }
            }
            Some(several) => {
                let several: Vec<_> = several.iter().map(|task| task.path.display().to_string()).collect();
                found.doubled.push(format!("{id}: {}", several.join(", ")));
            }
        }
    }
    let mut reaped = BTreeSet::new();
    for (who, event) in events(&spool)? {
        match event {
            Event::Concluded { task, token, to, .. }
                if to == DoneClass::Completed.as_str()
                    && official.get(&task) != Some(&(token, Some(who.clone()))) =>
            {
                found.doubled.push(format!(
                    "{task}: {who} was told that its attempt {token} counts; what counts is {:?}",
                    official.get(&task)
                ));
            }
            Event::Reaped { task, token, .. } => drop(reaped.insert((task, token))),
            _ => {}
        }
    }
    found.reaped = reaped.len();
    spool.fsck(Depth::Contents, &mut |finding| {
        if finding.severity == Severity::Error {
            found.findings.push(format!("fsck: {}: {}", finding.path.display(), finding.what));
        }
    })?;
    Ok(found)
}

/// Why a task's official result is not what it must be.
fn flaw(spool: &Spool, task: &Located, output: &str) -> Option<String> {
    let name = &task.name;
    let manifest = match spool.manifest(&name.id, name.token) {
        Ok(Some(manifest)) => manifest,
        other => return Some(format!("no manifest: {other:?}")),
    };
    if Some(&manifest.owner) != name.owner.as_ref() {
        return Some(format!("the result is {}'s, the name {:?}'s", manifest.owner, name.owner));
    }
    match spool.attempt_file(&name.id, name.token, OUTPUT_FILE, OUTPUT_BYTES_MAX) {
        Ok(Some(printed)) if printed == output.as_bytes() => None,
        Ok(printed) => {
            let printed = printed.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            Some(format!("it printed {printed:?}, expected {output:?}"))
        }
        Err(error) => Some(error.to_string()),
    }
}

/// All events of all logs; lines that a crash tore are passed over.
fn events(spool: &Spool) -> Result<Vec<(Owner, Event)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(spool.layout().logs())? {
        let path = entry?.path();
        let Some(owner) = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Owner>().ok()) else {
            continue;
        };
        let text = fs::read(&path)?;
        let text = String::from_utf8_lossy(&text);
        let events = text.lines().filter_map(|line| serde_json::from_str::<LoggedEvent>(line).ok());
        found.extend(events.map(|logged| (owner.clone(), logged.event)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use queue_format::{
        Claim, EventLog, Incarnation, Lease, Manifest, Next, NodeRecord, RunReport, RunTask, TaskSpec,
        Verdict, Work, WorkReport,
    };
    use uuid::Uuid;

    use super::*;

    fn owner(node: &str) -> Owner {
        Owner::new(node, Incarnation::new(Uuid::now_v7()))
    }

    fn claim(lease: &mut Lease) -> Claim {
        match lease.claim_next(|_| true).unwrap() {
            Next::Claimed(claim) => *claim,
            other => panic!("expected a claim, got {other:?}"),
        }
    }

    fn conclude(claim: &Claim, owner: &Owner, log: &EventLog) {
        let name = claim.name();
        let output = format!("t-{}\n", name.id.as_str().trim_start_matches("t-0000").trim_start_matches('0'));
        let at = jiff::Timestamp::UNIX_EPOCH;
        let manifest = Manifest {
            format: 1,
            id: name.id.clone(),
            token: name.token,
            owner: owner.clone(),
            verdict: Verdict::Completed,
            started_at: at,
            finished_at: at,
            stages: Vec::new(),
            work: WorkReport::Run { run: RunReport { node: None::<NodeRecord>, ..RunReport::default() } },
            peak_memory_bytes: None,
            notes: Vec::new(),
            files: BTreeMap::new(),
        };
        claim.conclude(&manifest, &[(OUTPUT_FILE.to_owned(), output.into_bytes())]).unwrap();
        log.note(at, Event::concluded(name.id.clone(), name.token, &Verdict::Completed));
        log.flush(at).unwrap();
    }

    /// A spool in which two tasks were done, and what `spoil` makes of it.
    fn check(spoil: impl FnOnce(&Spool, &Owner), expected: fn(&Judgement) -> &Vec<String>, part: &str) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("spool");
        let spool = Spool::init(&root, Uuid::now_v7()).unwrap();
        let tasks = [1, 2].map(|n| TaskSpec {
            format: 1,
            id: format!("t-{n:06}").parse().unwrap(),
            priority: 5,
            resources: queue_format::Resources::default(),
            work: Work::Run(RunTask {
                image: None,
                commands: vec![vec!["true".to_owned()]],
                env: BTreeMap::new(),
                array_index: None,
                user: None,
                network: false,
                inputs: Vec::new(),
                outputs: Vec::new(),
            }),
        });
        spool.publish(&tasks, &owner("m"), Uuid::now_v7).unwrap();
        let me = owner("n");
        let (log, mut lease) = (EventLog::new(&spool, &me), Lease::open(&spool, me.clone()).unwrap());
        for _ in 0..2 {
            conclude(&claim(&mut lease), &me, &log);
        }
        lease.close().unwrap();
        spoil(&spool, &me);
        let found = judge(&root, &[Published { name: "t".to_owned(), count: 2 }]).unwrap();
        let said = expected(&found);
        assert_eq!(said.is_empty(), part.is_empty(), "{found:?}");
        assert!(said.iter().any(|line| line.contains(part)) || part.is_empty(), "{found:?}");
        assert_eq!(found.is_sound(), part.is_empty(), "{found:?}");
    }

    fn place(spool: &Spool, id: &str) -> std::path::PathBuf {
        spool.find(&id.parse().unwrap()).unwrap().remove(0).path
    }

    #[test]
    fn tells_whatever_is_not_as_it_must_be() {
        check(|_, _| (), |found| &found.findings, "");
        check(|spool, _| fs::remove_file(place(spool, "t-000001")).unwrap(), |found| &found.lost, "t-000001");
        let copy = |spool: &Spool, _: &Owner| {
            let dir = spool.layout().pending().join("5-native");
            fs::create_dir_all(&dir).unwrap();
            fs::copy(place(spool, "t-000002"), dir.join("t-000002.a000.r0.json")).unwrap();
        };
        check(copy, |found| &found.doubled, "t-000002");
        let tear = |spool: &Spool, _: &Owner| {
            let dir = spool.layout().attempt(&"t-000001".parse().unwrap(), Token(1));
            fs::write(dir.join(OUTPUT_FILE), "t-").unwrap();
        };
        check(tear, |found| &found.torn, "t-000001");
        let other_believes = |spool: &Spool, _: &Owner| {
            let log = EventLog::new(spool, &owner("z"));
            let at = jiff::Timestamp::UNIX_EPOCH;
            log.note(at, Event::concluded("t-000001".parse().unwrap(), Token(2), &Verdict::Completed));
            log.flush(at).unwrap();
        };
        check(other_believes, |found| &found.doubled, "z~");
    }
}

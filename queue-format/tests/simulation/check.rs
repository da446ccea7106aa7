use std::collections::{BTreeMap, BTreeSet};

use queue_format::{AcceptanceClass, FailureReason, Layout, MANIFEST_FILE, Manifest, Owner, TaskName, Token};

use crate::mount::MOUNT;
use crate::server::{Call, Ino, Server};

/// The directories in which tasks lie.
const STATES: [&str; 7] = ["ledger", "pending", "delayed", "hold", "claimed", "done", "failed"];

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// A task's file is nowhere, or was replaced by another.
    Lost,
    /// A task has two files.
    Doubled,
    /// Two results of one task were accepted.
    AcceptedTwice,
    /// An accepted result is not what its manifest says.
    Torn,
    /// A token was not raised by a claim, or fell.
    Token,
    /// A process was told what is not so.
    Untrue,
    /// A valid task was refused as invalid.
    Refused,
    /// Something is never settled.
    Stuck,
}

/// Watches the server, of which it sees everything at every moment.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) broken: Vec<(Broken, String)>,
    /// Every id, and how many files it has.
    files: BTreeMap<String, usize>,
    /// The highest token that an id ever had.
    tokens: BTreeMap<String, Token>,
    /// The results that were accepted, by id.
    accepted: BTreeMap<String, Vec<String>>,
    /// Where task files ever came to lie.
    arrivals: BTreeSet<String>,
    /// Where they were moved away from: nobody who looks later can tell that they were there.
    departures: BTreeSet<String>,
    /// Paths that must never be taken: their worker was told that the attempt is void.
    void: Vec<String>,
}

/// What has to be known of a call before it is done.
#[derive(Debug)]
pub(crate) enum Before {
    Nothing,
    Created(String),
    Removed(String),
    Renamed { from: String, to: String, moved: Option<Ino>, replaced: Option<Ino> },
}

impl Checker {
    /// A task that there will be.
    pub(crate) fn expect(&mut self, id: &str) {
        self.files.entry(id.to_owned()).or_default();
    }

    /// A file that is there from the beginning.
    pub(crate) fn put(&mut self, path: &str) {
        self.came(path);
    }

    /// A worker was told that its move to a path (below the mount) was made.
    pub(crate) fn told_moved(&mut self, path: &str) {
        if !self.arrivals.contains(path) {
            self.report(Broken::Untrue, format!("told that {path} was reached, but it never was"));
        }
    }

    /// A worker was told that its attempt, which would have come to lie at a path, is void.
    pub(crate) fn told_void(&mut self, path: String) {
        if !self.departures.contains(&path) {
            self.void.push(path);
        }
    }

    pub(crate) fn stuck(&mut self, what: &str) {
        self.report(Broken::Stuck, what.to_owned());
    }

    pub(crate) fn before(&self, server: &Server, call: &Call) -> Before {
        let at = |dir: Ino, name: &str| format!("{}/{name}", server.path(dir));
        match call {
            Call::Create { dir, name } if is_json(name) => Before::Created(at(*dir, name)),
            Call::Remove { dir, name } if is_json(name) => Before::Removed(at(*dir, name)),
            Call::Rename { from, to } => Before::Renamed {
                from: at(from.0, &from.1),
                to: at(to.0, &to.1),
                moved: server.child(from.0, &from.1).ok(),
                replaced: server.child(to.0, &to.1).ok(),
            },
            _ => Before::Nothing,
        }
    }

    /// After a call was done without an error.
    pub(crate) fn after(&mut self, server: &Server, before: Before) {
        match before {
            Before::Nothing => {}
            Before::Created(path) => self.came(&path),
            Before::Removed(path) => self.went(&path, "removed"),
            Before::Renamed { moved, replaced, .. } if moved == replaced => {}
            Before::Renamed { from, to, moved: Some(moved), .. } if server.is_dir(moved) => {
                let mut inside = Vec::new();
                walk(server, &to, &mut |path| inside.push(path[to.len()..].to_owned()));
                for below in inside {
                    match (task(&format!("{from}{below}")), task(&format!("{to}{below}"))) {
                        (None, Some(_)) => self.came(&format!("{to}{below}")),
                        (Some(_), None) => self.went(&format!("{from}{below}"), "moved out"),
                        _ => {}
                    }
                }
            }
            Before::Renamed { from, to, replaced, .. } => {
                if replaced.is_some() {
                    self.went(&to, "replaced");
                }
                self.moved(server, &from, &to);
            }
        }
    }

    fn moved(&mut self, server: &Server, from: &str, to: &str) {
        match (task(from), task(to)) {
            (None, None) => {}
            (None, Some(_)) => self.came(to),
            (Some(_), None) => self.went(from, "moved out"),
            (Some(old), Some(new)) => {
                if old.id != new.id {
                    self.report(Broken::Lost, format!("{from} became {to}"));
                }
                let claims = from.starts_with("pending/") && to.starts_with("claimed/");
                if new.token < old.token || (claims && new.token == old.token) {
                    self.report(Broken::Token, format!("{from} became {to}"));
                }
                self.departures.insert(from.to_owned());
                self.arrive(to, &new);
                if to.starts_with("done/") {
                    self.accept(server, to, &new);
                }
                if to.starts_with("failed/badspec/") {
                    self.report(Broken::Refused, format!("{from} is valid, and became {to}"));
                }
            }
        }
    }

    fn came(&mut self, path: &str) {
        let Some(name) = task(path) else { return };
        let files = self.files.entry(name.id.to_string()).or_default();
        *files += 1;
        if *files > 1 {
            let files = *files;
            self.report(Broken::Doubled, format!("{path} is the file number {files} of its task"));
        }
        self.arrive(path, &name);
    }

    fn arrive(&mut self, path: &str, name: &TaskName) {
        let highest = self.tokens.entry(name.id.to_string()).or_default();
        if name.token < *highest {
            let highest = *highest;
            self.report(Broken::Token, format!("{path} is older than {highest}"));
        } else {
            *highest = name.token;
        }
        self.arrivals.insert(path.to_owned());
    }

    fn went(&mut self, path: &str, how: &str) {
        let Some(name) = task(path) else { return };
        if let Some(files) = self.files.get_mut(name.id.as_str()) {
            *files = files.saturating_sub(1);
        }
        self.report(Broken::Lost, format!("{path} was {how}"));
    }

    fn accept(&mut self, server: &Server, path: &str, name: &TaskName) {
        let results = self.accepted.entry(name.id.to_string()).or_default();
        results.push(path.to_owned());
        if results.len() > 1 {
            let results = results.join(", ");
            self.report(Broken::AcceptedTwice, results);
        }
        self.check_result(server, path, name);
    }

    fn check_result(&mut self, server: &Server, path: &str, name: &TaskName) {
        if let Err(why) = result(server, name) {
            self.report(Broken::Torn, format!("{path}: {why}"));
        }
    }

    /// When all is quiet: what must be so at last.
    pub(crate) fn finish(&mut self, server: &Server) {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for state in STATES {
            walk(server, state, &mut |path| {
                if let Some(name) = task(path) {
                    found.entry(name.id.to_string()).or_default().push(path.to_owned());
                }
            });
        }
        for id in self.files.keys().cloned().collect::<Vec<_>>() {
            match found.get(&id).map_or(&[][..], Vec::as_slice) {
                [] => self.report(Broken::Lost, format!("{id} is nowhere")),
                [path] if ["done/", "failed/", "hold/"].iter().any(|state| path.starts_with(state)) => {
                    if let Some(name) = task(path).filter(|_| path.starts_with("done/")) {
                        self.check_result(server, path, &name);
                    }
                }
                [path] => self.report(Broken::Stuck, format!("{path} is not settled")),
                paths => self.report(Broken::Doubled, paths.join(", ")),
            }
        }
        for path in std::mem::take(&mut self.void) {
            if self.arrivals.contains(&path) {
                self.report(Broken::Untrue, format!("told that it is void, but {path} was reached"));
            }
        }
    }

    fn report(&mut self, broken: Broken, what: String) {
        self.broken.push((broken, what));
    }
}

/// What is not settled, and what is left of those that are not `alive`.
pub(crate) fn left(server: &Server, alive: impl Fn(&Owner) -> bool) -> Vec<(&'static str, String)> {
    let mut left = Vec::new();
    for state in ["ledger", "pending", "delayed", "claimed"] {
        walk(server, state, &mut |path| {
            if task(path).is_some() {
                left.push(("a task", path.to_owned()));
            }
        });
    }
    for (dir, what) in
        [("claimed", "a lease"), ("incoming", "a dropped file"), ("tmp", "staging"), ("nodes", "a heartbeat")]
    {
        for name in server.names_at(dir) {
            let owner =
                if dir == "nodes" { name.rsplit_once('.').map_or("", |(owner, _)| owner) } else { &name };
            let is_due = name.starts_with('.') || ["rejected", "read", "gone"].contains(&&*name);
            if !is_due && !owner.parse().is_ok_and(|owner| alive(&owner)) {
                left.push((what, format!("{dir}/{name}")));
            }
        }
    }
    left
}

/// Where an accepted result comes to lie.
pub(crate) fn done_path(name: &TaskName, owner: &Owner) -> String {
    format!("done/{}/{}/{}", AcceptanceClass::Strict, name.id.bucket(), name.done_by(owner))
}

/// Where the task file of a failed attempt comes to lie.
pub(crate) fn failed_path(name: &TaskName, reason: FailureReason) -> String {
    format!("failed/{reason}/{}", name.settled())
}

/// The task whose file a path is, if it lies where tasks lie.
fn task(path: &str) -> Option<TaskName> {
    let (state, _) = path.split_once('/')?;
    let (dir, name) = path.rsplit_once('/')?;
    // In the ledger they lie by class, beside the record of their chunk.
    if state == "ledger" && dir.split('/').count() < 4 {
        return None;
    }
    STATES.contains(&state).then(|| name.parse().ok())?
}

fn is_json(name: &str) -> bool {
    name.ends_with(".json") && !name.starts_with('.')
}

fn result(server: &Server, name: &TaskName) -> Result<(), String> {
    let owner = name.owner.as_ref().ok_or("its name has no owner")?;
    let dir = Layout::new(MOUNT.as_ref()).attempt(&name.id, name.token);
    let dir = dir.to_string_lossy().trim_start_matches(MOUNT).to_owned();
    let read = |file: &str| {
        let ino = server.at(&format!("{dir}/{file}")).ok_or(format!("{file} is missing"))?;
        server.content(ino).map_err(|e| format!("{file}: {e}"))
    };
    let manifest: Manifest =
        serde_json::from_slice(read(MANIFEST_FILE)?).map_err(|e| format!("its manifest: {e}"))?;
    if (&manifest.id, manifest.token, &manifest.owner) != (&name.id, name.token, owner) {
        return Err("its manifest is another attempt's".to_owned());
    }
    for (file, digest) in &manifest.files {
        if blake3::hash(read(file)?).to_hex().as_str() != digest {
            return Err(format!("{file} is not what the manifest says"));
        }
    }
    Ok(())
}

fn walk(server: &Server, path: &str, visit: &mut impl FnMut(&str)) {
    for name in server.names_at(path) {
        let below = format!("{path}/{name}");
        if server.at(&below).is_some_and(|ino| server.is_dir(ino)) {
            walk(server, &below, visit);
        } else {
            visit(&below);
        }
    }
}

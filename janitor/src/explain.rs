//! Why something stays or goes, in words.

use std::collections::{BTreeMap, HashMap};

use queue_format::{Labels, LedgerEntry, Life, ObjectKind, Owner};

use crate::inventory::{ClaimKey, Inventory};
use crate::policy::{Candidate, Reason, Target, policy};
use crate::protect::{Kept, container_entry, image_entry, protect};
use crate::show;

/// Everything that `wanted` names: by id or the beginning of one, by name, by task. Nothing where it names nothing.
#[must_use]
pub fn explain(
    inventory: &Inventory,
    spent: &BTreeMap<String, Reason>,
    mirrors_bytes_max: u64,
    wanted: &str,
) -> Vec<String> {
    let kept = protect(inventory, spent);
    let case = Case {
        inventory,
        found: policy(inventory, &kept, spent, mirrors_bytes_max),
        kept,
        wanted: wanted.trim_start_matches("sha256:"),
    };
    let mut lines = case.containers();
    lines.extend(case.images());
    lines.extend(case.entries());
    lines.extend(case.others());
    lines
}

struct Case<'a> {
    inventory: &'a Inventory,
    kept: BTreeMap<String, Kept>,
    found: Vec<Candidate>,
    wanted: &'a str,
}

impl Case<'_> {
    fn names(&self, id: &str, names: &[String], labels: &HashMap<String, String>) -> bool {
        id.trim_start_matches("sha256:").starts_with(self.wanted)
            || names
                .iter()
                .any(|name| name == self.wanted || name.strip_suffix(":latest") == Some(self.wanted))
            || Labels::from_map(labels).is_some_and(|said| {
                said.task.as_str() == self.wanted || said.object.to_string() == self.wanted
            })
    }

    fn containers(&self) -> Vec<String> {
        let containers = self.inventory.objects.iter().flat_map(|objects| &objects.containers);
        let wanted = containers.filter(|found| self.names(&found.id, &found.names, &found.labels));
        let told = wanted.map(|found| {
            let entry = container_entry(self.inventory, found);
            let verdict = self.verdict(&found.id, &Target::Container(found.id.clone()), entry, &found.labels);
            format!("container {} ({}): {verdict}", found.names.join(", "), show::short_id(&found.id))
        });
        told.collect()
    }

    fn images(&self) -> Vec<String> {
        let images = self.inventory.objects.iter().flat_map(|objects| &objects.images);
        let wanted = images.filter(|found| self.names(&found.id, &found.tags, &found.labels));
        let told = wanted.map(|found| {
            let entry = image_entry(self.inventory, found);
            let verdict = self.verdict(&found.id, &Target::Image(found.id.clone()), entry, &found.labels);
            let tags = if found.tags.is_empty() { show::NAMELESS.to_owned() } else { found.tags.join(", ") };
            let mut line = format!("image {tags} ({}): {verdict}", show::short_id(&found.id));
            if let Some(used_at) = self.inventory.used_at.get(&found.id) {
                let ago = self.inventory.now.as_second().saturating_sub(used_at.as_second());
                line.push_str(&format!("; last used {} ago", show::age(ago)));
            }
            line
        });
        told.collect()
    }

    fn entries(&self) -> Vec<String> {
        let wanted = self.inventory.ledger.values().filter(|entry| {
            entry.object.to_string() == self.wanted
                || entry.task.as_str() == self.wanted
                || matches!(&entry.kind, ObjectKind::WorkDir { path } if path.ends_with(self.wanted))
        });
        let told = wanted.map(|entry| {
            let what = match &entry.kind {
                ObjectKind::Container { name } => format!("container {name}"),
                ObjectKind::Build { image } => format!("build of {image}"),
                ObjectKind::WorkDir { path } => format!("work directory {}", path.display()),
            };
            let of = self.about(entry);
            let mut of_entry = self.found.iter().filter(|found| found.entry.as_ref() == Some(entry));
            let is_build = matches!(entry.kind, ObjectKind::Build { .. });
            let goes_with = |found: &Candidate| !is_build || matches!(found.target, Target::Entry(_));
            let fate = match of_entry.next() {
                Some(found) if goes_with(found) => format!("it goes: {}", found.reason),
                Some(_) => "it goes once nothing is left of the build".to_owned(),
                None if !self.inventory.covers(entry) => {
                    "it stays: another spool's, or another node's".to_owned()
                }
                None => "it stays".to_owned(),
            };
            format!("ledger entry {}: {what}, {of}; {fate}", entry.object)
        });
        told.collect()
    }

    /// What has no entry: what lies in the spool, copies of repositories, leases, locks.
    fn others(&self) -> Vec<String> {
        let without_entry = self.found.iter().filter(|found| found.entry.is_none());
        let wanted = without_entry.filter(|found| found.name.contains(self.wanted));
        let going = wanted
            .map(|found| format!("{} {}: it goes: {}", show::kind(&found.target), found.name, found.reason));
        going.chain(self.others_that_stay()).collect()
    }

    fn others_that_stay(&self) -> impl Iterator<Item = String> {
        let now = self.inventory.now.as_second();
        let mirrors = self.inventory.mirrors.iter().map(move |mirror| {
            let unused = show::age(now.saturating_sub(mirror.used_at.as_second()));
            let why = format!("{}, last asked for {unused} ago", show::size(mirror.bytes));
            (Target::Mirror(mirror.path.clone()), why)
        });
        let worker = move |owner: &Owner| format!("its worker {}", life(self.inventory.life(owner)));
        let leases =
            self.inventory.leases.iter().map(move |owner| (Target::Lease(owner.clone()), worker(owner)));
        // Of whom nothing is known, there is no lock.
        let known = self.inventory.lives.iter().filter(|(_, life)| **life != Life::Unknown);
        let locks = known.map(move |(owner, _)| (Target::Lock(owner.clone()), worker(owner)));
        let all = mirrors.chain(leases).chain(locks);
        all.filter(move |(target, _)| {
            let goes = self.found.iter().any(|found| found.target == *target);
            !goes && show::id(target).contains(self.wanted)
        })
        .map(|(target, why)| format!("{} {}: it stays: {why}", show::kind(&target), show::id(&target)))
    }

    fn verdict(
        &self,
        id: &str,
        target: &Target,
        entry: Option<&LedgerEntry>,
        labels: &HashMap<String, String>,
    ) -> String {
        let whose = match entry {
            Some(entry) => self.about(entry),
            None => format!("not ours: {}", why_foreign(self.inventory, labels)),
        };
        let fate = match (self.kept.get(id), self.found.iter().find(|found| found.target == *target)) {
            (Some(why), _) => format!("it stays: {why}"),
            (None, Some(found)) => format!("it goes: {}", found.reason),
            (None, None) => "it stays".to_owned(),
        };
        format!("{whose}; {fate}")
    }

    fn about(&self, entry: &LedgerEntry) -> String {
        let claim = match self.inventory.claims.contains(&ClaimKey::of(entry)) {
            true => "its claim stands",
            false => "its claim is gone",
        };
        let worker = life(self.inventory.life(&entry.owner));
        format!("of {} {}, made by {}: {claim}, its worker {worker}", entry.task, entry.token, entry.owner)
    }
}

fn life(life: Life) -> &'static str {
    match life {
        Life::Alive => "lives",
        Life::Dead => "is dead",
        Life::Left => "left it to a successor",
        Life::Unknown => "is unknown here",
    }
}

fn why_foreign(inventory: &Inventory, labels: &HashMap<String, String>) -> &'static str {
    let Some(said) = Labels::from_map(labels) else { return "it lacks our labels" };
    let Some(entry) = inventory.ledger.get(&said.object) else {
        return "this node's ledger does not know it";
    };
    if said.spool != inventory.spool || entry.spool != inventory.spool {
        "it is another spool's"
    } else if said.owner.node() != inventory.node {
        "it is another node's"
    } else if inventory.entry_of(labels).is_none() {
        "this node's ledger says otherwise"
    } else {
        "it has somebody's own name, was made after our build had ended, or is no step of a build"
    }
}

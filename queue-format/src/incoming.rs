use std::path::PathBuf;
use std::time::SystemTime;

use uuid::Uuid;

use crate::files::Moved;
use crate::filesystem::EntryKind;
use crate::{OpenFile, Owner, PathError, Spool, SpoolError};

/// Characters kept of a dropped file's name.
const NAME_CHARS_MAX: usize = 150;

/// A file of rows that lies in `incoming/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was last written; unchanged between two looks, it is taken to be complete.
    pub modified: SystemTime,
}

/// One master's intake: what it has taken from `incoming/` by a rename, which only one can win, and must finish.
///
/// What a dead master left is adopted by another, file by file: nothing that was dropped is lost. Each taken file has
/// a number of its own, by which its rows are published once, however often they are read.
#[derive(Debug)]
pub struct Intake {
    spool: Spool,
    owner: Owner,
    dir: PathBuf,
}

/// A file of rows that a master has taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// Its number.
    pub source: Uuid,
    /// What it was called in `incoming/`.
    pub name: String,
    path: PathBuf,
}

impl Intake {
    /// Opens the intake of a new incarnation.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn open(spool: &Spool, owner: Owner) -> Result<Self, PathError> {
        let dir = spool.layout().intake(&owner);
        spool.files().make_dirs(&dir)?;
        Ok(Self { spool: spool.clone(), owner, dir })
    }

    /// Takes a dropped file; `None` where somebody else was faster.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn take(&self, dropped: &Dropped) -> Result<Option<Taken>, PathError> {
        let source = self.spool.files().unique();
        // What people wrote stays readable, as far as a file name is long enough for it and the number.
        let name: String = dropped.name.chars().rev().take(NAME_CHARS_MAX).collect();
        let name: String = name.chars().rev().collect();
        let path = self.dir.join(format!("{}.{name}", source.simple()));
        let moved = self.spool.files().rename(&dropped.path, &path)?;
        Ok((moved == Moved::Yes).then_some(Taken { source, name, path }))
    }

    /// Takes over what a dead incarnation had taken, throws away what it had staged, makes pending what it had brought
    /// as far as the ledger, and then removes the last trace of it. The caller vouches that it is dead. Gives the number
    /// of files; after an error it is to be done again.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn adopt(&self, dead: &Owner) -> Result<usize, SpoolError> {
        // In this order: a rename into the ledger that is still on its way finds nothing to rename any more.
        self.spool.discard_staged(dead)?;
        self.spool.finish_chunks()?;
        let theirs = self.spool.layout().intake(dead);
        let mut adopted = 0;
        for name in self.spool.files().list(&theirs)? {
            let moved = self.spool.files().rename(&theirs.join(&name), &self.dir.join(&name))?;
            adopted += usize::from(moved == Moved::Yes);
        }
        end(&self.spool, dead)?;
        Ok(adopted)
    }

    /// What is taken and not finished, in the order in which it was taken.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn taken(&self) -> Result<Vec<Taken>, PathError> {
        let names = self.spool.files().list(&self.dir)?;
        let mut taken: Vec<Taken> = names
            .iter()
            .filter_map(|file_name| {
                let (source, name) = file_name.split_once('.')?;
                let path = self.dir.join(file_name);
                Some(Taken { source: source.parse().ok()?, name: name.to_owned(), path })
            })
            .collect();
        taken.sort();
        Ok(taken)
    }

    /// Opens a taken file for reading.
    ///
    /// # Errors
    /// It is not a regular file, or cannot be read.
    pub fn read(&self, taken: &Taken) -> Result<OpenFile, PathError> {
        self.spool.files().open_regular(&taken.path)
    }

    /// A taken file's size; a writer may still have it open.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn bytes(&self, taken: &Taken) -> Result<u64, PathError> {
        Ok(self.spool.files().look(&taken.path)?.map_or(0, |found| found.bytes))
    }

    /// Puts a taken file back into `incoming/`, under a name of its own: rows that are published are known there.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn put_back(&self, taken: &Taken) -> Result<(), PathError> {
        let name = format!("again-{}.{}", taken.source.simple(), taken.name);
        self.spool.files().rename(&taken.path, &self.spool.layout().incoming().join(name)).map(drop)
    }

    /// Removes a taken file whose every row is published or kept aside.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn finish(&self, taken: &Taken) -> Result<(), PathError> {
        self.spool.files().remove_file(&taken.path)
    }

    /// Ends the intake; files that are still there keep it for another master to adopt. Gives whether it is gone.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn close(self) -> Result<bool, PathError> {
        end(&self.spool, &self.owner)
    }
}

impl Spool {
    /// The `*.json` and `*.jsonl` files in `incoming/`, in order of name.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn dropped(&self) -> Result<Vec<Dropped>, PathError> {
        let dir = self.layout().incoming();
        let mut names = self.files().list(&dir)?;
        names.retain(|name| name.ends_with(".json") || name.ends_with(".jsonl"));
        names.sort();
        let mut found = Vec::new();
        for name in names {
            let path = dir.join(&name);
            // Gone since it was listed: another master took it.
            let Some(seen) = self.files().look(&path)? else { continue };
            if seen.kind == EntryKind::File {
                found.push(Dropped { name, path, bytes: seen.bytes, modified: seen.modified });
            }
        }
        Ok(found)
    }

    /// The incarnations of one node that hold an intake.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn intakes_on(&self, node: &str) -> Result<Vec<Owner>, PathError> {
        Ok(self.intakes()?.into_iter().filter(|owner| owner.node() == node).collect())
    }

    /// Files of rows that no master has finished: dropped or taken.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn unread(&self) -> Result<usize, PathError> {
        let mut unread = self.dropped()?.len();
        for owner in self.intakes()? {
            unread += self.files().list(&self.layout().intake(&owner))?.len();
        }
        Ok(unread)
    }

    fn intakes(&self) -> Result<Vec<Owner>, PathError> {
        let owners = self.files().list(&self.layout().root().join("tmp"))?;
        let owners = owners.iter().filter_map(|name| name.parse().ok());
        Ok(owners.filter(|owner| self.files().is_dir(&self.layout().intake(owner))).collect())
    }
}

fn end(spool: &Spool, owner: &Owner) -> Result<bool, PathError> {
    let gone = spool.files().remove_if_empty(&spool.layout().intake(owner))?;
    spool.files().remove_if_empty(&spool.layout().staging(owner))?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;

    fn owner(n: u128) -> Owner {
        Owner::new("node-a", Incarnation::new(Uuid::from_u128(n)))
    }

    #[test]
    fn only_one_takes_a_file_and_nothing_is_lost_with_its_master() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::init(&dir.path().join("s"), Uuid::from_u128(1)).expect("a spool");
        let drop_in = |name: &str, text: &str| {
            std::fs::write(spool.layout().incoming().join(name), text).expect("written");
        };
        drop_in("a.jsonl", "first");
        drop_in("notes.txt", "not rows");
        std::os::unix::fs::symlink("/etc/passwd", spool.layout().incoming().join("link.json"))
            .expect("a link");
        let seen = spool.dropped().expect("listed");
        assert_eq!(seen.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["a.jsonl"]);

        let dead = Intake::open(&spool, owner(1)).expect("open");
        let late = Intake::open(&spool, owner(2)).expect("open");
        assert!(dead.take(&seen[0]).expect("taken").is_some());
        assert!(late.take(&seen[0]).expect("looked").is_none());

        drop_in("a.jsonl", "second");
        let second = spool.dropped().expect("listed");
        assert!(late.take(&second[0]).expect("taken").is_some());
        assert_eq!(spool.unread().expect("counted"), 2);
        assert_eq!(late.adopt(&owner(1)).expect("adopted"), 1);
        assert_eq!(spool.intakes_on("node-a").expect("listed"), [owner(2)]);

        let mut texts: Vec<String> = Vec::new();
        for path in late.taken().expect("listed") {
            texts.push(std::io::read_to_string(late.read(&path).expect("open").content).expect("text"));
            late.finish(&path).expect("finished");
        }
        texts.sort();
        assert_eq!(texts, ["first", "second"]);
        assert!(late.close().expect("closed"));
        assert_eq!(spool.unread().expect("counted"), 0);
    }
}

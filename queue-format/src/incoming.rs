use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::files::{Moved, end_of};
use crate::filesystem::EntryKind;
use crate::{Owner, PathError, Settling, Spool, SpoolError};

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
/// a number of its own, by which its rows are published once, however often they are read; and they are those that it
/// had when it was taken, whoever still writes it.
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
    /// Its size when it was taken: what counts as its rows.
    pub bytes: u64,
    /// What it was called in `incoming/`.
    pub name: String,
    path: PathBuf,
}

impl Taken {
    /// The file at a path whose name is `<number>.<bytes>.<name>`.
    pub(crate) fn at(path: PathBuf) -> Option<Self> {
        let mut parts = path.file_name()?.to_str()?.splitn(3, '.');
        let (source, bytes) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let name = parts.next()?.to_owned();
        Some(Self { source, bytes, name, path })
    }
}

/// What is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Files of rows that no master has finished: dropped or taken.
    pub files: usize,
    /// What is no file called `*.json` or `*.jsonl`: no master reads it.
    pub ignored: Vec<String>,
}

/// How long a file stays in `incoming/read/` after it was last written: whoever wrote it may only have paused, and still
/// have it open.
pub const READ_KEPT: Duration = Duration::from_secs(600);

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
        let number = self.spool.files().unique().simple();
        let path = self.dir.join(format!("{number}.{}.{}", dropped.bytes, end_of(&dropped.name)));
        let moved = self.spool.files().rename(&dropped.path, &path)?;
        Ok(Taken::at(path).filter(|_| moved == Moved::Yes))
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
        let mut taken: Vec<Taken> = names.iter().filter_map(|name| Taken::at(self.dir.join(name))).collect();
        taken.sort();
        Ok(taken)
    }

    /// Opens the rows of a taken file for reading.
    ///
    /// # Errors
    /// It is not a regular file, or cannot be read.
    pub fn read(&self, taken: &Taken) -> Result<impl Read + Send + use<>, PathError> {
        Ok(self.spool.files().open_regular(&taken.path)?.content.take(taken.bytes))
    }

    /// Puts a taken file, whose every row is published or kept aside, into `incoming/read/`: whoever sees there that it
    /// has grown puts it back.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn finish(&self, taken: &Taken) -> Result<(), PathError> {
        let name = taken.path.file_name().unwrap_or_default();
        self.spool.files().bring(&taken.path, &self.spool.layout().read().join(name)).map(drop)
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
    /// Puts files back into `incoming/` that have grown since they were read, under names of their own, and gives how they
    /// were called: rows that are published are known there. Removes those that have rested for long enough to be let
    /// through by `settling`.
    ///
    /// # Errors
    /// The spool cannot be read or written.
    pub fn look_after_read(
        &self,
        settling: &mut Settling,
        elapsed: Duration,
    ) -> Result<Vec<String>, PathError> {
        let (files, dir) = (self.files(), self.layout().read());
        let (mut again, mut resting) = (Vec::new(), Vec::new());
        for file_name in files.list(&dir)? {
            let Some(Taken { source, bytes, name, path }) = Taken::at(dir.join(&file_name)) else { continue };
            // Gone since it was listed: another master was faster.
            let Some(seen) = files.look(&path)? else { continue };
            if seen.bytes == bytes {
                resting.push(Dropped { name: file_name, path, bytes, modified: seen.modified });
            } else {
                let target = format!("again-{}.{name}", source.simple());
                files.rename(&path, &self.layout().incoming().join(target))?;
                again.push(name);
            }
        }
        for file in settling.look(resting, elapsed) {
            files.remove_file(&file.path)?;
        }
        Ok(again)
    }

    /// The `*.json` and `*.jsonl` files in `incoming/`, in order of name.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn dropped(&self) -> Result<Vec<Dropped>, PathError> {
        Ok(self.look_into_incoming()?.0)
    }

    /// What is dropped, and the names of what no master reads.
    fn look_into_incoming(&self) -> Result<(Vec<Dropped>, Vec<String>), PathError> {
        let (layout, files) = (self.layout(), self.files());
        let dir = layout.incoming();
        let ours = [layout.rejected(), layout.read()];
        let mut names = files.list(&dir)?;
        names.sort();
        let (mut dropped, mut ignored) = (Vec::new(), Vec::new());
        for name in names {
            let path = dir.join(&name);
            match is_rows(&name).then(|| files.look(&path)).transpose()? {
                // Gone since it was listed: another master took it.
                Some(None) => {}
                Some(Some(seen)) if seen.kind == EntryKind::File => {
                    dropped.push(Dropped { name, path, bytes: seen.bytes, modified: seen.modified });
                }
                _ if name.starts_with('.') || ours.contains(&path) => {}
                _ => ignored.push(name),
            }
        }
        Ok((dropped, ignored))
    }

    /// The incarnations of one node that hold an intake.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn intakes_on(&self, node: &str) -> Result<Vec<Owner>, PathError> {
        Ok(self.intakes()?.into_iter().filter(|owner| owner.node() == node).collect())
    }

    /// What lies in `incoming/` and is not read.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn unread(&self) -> Result<Unread, PathError> {
        let (dropped, ignored) = self.look_into_incoming()?;
        let mut files = dropped.len();
        for owner in self.intakes()? {
            files += self.files().list(&self.layout().intake(&owner))?.len();
        }
        Ok(Unread { files, ignored })
    }

    fn intakes(&self) -> Result<Vec<Owner>, PathError> {
        let owners = self.files().list(&self.layout().tmp())?;
        let owners = owners.iter().filter_map(|name| name.parse().ok());
        Ok(owners.filter(|owner| self.files().is_dir(&self.layout().intake(owner))).collect())
    }
}

/// Whether masters read a file of this name.
pub(crate) fn is_rows(name: &str) -> bool {
    name.ends_with(".json") || name.ends_with(".jsonl")
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
        assert_eq!(spool.unread().expect("counted").files, 2);
        assert_eq!(late.adopt(&owner(1)).expect("adopted"), 1);
        assert_eq!(spool.intakes_on("node-a").expect("listed"), [owner(2)]);

        let mut texts: Vec<String> = Vec::new();
        for path in late.taken().expect("listed") {
            texts.push(std::io::read_to_string(late.read(&path).expect("open")).expect("text"));
            late.finish(&path).expect("finished");
        }
        texts.sort();
        assert_eq!(texts, ["first", "second"]);
        assert!(late.close().expect("closed"));
        let left = ["link.json".to_owned(), "notes.txt".to_owned()];
        assert_eq!(spool.unread().expect("counted"), Unread { files: 0, ignored: left.to_vec() });
    }
    #[test]
    fn rows_that_a_slow_writer_adds_after_its_file_was_read_are_read_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::init(&dir.path().join("s"), Uuid::from_u128(1)).expect("a spool");
        let mut writer = std::fs::File::create(spool.layout().incoming().join("a.jsonl")).expect("made");
        let mut write =
            |text: &str| std::io::Write::write_all(&mut writer, text.as_bytes()).expect("written");
        let intake = Intake::open(&spool, owner(1)).expect("open");
        let mut settling = Settling::new(READ_KEPT);
        let read = || {
            let dropped = spool.dropped().expect("listed");
            let taken = intake.take(dropped.first()?).expect("looked").expect("taken");
            let text = std::io::read_to_string(intake.read(&taken).expect("open")).expect("text");
            intake.finish(&taken).expect("finished");
            Some((taken.name, text))
        };
        let mut look = |seconds| {
            spool.look_after_read(&mut settling, Duration::from_secs(seconds)).expect("looked after")
        };
        write("first");
        assert_eq!(read(), Some(("a.jsonl".to_owned(), "first".to_owned())));
        assert_eq!(look(0), Vec::<String>::new());
        assert_eq!(look(599), Vec::<String>::new());
        assert_eq!((read(), spool.unread().expect("counted").files), (None, 0));
        write(" second");
        assert_eq!(look(600), ["a.jsonl"], "put back, and not removed");
        let (name, text) = read().expect("dropped again");
        assert!(name.starts_with("again-") && name.ends_with(".a.jsonl"), "{name}");
        assert_eq!(text, "first second");
        assert_eq!(look(601), Vec::<String>::new());
        assert_eq!(spool.files().list(&spool.layout().read()).expect("listed").len(), 1);
        assert_eq!(look(1201), Vec::<String>::new());
        assert_eq!(spool.files().list(&spool.layout().read()).expect("listed"), Vec::<String>::new());
    }
}

//! Which engine made what the ledger names. Another one, or the same one over an empty disk, has none of it, and proves
//! nothing gone.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use systemd::state_file;

/// The file in the state directory.
const MAKER_FILE: &str = "janitor-engine.json";

/// What an engine's store is known by, as far as it can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Maker {
    /// What Docker calls itself. Podman makes a new name up with every answer: it has none.
    pub(crate) id: Option<String>,
    /// Where it keeps everything.
    pub(crate) root_dir: Option<PathBuf>,
    /// The inode of that: where a disk is not mounted, the directory below is another one.
    pub(crate) root_inode: Option<u64>,
}

impl Maker {
    /// Of an engine that keeps everything there, on this machine.
    pub(crate) fn new(id: Option<String>, root_dir: Option<&Path>) -> Self {
        let root_inode = root_dir.and_then(|dir| Some(dir.metadata().ok()?.ino()));
        Self { id, root_dir: root_dir.map(Path::to_owned), root_inode }
    }

    /// Whether it cannot be the same as another one; what only one of them shows tells nothing.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| one != other)
        }
        differ(self.id.as_ref(), other.id.as_ref())
            || differ(self.root_dir.as_ref(), other.root_dir.as_ref())
            || differ(self.root_inode.as_ref(), other.root_inode.as_ref())
    }

    /// Which one it was; `None` where none is known.
    pub(crate) fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(file(state_dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Ok(Some(serde_json::from_slice(&text?)?)),
        }
    }

    pub(crate) fn forget(state_dir: &Path) -> io::Result<()> {
        std::fs::remove_file(file(state_dir))
    }

    pub(crate) fn write(&self, state_dir: &Path) -> io::Result<()> {
        state_file::replace(&file(state_dir), &serde_json::to_vec(self)?, 0o644)
    }
}

/// What an operator is told who has another engine than before.
pub(crate) fn told(state_dir: &Path) -> String {
    format!(
        "another container engine answers than the one that made what the ledger names, or its disk is not mounted: nothing \
         is forgotten on its word; bring the other one back or, where this one is to stay, remove {}",
        file(state_dir).display()
    )
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(MAKER_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_engine_is_told_by_what_both_show() {
        let of = |id: &str, root_dir: &str, root_inode: u64| Maker {
            id: Some(id.to_owned()).filter(|id| !id.is_empty()),
            root_dir: Some(PathBuf::from(root_dir)).filter(|_| !root_dir.is_empty()),
            root_inode: Some(root_inode).filter(|inode| *inode > 0),
        };
        let check = |one: &Maker, other: &Maker, expected: bool| {
            assert_eq!(one.differs(other), expected, "{one:?} {other:?}");
            assert_eq!(other.differs(one), expected, "{other:?} {one:?}");
        };
        let docker = of("AB:CD", "/var/lib/docker", 2);
        check(&docker, &docker.clone(), false);
        check(&docker, &of("EF:GH", "/var/lib/docker", 2), true);
        check(&docker, &of("AB:CD", "/data/docker", 2), true);
        check(&docker, &of("AB:CD", "/var/lib/docker", 4711), true);
        // Over the network, or by somebody who may not look there.
        check(&docker, &of("AB:CD", "", 0), false);
        check(&docker, &of("AB:CD", "/var/lib/docker", 0), false);
        check(&docker, &of("", "/var/lib/containers/storage", 9), true);
        check(&docker, &Maker::default(), false);
    }

    #[test]
    fn it_is_known_again_and_a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(Maker::read(dir.path()).expect("none"), None);
        let maker = Maker::new(Some("AB:CD".to_owned()), Some(dir.path()));
        assert!(maker.root_inode.is_some());
        maker.write(dir.path()).expect("written");
        assert_eq!(Maker::read(dir.path()).expect("one"), Some(maker));
        std::fs::write(file(dir.path()), "{").expect("written");
        assert!(Maker::read(dir.path()).is_err());
    }
}

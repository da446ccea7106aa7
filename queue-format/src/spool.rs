use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files::Files;
use crate::filesystem::{Disk, Filesystem};
use crate::{Layout, Owner, PathError, SpoolError, Timing};

/// The version of the spool's layout. 1: first.
const FORMAT: u32 = 1;

/// The largest spool.toml that is read.
const IDENTITY_BYTES_MAX: u64 = 1 << 16;

/// Which spool; labels on containers carry it, so that two spools on one node never touch each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpoolId(Uuid);

/// An opened spool.
#[derive(Clone, Debug)]
pub struct Spool {
    layout: Layout,
    id: SpoolId,
    timing: Timing,
    files: Files,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    uuid: SpoolId,
    format: u32,
    #[serde(default)]
    timing: Timing,
}

impl Identity {
    fn read(files: &Files, layout: &Layout) -> Result<Self, SpoolError> {
        let path = layout.identity();
        let damaged = |why: String| SpoolError::Identity { path: path.clone(), why };
        let read = files.read_regular(&path, IDENTITY_BYTES_MAX);
        let bytes = read.map_err(|error| no_spool(layout.root(), error))?;
        let text = String::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
        let identity: Self = toml::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        if identity.format > FORMAT {
            let path = layout.root().to_owned();
            return Err(SpoolError::NewerFormat { path, found: identity.format, supported: FORMAT });
        }
        identity.timing.check().map_err(&damaged)?;
        Ok(identity)
    }
}

/// Why a spool cannot be opened: it is missing only where the system says so.
fn no_spool(root: &Path, error: PathError) -> SpoolError {
    match error.source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SpoolError::NotASpool(root.to_owned()),
        ErrorKind::PermissionDenied => SpoolError::Denied(root.to_owned()),
        _ => error.into(),
    }
}

impl Spool {
    /// Makes a spool, or opens the one that is there. `unique` becomes its identity if it is new.
    ///
    /// # Errors
    /// The directory cannot be written, or holds something else than a spool.
    pub fn init(root: &Path, unique: Uuid) -> Result<Self, SpoolError> {
        Self::init_on(Arc::new(Disk), root, unique)
    }

    /// [`Spool::init`] on a file system of the caller's.
    ///
    /// # Errors
    /// As for [`Spool::init`].
    pub fn init_on(filesystem: Arc<dyn Filesystem>, root: &Path, unique: Uuid) -> Result<Self, SpoolError> {
        let layout = Layout::new(root);
        let files = Files::new(filesystem.clone());
        if files.is_there(&layout.identity()) {
            return Self::open_on(filesystem, root);
        }
        files.make_dirs(root)?;
        if !files.list(root)?.is_empty() {
            let source = std::io::Error::other("it is not empty and not a spool; choose another directory");
            return Err(PathError { action: "make a spool in", path: root.to_owned(), source }.into());
        }
        // The identity comes first: a second init after a crash finds it and makes the missing directories.
        let text = format!("# Written once by bottega init.\nuuid = \"{unique}\"\nformat = {FORMAT}\n");
        files.replace(&layout.identity(), text.as_bytes())?;
        files.sync_dir(root)?;
        Self::open_on(filesystem, root)
    }

    /// Opens a spool; directories that a person removed are made again.
    ///
    /// # Errors
    /// There is no spool, its identity is damaged, or it is of a newer format.
    pub fn open(root: &Path) -> Result<Self, SpoolError> {
        let found = root.canonicalize();
        let found = found.map_err(|source| PathError { action: "find", path: root.to_owned(), source });
        let root = found.map_err(|error| no_spool(root, error))?;
        Self::open_on(Arc::new(Disk), &root)
    }

    /// [`Spool::open`] on a file system of the caller's; `root` is absolute and names no symbolic link.
    ///
    /// # Errors
    /// As for [`Spool::open`].
    pub fn open_on(filesystem: Arc<dyn Filesystem>, root: &Path) -> Result<Self, SpoolError> {
        let files = Files::new(filesystem);
        let layout = Layout::new(root);
        let identity = Identity::read(&files, &layout)?;
        for dir in layout.directories() {
            if !files.is_dir(&dir) {
                files.make_dirs(&dir)?;
            }
        }
        Ok(Self { layout, id: identity.uuid, timing: identity.timing, files })
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Which spool this is.
    #[must_use]
    pub fn id(&self) -> SpoolId {
        self.id
    }

    /// That it is the spool which was expected.
    ///
    /// # Errors
    /// It is another.
    pub fn expect_id(&self, expected: SpoolId) -> Result<(), SpoolError> {
        self.compare(expected, self.id)
    }

    /// That it still lies there: not another, nor none, once something else was mounted or unmounted there.
    ///
    /// # Errors
    /// As for [`Spool::open`], and it is another.
    pub fn is_still_there(&self) -> Result<(), SpoolError> {
        self.compare(self.id, Identity::read(&self.files, &self.layout)?.uuid)
    }

    /// What it means that nothing is left of an incarnation: it was taken for dead, unless the whole spool is away.
    pub(crate) fn nothing_left_of(&self, owner: &Owner) -> SpoolError {
        self.is_still_there().err().unwrap_or_else(|| SpoolError::LeaseClosed(owner.clone()))
    }

    fn compare(&self, expected: SpoolId, found: SpoolId) -> Result<(), SpoolError> {
        if found == expected {
            return Ok(());
        }
        Err(SpoolError::OtherSpool { path: self.layout.root().to_owned(), expected, found })
    }

    /// When silence is death.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }
}

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SpoolId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

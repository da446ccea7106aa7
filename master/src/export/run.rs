use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use queue_format::{AcceptanceClass, DoneClass, Located, PathError, Spool, State, TaskName};

use super::Format;
use super::row::{Damaged, row_of};

/// What errors call an output without a path.
const STANDARD_OUTPUT: &str = "standard output";

/// Tasks that are sorted in memory; where there are more, the names are gone through again for the next.
const SORTED_MAX: usize = 50_000;

/// Which accepted tasks are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All.
    All,
    /// Those of these classes.
    Classes(Vec<AcceptanceClass>),
}

/// An export of a spool.
pub struct Export<'a> {
    /// From where.
    pub spool: &'a Spool,
    /// What rows look like.
    pub format: Format,
    /// Which tasks.
    pub filter: &'a Filter,
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Rows by class.
    pub rows: BTreeMap<String, usize>,
    /// Accepted tasks of classes that were not asked for, by class.
    pub left_out: BTreeMap<String, usize>,
    /// Accepted tasks whose results cannot be used.
    pub damaged: usize,
    /// The first of them: id and why.
    pub shown: Vec<(String, String)>,
}

/// Damaged tasks that are named; the others are counted.
const DAMAGED_SHOWN: usize = 20;

impl Exported {
    fn damaged(&mut self, task: &TaskName, why: String) {
        self.damaged += 1;
        if self.shown.len() < DAMAGED_SHOWN {
            self.shown.push((task.id.to_string(), why));
        }
    }
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The spool cannot be listed.
    #[error(transparent)]
    Spool(#[from] PathError),
    /// The file cannot be written.
    #[error("cannot write {}: {source}; nothing was left behind: choose another --out, or free space there", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ExportError {
    /// The same of the file that the output goes to.
    fn on(self, path: &Path) -> Self {
        match self {
            Self::Write { source, .. } => Self::Write { path: path.to_owned(), source },
            other => other,
        }
    }
}

impl Export<'_> {
    /// Writes all rows, sorted by id, into a file that appears whole or not at all.
    ///
    /// # Errors
    /// The spool cannot be listed, or the file not be written; then an older file of that name is as it was.
    pub fn to_file(&self, path: &Path) -> Result<Exported, ExportError> {
        let unwritable = |source| ExportError::Write { path: path.to_owned(), source };
        // A link is followed; what is no regular file, such as a pipe or /dev/stdout, is written to and not replaced.
        let resolved = path.canonicalize();
        let path = resolved.as_deref().unwrap_or(path);
        if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            let out = OpenOptions::new().write(true).open(path).map_err(unwritable)?;
            return self.to_writer(&mut BufWriter::new(out)).map_err(|error| error.on(path));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let staged = tempfile::Builder::new()
            .prefix(".bottega-export-")
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(unwritable)?;
        let mut out = BufWriter::new(staged);
        let exported = self.to_writer(&mut out).map_err(|error| error.on(path))?;
        let staged = out.into_inner().map_err(|e| unwritable(e.into_error()))?;
        staged.as_file().sync_all().map_err(unwritable)?;
        staged.persist(path).map_err(|e| unwritable(e.error))?;
        Ok(exported)
    }

    /// As [`Export::to_file`], to anything.
    ///
    /// # Errors
    /// The spool cannot be listed, or `out` not be written.
    pub fn to_writer(&self, out: &mut impl Write) -> Result<Exported, ExportError> {
        let mut exported = Exported::default();
        let mut last: Option<TaskName> = None;
        loop {
            let next = self.next(last.as_ref(), &mut exported)?;
            if next.is_empty() {
                break;
            }
            for (class, task) in next.into_values() {
                if last.as_ref().is_some_and(|last| last.id == task.name.id) {
                    let why = format!("it lies in done/ twice; {} was left out", task.path.display());
                    exported.damaged(&task.name, why);
                } else {
                    match row_of(self.spool, &task, class, self.format) {
                        Ok(row) => {
                            let line = serde_json::Value::Object(row).to_string();
                            writeln!(out, "{line}").map_err(|source| ExportError::Write {
                                path: STANDARD_OUTPUT.into(),
                                source,
                            })?;
                            *exported.rows.entry(class.to_string()).or_default() += 1;
                        }
                        Err(Damaged(why)) => exported.damaged(&task.name, why),
                    }
                }
                last = Some(task.name);
            }
        }
        out.flush().map_err(|source| ExportError::Write { path: STANDARD_OUTPUT.into(), source })?;
        Ok(exported)
    }

    /// The wanted tasks that follow one in order of id: as many as are held in memory at once. The first look counts those
    /// that are not wanted. The directory tells the class: whoever moved a task from one to another meant it.
    fn next(
        &self,
        after: Option<&TaskName>,
        exported: &mut Exported,
    ) -> Result<BTreeMap<TaskName, (AcceptanceClass, Located)>, PathError> {
        let wanted = |class: AcceptanceClass| match self.filter {
            Filter::All => true,
            Filter::Classes(classes) => classes.contains(&class),
        };
        let mut next = BTreeMap::new();
        self.spool.visit_settled(|task| {
            let State::Done(DoneClass::Accepted(class)) = task.state else { return };
            if !wanted(class) {
                if after.is_none() {
                    *exported.left_out.entry(class.to_string()).or_default() += 1;
                }
            } else if after.is_none_or(|after| task.name > *after) {
                next.insert(task.name.clone(), (class, task));
                if next.len() > SORTED_MAX {
                    next.pop_last();
                }
            }
        })?;
        Ok(next)
    }
}

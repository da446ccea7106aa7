use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::OnPath;
use crate::files::{Files, Moved, Staged, end_of};
use crate::{PathError, Spool};

/// Rows that were refused, on their way to `incoming/rejected/<name>.jsonl`, with `<name>.jsonl.reasons` beside it.
/// Nothing appears there before [`Rejects::finish`], and nothing at all where no row was refused.
#[derive(Debug)]
pub struct Rejects {
    dir: PathBuf,
    name: String,
    files: Files,
    staged: Option<Pair>,
}

#[derive(Debug)]
struct Pair {
    rows: Staged,
    reasons: Staged,
}

impl Rejects {
    /// Rejects of the input called `name`; what is no plain file name becomes `-`.
    #[must_use]
    pub fn new(spool: &Spool, name: &str) -> Self {
        /// Leaves room for a time and an ending in 255 bytes.
        const NAME_CHARS_MAX: usize = 180;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name: String =
            name.chars().take(NAME_CHARS_MAX).map(|c| if plain(c) { c } else { '-' }).collect();
        // A leading dot would hide the file from whoever looks for it.
        let name = name.trim_start_matches('.').to_owned();
        Self { dir: spool.layout().rejected(), name, files: spool.files().clone(), staged: None }
    }

    /// Keeps one row as it was, and one line that says why it was refused.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn keep(&mut self, row: &[u8], reason: &str) -> Result<(), PathError> {
        let staged = match &mut self.staged {
            Some(staged) => staged,
            none => none
                .insert(Pair { rows: self.files.stage(&self.dir)?, reasons: self.files.stage(&self.dir)? }),
        };
        let rows = &mut staged.rows;
        rows.write_all(row).and_then(|()| rows.write_all(b"\n")).on_path("write", rows.path())?;
        let reasons = &mut staged.reasons;
        writeln!(reasons, "{reason}").on_path("write", reasons.path())
    }

    /// Gives both files their names; the path of the rows, where any was refused.
    ///
    /// # Errors
    /// The spool cannot be written; then neither of them stays.
    pub fn finish(self) -> Result<Option<PathBuf>, PathError> {
        let Some(Pair { rows, reasons }) = self.staged else { return Ok(None) };
        let path = self.dir.join(format!("{}.jsonl", self.name));
        let beside = self.dir.join(format!("{}.jsonl.reasons", self.name));
        // The reasons first: rows are never there without them.
        reasons.settle(&beside)?;
        rows.settle(&path).inspect_err(|_| {
            let _ = self.files.remove_file(&beside);
        })?;
        self.files.sync_dir(&self.dir)?;
        Ok(Some(path))
    }
}

impl Spool {
    /// Keeps something that is no task in `incoming/rejected/`, with the reason beside it.
    pub(crate) fn keep_aside(&self, path: &Path, why: &str) -> Result<(), PathError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{}.{}", self.files().unique().simple(), end_of(&name));
        let kept = self.layout().rejected().join(name);
        if self.files().rename(path, &kept)? == Moved::Yes {
            self.leave_reason(&kept, why)?;
        }
        Ok(())
    }

    /// Says beside what is kept why it is.
    pub(crate) fn leave_reason(&self, kept: &Path, why: &str) -> Result<(), PathError> {
        let mut beside = kept.to_owned().into_os_string();
        beside.push(".reason");
        self.files().replace(Path::new(&beside), format!("{why}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_reasons_appear_together_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::init(&dir.path().join("s"), uuid::Uuid::from_u128(1)).expect("a spool");
        assert_eq!(Rejects::new(&spool, "none").finish().expect("finished"), None);
        let mut rejects = Rejects::new(&spool, "../we ird.jsonl.20260101T000000Z");
        rejects.keep(b"{broken", "line 1: malformed").expect("kept");
        rejects.keep(b"{}", "line 2: empty").expect("kept");
        assert_eq!(spool.files().list(&spool.layout().rejected()).expect("listed"), Vec::<String>::new());
        let path = rejects.finish().expect("finished").expect("a path");
        assert_eq!(path, spool.layout().rejected().join("-we-ird.jsonl.20260101T000000Z.jsonl"));
        assert_eq!(std::fs::read_to_string(&path).expect("rows"), "{broken\n{}\n");
        let reasons = std::fs::read_to_string(path.with_extension("jsonl.reasons")).expect("reasons");
        assert_eq!(reasons, "line 1: malformed\nline 2: empty\n");
    }
}

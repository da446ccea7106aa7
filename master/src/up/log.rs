use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A daemon's log is cut when it has grown beyond this; what was in it before is kept once more beside it.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// As much of its end is read to find the last lines.
const TAIL_BYTES_MAX: u64 = 16 << 10;

/// The file that a daemon's output goes to.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    path: PathBuf,
}

impl LogFile {
    pub(super) fn new(dir: &Path, program: &str) -> Self {
        Self { path: dir.join(format!("{program}.log")) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for appending, and tells its length: what follows is the daemon's own.
    pub(super) fn open(&self) -> io::Result<(File, u64)> {
        self.cut()?;
        let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Cuts it where it has grown too long. The daemon keeps the file open, and appends: it goes on at the new end.
    pub(super) fn cut(&self) -> io::Result<()> {
        if self.path.metadata().is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
            std::fs::copy(&self.path, self.path.with_extension("log.1"))?;
            OpenOptions::new().write(true).open(&self.path)?.set_len(0)?;
        }
        Ok(())
    }

    /// The last lines written since `from`.
    pub(super) fn last_lines(&self, from: u64, lines_max: usize) -> Vec<String> {
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        let end = file.metadata().map_or(0, |found| found.len());
        // Shorter than before: it was cut in between.
        let from = if from > end { 0 } else { from };
        let start = from.max(end.saturating_sub(TAIL_BYTES_MAX));
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(start)).is_err()
            || file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes).is_err()
        {
            return Vec::new();
        }
        let text = crate::text::clean(&String::from_utf8_lossy(&bytes));
        let lines: Vec<String> =
            text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        lines[lines.len().saturating_sub(lines_max)..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn tells_the_last_lines_of_this_run_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = LogFile::new(dir.path(), "bottega-worker");
        let (mut file, from) = log.open().expect("open");
        writeln!(file, "of an earlier run").expect("written");
        assert_eq!((from, log.last_lines(0, 3).len()), (0, 1));
        let (mut file, from) = log.open().expect("open");
        assert_eq!(log.last_lines(from, 3), Vec::<String>::new());
        writeln!(file, "one\n\ntwo\n\u{1b}[31mthree\u{1b}[0m\nfour").expect("written");
        assert_eq!(log.last_lines(from, 3), ["two", "three", "four"]);
        file.set_len(LOG_BYTES_MAX + 1).expect("grown");
        log.cut().expect("cut");
        writeln!(file, "after the cut").expect("written");
        assert_eq!(log.last_lines(from, 3), ["after the cut"]);
    }
}

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use queue_format::Instance;
use serde_json::json;
use tempfile::TempPath;

use super::{FilterConfig, Funnel, Stage};

/// The accepted rows, one a line, as `bottega submit` reads them.
pub const ROWS_FILE: &str = "rows.jsonl";
/// What was turned away: place, id, stage, reason, one a line.
pub const REJECTED_FILE: &str = "rejected.jsonl";
/// The counts, for programs.
pub const FUNNEL_FILE: &str = "funnel.json";
/// The counts, drawn.
pub const FUNNEL_CHART: &str = "funnel.svg";
/// All of it, for people.
pub const REPORT_FILE: &str = "report.md";

/// Where events were read: the repositories to collect from, one a line.
pub const REPOSITORIES_FILE: &str = "repositories.txt";

/// The files of one run of the filter. They appear at its end, each whole, and take the place of those of an earlier
/// run.
pub(super) struct Output {
    dir: PathBuf,
    rows: Part,
    rejected: Part,
}

impl Output {
    /// In this directory, which is made if it is missing.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        // Whoever has this one locked has them all.
        let rows = Part::create(dir, ROWS_FILE)?;
        Ok(Self { dir: dir.to_owned(), rows, rejected: Part::create(dir, REJECTED_FILE)? })
    }

    pub(super) fn accept(&mut self, instance: &Instance) -> io::Result<()> {
        serde_json::to_writer(&mut self.rows.file, instance)?;
        self.rows.file.write_all(b"\n")
    }

    pub(super) fn reject(&mut self, place: &str, id: &str, stage: Stage, reason: &str) -> io::Result<()> {
        let line = json!({ "place": place, "id": id, "stage": stage, "reason": reason });
        serde_json::to_writer(&mut self.rejected.file, &line)?;
        self.rejected.file.write_all(b"\n")
    }

    /// Writes the funnel, and has all files appear once all are written: the accepted rows last, so that whoever sees
    /// them sees the rest.
    pub(super) fn finish(
        self,
        funnel: &Funnel,
        config: &FilterConfig,
        inputs: &[String],
        repositories: Option<&BTreeSet<String>>,
    ) -> io::Result<()> {
        let Self { dir, rows, rejected } = self;
        let counts = json!({
            "read": funnel.read(), "accepted": funnel.accepted(), "steps": funnel.steps(), "inputs": inputs,
            "thresholds": config,
        });
        let report = report(funnel, config, inputs).map_err(io::Error::other)?;
        let mut parts = Vec::new();
        let mut texts =
            vec![(FUNNEL_FILE, format!("{counts:#}\n")), (FUNNEL_CHART, funnel.svg()), (REPORT_FILE, report)];
        let listed = repositories.map(|them| them.iter().map(|repo| format!("{repo}\n")).collect());
        texts.extend(listed.map(|text: String| (REPOSITORIES_FILE, text)));
        for (name, text) in texts {
            let mut part = Part::create(&dir, name)?;
            part.file.write_all(text.as_bytes())?;
            parts.push(part);
        }
        parts.extend([rejected, rows]);
        parts.iter_mut().try_for_each(Part::sync)?;
        parts.into_iter().try_for_each(Part::keep)?;
        File::open(&dir)?.sync_all()
    }
}

/// A file that is not whole yet, under a name of its own; the next run takes that name over from one that was killed.
struct Part {
    /// Removed when it is dropped, and before the lock on it goes.
    path: TempPath,
    file: BufWriter<File>,
    whole: PathBuf,
}

impl Part {
    fn create(dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(format!("{name}.part"));
        let busy = || io::Error::other("another command writes into it");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        // The kernel drops the lock with the process.
        file.try_lock().map_err(|_| busy())?;
        // Until now it may have been somebody's, who has renamed or removed it since.
        let is_there = std::fs::metadata(&path).is_ok_and(|there| {
            file.metadata().is_ok_and(|opened| (there.dev(), there.ino()) == (opened.dev(), opened.ino()))
        });
        if !is_there {
            return Err(busy());
        }
        file.set_len(0)?;
        let path = TempPath::try_from_path(path)?;
        Ok(Self { path, file: BufWriter::new(file), whole: dir.join(name) })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    fn keep(self) -> io::Result<()> {
        self.path.persist(&self.whole).map_err(|error| error.error)
    }
}

fn report(funnel: &Funnel, config: &FilterConfig, inputs: &[String]) -> Result<String, systemd::ConfigError> {
    let mut text = format!(
        "# From {} rows to {} tasks\n\n![Rows that each stage left]({FUNNEL_CHART})\n\n```\n{}\n```\n\nRead:\n\n",
        funnel.read(),
        funnel.accepted(),
        funnel.text(None)
    );
    for input in inputs {
        text.push_str(&format!("- {input}\n"));
    }
    let thresholds = systemd::config::print(config, "ingest")?;
    text.push_str(&format!("\nWith these thresholds:\n\n```toml\n{thresholds}```\n"));
    text.push_str(&format!(
        "\nAccepted rows are in {ROWS_FILE}, the others with their reasons in {REJECTED_FILE}.\n"
    ));
    Ok(text)
}

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use queue_format::Instance;
use serde_json::json;
use tempfile::NamedTempFile;

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

/// The files of one run of the filter. They appear at its end, each whole, and take the place of those of an earlier
/// run.
pub(super) struct Output {
    dir: PathBuf,
    rows: BufWriter<NamedTempFile>,
    rejected: BufWriter<NamedTempFile>,
}

impl Output {
    /// In this directory, which is made if it is missing.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = || Ok::<_, io::Error>(BufWriter::new(NamedTempFile::new_in(dir)?));
        Ok(Self { dir: dir.to_owned(), rows: file()?, rejected: file()? })
    }

    pub(super) fn accept(&mut self, instance: &Instance) -> io::Result<()> {
        serde_json::to_writer(&mut self.rows, instance)?;
        self.rows.write_all(b"\n")
    }

    pub(super) fn reject(&mut self, place: &str, id: &str, stage: Stage, reason: &str) -> io::Result<()> {
        let line = json!({ "place": place, "id": id, "stage": stage, "reason": reason });
        serde_json::to_writer(&mut self.rejected, &line)?;
        self.rejected.write_all(b"\n")
    }

    /// Writes the funnel, and has all files appear: the accepted rows last, so that whoever sees them sees the rest.
    pub(super) fn finish(self, funnel: &Funnel, config: &FilterConfig, inputs: &[String]) -> io::Result<()> {
        let Self { dir, rows, rejected } = self;
        let counts = json!({
            "read": funnel.read(), "accepted": funnel.accepted(), "steps": funnel.steps(), "inputs": inputs,
            "thresholds": config,
        });
        let report = report(funnel, config, inputs).map_err(io::Error::other)?;
        for (name, text) in
            [(FUNNEL_FILE, format!("{counts:#}\n")), (FUNNEL_CHART, funnel.svg()), (REPORT_FILE, report)]
        {
            let mut file = NamedTempFile::new_in(&dir)?;
            file.write_all(text.as_bytes())?;
            keep(file, &dir.join(name))?;
        }
        for (writer, name) in [(rejected, REJECTED_FILE), (rows, ROWS_FILE)] {
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            keep(file, &dir.join(name))?;
        }
        Ok(())
    }
}

fn keep(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    readable_by_all(&file)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Temporary files are their owner's alone; a dataset is not.
fn readable_by_all(file: &NamedTempFile) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
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

//! From the table to repositories, rows and expectations.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use queue_format::Instance;
use serde::{Deserialize, Serialize};

use super::CorpusError;
use super::compare::{Expectation, Expectations};
use super::fetch::{Downloader, Request};
use super::git::Git;
use super::repository::{Sources, add_task, branch};
use super::sdist::verify;
use super::table::{Table, Task};

/// Raised when the same table makes other commits or rows than before: rows of older versions are made anew.
const ROW_VERSION: u32 = 1;

/// Which tasks of the table are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// Those of `make demo`.
    Demo,
    /// Those of `make test`.
    Ci,
    /// By id.
    Only(Vec<String>),
}

/// What was made, and what was there already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Rows in tasks.jsonl.
    pub tasks: usize,
    /// Of these, tasks whose commits and row were there.
    pub tasks_reused: usize,
    /// Source distributions that were downloaded now.
    pub downloaded: usize,
    /// Source distributions that lay in the cache.
    pub cached: usize,
    /// Where the rows are.
    pub dataset: PathBuf,
    /// Where the expectations are.
    pub expected: PathBuf,
    /// For `bottega submit --repositories`.
    pub repositories: String,
}

/// A row that was made, and all that it was made of.
#[derive(Serialize, Deserialize)]
struct KeptRow {
    made_of: String,
    row: Instance,
}

impl Selection {
    /// The selected tasks, in the order of the table.
    ///
    /// # Errors
    /// An id that the table does not have.
    pub fn of<'a>(&self, table: &'a Table) -> Result<Vec<&'a Task>, CorpusError> {
        if let Self::Only(ids) = self
            && let Some(unknown) = ids.iter().find(|id| !table.tasks.iter().any(|task| task.id == **id))
        {
            return Err(CorpusError::UnknownTask(unknown.clone()));
        }
        let selects = |task: &&Task| match self {
            Self::All => true,
            Self::Demo => task.demo,
            Self::Ci => task.ci,
            Self::Only(ids) => ids.contains(&task.id),
        };
        Ok(table.tasks.iter().filter(selects).collect())
    }
}

/// Makes the selected tasks under `out`; what is there already is used again.
///
/// # Errors
/// Whatever step fails first; everything made before it stays and is used by the next call.
pub async fn make(
    table: &Table,
    selection: &Selection,
    downloader: &Downloader,
    out: &Path,
) -> Result<Made, CorpusError> {
    let tasks = selection.of(table)?;
    let out = create(out)?;
    let (sdists, rows) = (create(&out.join("sdists"))?, create(&out.join("rows"))?);
    let (downloaded, cached) = provide_archives(table, &tasks, downloader, &sdists).await?;
    let mut made = Made {
        tasks: tasks.len(),
        downloaded,
        cached,
        dataset: out.join("tasks.jsonl"),
        expected: out.join("expected.json"),
        repositories: out.join("repositories/{owner}+{name}/repo").display().to_string(),
        ..Made::default()
    };
    let mut dataset = Vec::new();
    let mut expected = Expectations::new();
    for task in tasks {
        let (row, reused) = provide_row(table, task, &sdists, &rows, &out)?;
        made.tasks_reused += usize::from(reused);
        write_json(&mut dataset, &row, &made.dataset)?;
        dataset.push(b'\n');
        expected.insert(task.id.clone(), Expectation::from(task));
    }
    replace(&made.dataset, &dataset)?;
    let mut text = Vec::new();
    write_json(&mut text, &expected, &made.expected)?;
    replace(&made.expected, &text)?;
    Ok(made)
}

/// Sees to it that every archive is in the cache and is the right one; counts downloads and what was there.
async fn provide_archives(
    table: &Table,
    tasks: &[&Task],
    downloader: &Downloader,
    sdists: &Path,
) -> Result<(usize, usize), CorpusError> {
    let mut wanted = BTreeMap::new();
    for task in tasks {
        let (_, base, fixed) = releases(table, task)?;
        for (version, release) in [(&task.base, base), (&task.fixed, fixed)] {
            wanted.insert(task.archive(version), (&task.package, &release.sha256));
        }
    }
    let requests: Vec<_> = wanted
        .iter()
        .filter(|(file, _)| !sdists.join(file).is_file())
        .map(|(file, (package, sha256))| Request {
            package: (*package).clone(),
            file: file.clone(),
            sha256: Some((*sha256).clone()),
        })
        .collect();
    if !requests.is_empty() {
        let (_, mut files) = downloader.fetch(&requests, sdists).await?;
        for request in &requests {
            let content = files.remove(&request.file).ok_or_else(|| CorpusError::Download {
                why: format!("{} did not come back", request.file),
                directory: sdists.to_owned(),
            })?;
            replace(&sdists.join(&request.file), &content)?;
        }
    }
    for (file, (package, sha256)) in &wanted {
        verify(package, &sdists.join(file), sha256)?;
    }
    Ok((requests.len(), wanted.len() - requests.len()))
}

/// A task's row, and whether it and its commits were there already.
fn provide_row(
    table: &Table,
    task: &Task,
    sdists: &Path,
    rows: &Path,
    out: &Path,
) -> Result<(Instance, bool), CorpusError> {
    let (package, base, fixed) = releases(table, task)?;
    let git = Git::open(&out.join("repositories").join(package.repository.replace('/', "+")).join("repo"))?;
    let kept = rows.join(format!("{}.json", task.id));
    let mut made_of = Vec::new();
    write_json(&mut made_of, &(ROW_VERSION, &package.repository, task, base, fixed), &kept)?;
    let made_of = String::from_utf8_lossy(&made_of).into_owned();

    let found = fs::read(&kept).ok().and_then(|text| serde_json::from_slice::<KeptRow>(&text).ok());
    if let Some(found) = found
        && found.made_of == made_of
        && git.points(&branch(task), &found.row.end_commit)
    {
        return Ok((found.row, true));
    }
    let archives = [sdists.join(task.archive(&task.base)), sdists.join(task.archive(&task.fixed))];
    let sources = Sources { task, package, archives: [&archives[0], &archives[1]], releases: [base, fixed] };
    let row = add_task(&git, &sources)?;
    row.validate().map_err(|error| CorpusError::Listed {
        task: task.id.clone(),
        file: "its row".to_owned(),
        why: error.to_string(),
    })?;
    let kept_row = KeptRow { made_of, row };
    let mut text = Vec::new();
    write_json(&mut text, &kept_row, &kept)?;
    replace(&kept, &text)?;
    Ok((kept_row.row, false))
}

fn releases<'a>(
    table: &'a Table,
    task: &Task,
) -> Result<(&'a super::Package, &'a super::Release, &'a super::Release), CorpusError> {
    table.releases(task).ok_or_else(|| CorpusError::TableEntry {
        entry: format!("task {}", task.id),
        why: "a release is missing under [packages]".to_owned(),
    })
}

fn create(directory: &Path) -> Result<PathBuf, CorpusError> {
    fs::create_dir_all(directory).map_err(CorpusError::io("create", directory))?;
    fs::canonicalize(directory).map_err(CorpusError::io("resolve", directory))
}

/// Writes a file whole or not at all.
fn replace(path: &Path, content: &[u8]) -> Result<(), CorpusError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut staged = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(CorpusError::io("create a file in", directory))?;
    staged.write_all(content).map_err(CorpusError::io("write", path))?;
    staged.persist(path).map_err(|error| CorpusError::io("write", path)(error.error)).map(drop)
}

fn write_json(into: &mut Vec<u8>, value: &impl Serialize, path: &Path) -> Result<(), CorpusError> {
    serde_json::to_writer(into, value).map_err(|source| CorpusError::Json { path: path.to_owned(), source })
}

/// The lines of `[packages.<name>.releases]` for some releases, as the index knows them.
///
/// # Errors
/// A release that the index does not have.
pub async fn look(
    package: &str,
    versions: &[String],
    downloader: &Downloader,
) -> Result<Vec<String>, CorpusError> {
    let request = |version: &String| Request {
        package: package.to_owned(),
        file: format!("{package}-{version}.tar.gz"),
        sha256: None,
    };
    let requests: Vec<_> = versions.iter().map(request).collect();
    let (reports, _) = downloader.fetch(&requests, Path::new("sdists")).await?;
    let line = |(version, request): (&String, &Request)| {
        let report = reports.iter().find(|report| report.file == request.file)?;
        Some(format!(
            "{version:?} = {{ sha256 = {:?}, released_at = {:?} }}",
            report.sha256, report.uploaded_at
        ))
    };
    Ok(versions.iter().zip(&requests).filter_map(line).collect())
}

use std::collections::VecDeque;
use std::io;

use queue_format::{BuildTask, TaskSpec, Work};

use super::commits::{Commits, Found, dir_of};
use super::{Refusal, Report, Row, Rows, Template, task_of};

/// Rows whose commits are looked for at once: a server is asked for many of them in one request.
const GROUP_ROWS: usize = 100;

/// Bytes of rows after which no more are waited for.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// A row, understood or refused.
pub(super) struct Candidate {
    pub(super) place: String,
    pub(super) raw: Vec<u8>,
    pub(super) task: Result<TaskSpec, Refusal>,
}

/// The rows of an input in their order, after their commits were looked for.
pub(super) struct LookedAt<'a> {
    repositories: Option<&'a Template>,
    group: VecDeque<Candidate>,
}

impl<'a> LookedAt<'a> {
    pub(super) fn new(repositories: Option<&'a Template>) -> Self {
        Self { repositories, group: VecDeque::new() }
    }

    /// The next row; what was found of the commits of its group is counted.
    pub(super) fn next(
        &mut self,
        rows: &mut Rows<'_>,
        commits: &mut Commits,
        report: &mut Report,
    ) -> io::Result<Option<Candidate>> {
        if self.group.is_empty() {
            let mut bytes = 0;
            while self.group.len() < GROUP_ROWS
                && bytes < GROUP_BYTES_MAX
                && let Some(Row { place, raw, value }) = rows.next_row()?
            {
                bytes += raw.len();
                let task = value.and_then(|value| task_of(value, self.repositories));
                self.group.push_back(Candidate { place, raw, task });
            }
            look(&mut self.group, commits, report);
        }
        Ok(self.group.pop_front())
    }
}

/// Refuses the rows whose base commits are not there, and counts those of which that is not known.
fn look(group: &mut VecDeque<Candidate>, commits: &mut Commits, report: &mut Report) {
    let builds: Vec<&BuildTask> = group.iter().filter_map(build).collect();
    let bases = builds.iter().map(|build| (build.repository.as_str(), build.instance.base_commit.as_str()));
    let ends = builds.iter().map(|build| (build.repository.as_str(), build.instance.end_commit.as_str()));
    // No task needs an end: no server is asked for one after the other that was squashed.
    let ends = ends.filter(|(repository, end)| !end.is_empty() && dir_of(repository).is_some());
    let found = commits.look(&bases.chain(ends).collect::<Vec<_>>());
    let (bases, ends) = found.split_at(builds.len());
    report.unseen += bases.iter().filter(|found| **found == Found::Unseen).count();
    report.without_end += ends.iter().filter(|found| **found == Found::Missing).count();
    let looked_for = group.iter_mut().filter(|candidate| build(candidate).is_some());
    for (candidate, found) in looked_for.zip(bases) {
        if let (Some(build), Found::Missing) = (build(candidate), found) {
            let (commit, repository) = (&build.instance.base_commit, &build.repository);
            let why = format!("{commit} is not in {repository}; fetch the mirror there, or correct it");
            candidate.task = Err(Refusal::of("base_commit", &why));
        }
    }
}

fn build(candidate: &Candidate) -> Option<&BuildTask> {
    match &candidate.task.as_ref().ok()?.work {
        Work::Build(build) => Some(build.as_ref()),
        Work::Run(_) => None,
    }
}

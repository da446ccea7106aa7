use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::duplicates::Duplicates;
use super::report::Output;
use super::sight::Sight;
use super::{Filter, FilterConfig, Funnel, Judged, Stage};
use crate::ingest::{RawRow, Rows};

/// Rows that are judged together, and bytes of them after which no more are waited for.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Why a run of the filter did not come to its end. Files of an earlier run are as they were.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// An input cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The input.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write {}: {source}; free space there, or name another directory", dir.display())]
    Write {
        /// The output's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One run of the filter over any number of inputs, into one directory.
pub struct Run<'a> {
    filter: &'a Filter,
    dir: &'a Path,
    output: Output,
    funnel: Funnel,
    duplicates: Duplicates,
    inputs: Vec<String>,
    /// Of each accepted row that may be repeated, the input and the place, by the row's number.
    places: Vec<(usize, Box<str>)>,
    /// Where events tell of pull requests that are worth collecting; `None`: there was no event.
    repositories: Option<BTreeSet<String>>,
}

impl<'a> Run<'a> {
    /// Into `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(filter: &'a Filter, dir: &'a Path) -> Result<Self, FilterError> {
        let output =
            Output::create(dir).map_err(|source| FilterError::Write { dir: dir.to_owned(), source })?;
        let (funnel, duplicates) = (Funnel::default(), Duplicates::default());
        let (inputs, places, repositories) = (Vec::new(), Vec::new(), None);
        Ok(Self { filter, dir, output, funnel, duplicates, inputs, places, repositories })
    }

    /// Filters the rows of an input. `progress` is called now and then.
    ///
    /// # Errors
    /// It cannot be read, or the output not be written.
    pub fn read(
        &mut self,
        name: &str,
        rows: &mut Rows<'_>,
        mut progress: impl FnMut(&Funnel),
    ) -> Result<(), FilterError> {
        self.inputs.push(name.to_owned());
        let unreadable = |source| FilterError::Read { name: name.to_owned(), source };
        loop {
            let batch = batch(rows).map_err(unreadable)?;
            if batch.is_empty() {
                return Ok(());
            }
            for sight in self.filter.look(batch) {
                let dir = self.dir;
                self.take(name, sight)
                    .map_err(|source| FilterError::Write { dir: dir.to_owned(), source })?;
            }
            progress(&self.funnel);
        }
    }

    /// How many repositories events named that are worth collecting.
    #[must_use]
    pub fn repositories(&self) -> usize {
        self.repositories.as_ref().map_or(0, BTreeSet::len)
    }

    /// Writes the report, and has every file appear.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn finish(self, config: &FilterConfig) -> Result<Funnel, FilterError> {
        let Self { dir, output, funnel, inputs, repositories, .. } = self;
        let written = output.finish(&funnel, config, &inputs, repositories.as_ref());
        written.map_err(|source| FilterError::Write { dir: dir.to_owned(), source })?;
        Ok(funnel)
    }

    fn take(&mut self, input: &str, sight: Sight) -> io::Result<()> {
        let Sight { place, judged, is_event, repository } = sight;
        if is_event {
            self.repositories.get_or_insert_default().extend(repository);
        }
        let Some((id, judged)) = judged else { return Ok(()) };
        let (unknown, rejected) = match judged {
            Judged::Rejected { stage, reason, unknown } => (unknown, Some((stage, reason))),
            Judged::Accepted { instance, unknown } => {
                match self.duplicates.insert(&instance, self.places.len() as u64) {
                    Ok(()) => {
                        self.places.push((self.inputs.len() - 1, place.as_str().into()));
                        self.output.accept(&instance)?;
                        (unknown, None)
                    }
                    Err((what, first)) => {
                        let reason = format!("{what} is that of {}", self.place_of(first));
                        (unknown, Some((Stage::Duplicate, reason)))
                    }
                }
            }
        };
        self.funnel.count(&unknown, rejected.as_ref().map(|(stage, _)| *stage));
        match rejected {
            Some((stage, reason)) => self.output.reject(&format!("{input}, {place}"), &id, stage, &reason),
            None => Ok(()),
        }
    }

    fn place_of(&self, number: u64) -> String {
        let found = usize::try_from(number).ok().and_then(|number| self.places.get(number));
        found.map_or_else(String::new, |(input, place)| format!("{}, {place}", self.inputs[*input]))
    }
}

/// The next rows.
fn batch(rows: &mut Rows<'_>) -> io::Result<Vec<RawRow>> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH_ROWS
        && bytes < BATCH_BYTES_MAX
        && let Some(row) = rows.next_raw()?
    {
        bytes += row.raw.len();
        batch.push(row);
    }
    Ok(batch)
}

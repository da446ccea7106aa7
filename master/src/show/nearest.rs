use std::collections::BTreeSet;

use queue_format::{TaskId, TaskName};

/// Ids suggested at most.
const SUGGESTIONS_MAX: usize = 3;

/// Letters that may differ, as a share of the id's length.
const DISTANCE_SHARE: usize = 3;

/// The ids that somebody may have meant, of any number that are seen.
pub struct Nearest {
    wanted: String,
    distance_max: usize,
    near: BTreeSet<(usize, TaskId)>,
}

impl Nearest {
    /// Looks for ids like this one.
    #[must_use]
    pub fn to(wanted: &str) -> Self {
        let distance_max = (wanted.len() / DISTANCE_SHARE).max(1);
        Self { wanted: wanted.to_ascii_lowercase(), distance_max, near: BTreeSet::new() }
    }

    /// Compares one id.
    pub fn see(&mut self, id: TaskId) {
        // Part of an id, such as the pull request's number, is as good as its whole with letters swapped.
        let holds = self.wanted.len() >= 3 && id.as_str().contains(&self.wanted);
        let distance = if holds { 1 } else { strsim::osa_distance(&self.wanted, id.as_str()) };
        if distance <= self.distance_max {
            self.near.insert((distance, id));
        }
        if self.near.len() > SUGGESTIONS_MAX {
            self.near.pop_last();
        }
    }

    /// The nearest ones, nearest first.
    #[must_use]
    pub fn found(&self) -> Vec<&str> {
        self.near.iter().map(|(_, id)| id.as_str()).collect()
    }
}

/// The id that a person wrote: in any case, or as the name or path of a task file.
///
/// # Errors
/// Why it is none.
pub fn find_id(text: &str) -> Result<TaskId, queue_format::InvalidId> {
    let base = text.rsplit('/').next().unwrap_or(text);
    match base.parse::<TaskName>() {
        Ok(name) => Ok(name.id),
        Err(_) => text.to_ascii_lowercase().parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_meant() {
        let ids: Vec<TaskId> =
            ["pallets__click-12", "pallets__click-13", "pallets__flask-4045", "psf__requests-1"]
                .map(|id| id.parse().expect("an id"))
                .into();
        let check = |wanted: &str, expected: &[&str]| {
            let mut nearest = Nearest::to(wanted);
            ids.iter().chain(&ids).cloned().for_each(|id| nearest.see(id));
            assert_eq!(nearest.found(), expected, "{wanted}");
        };
        check("pallets_click-12", &["pallets__click-12", "pallets__click-13"]);
        check("palets__flask-4045", &["pallets__flask-4045"]);
        check("4045", &["pallets__flask-4045"]);
        check("Click", &["pallets__click-12", "pallets__click-13"]);
        check("something-else-entirely", &[]);
        check("", &[]);
    }

    #[test]
    fn an_id_may_be_written_as_a_path() {
        let check =
            |text: &str| assert_eq!(find_id(text).map(String::from).as_deref(), Ok("pallets__click-12"));
        check("pallets__click-12");
        check("Pallets__Click-12");
        check("/spool/failed/build/pallets__click-12.a003.r0.json");
        check("pallets__click-12.json");
        assert!(find_id("../x").is_err());
    }
}

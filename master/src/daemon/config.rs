use std::path::Path;

use queue_format::CHUNK_TASKS_MAX;
use serde::{Deserialize, Serialize};

use crate::ingest::Template;

/// The `[master]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MasterConfig {
    /// Where repositories of dropped rows lie, as for `bottega submit --repositories`; unset: each row says so.
    pub repositories: Option<String>,
    /// The shortest pause between two looks.
    pub poll_seconds_min: f64,
    /// The longest one; each is drawn anew, so that many masters do not look at once.
    pub poll_seconds_max: f64,
    /// How long a file in `incoming/` must rest before it is read: somebody may still write it.
    pub settle_seconds: f64,
    /// Tasks in a shard, at most [`CHUNK_TASKS_MAX`].
    pub shard_tasks: usize,
    /// How old the summary may become.
    pub summary_seconds: f64,
    /// Which records are logged: a level, or directives such as `info,master=debug`.
    pub log: String,
}

impl Default for MasterConfig {
    fn default() -> Self {
        Self {
            repositories: None,
            poll_seconds_min: 1.0,
            poll_seconds_max: 5.0,
            settle_seconds: 10.0,
            shard_tasks: CHUNK_TASKS_MAX,
            summary_seconds: 10.0,
            log: "info".to_owned(),
        }
    }
}

impl MasterConfig {
    /// Checks what a type cannot express.
    ///
    /// # Errors
    /// The key that is wrong, and what is expected.
    pub fn check(&self) -> Result<(), String> {
        const SECONDS_MAX: f64 = 3600.0;
        let within = |value: f64, min: f64| value >= min && value <= SECONDS_MAX;
        if !within(self.poll_seconds_min, 1.0) {
            return Err(format!("master.poll_seconds_min is {}, expected 1 to 3600", self.poll_seconds_min));
        }
        if !within(self.poll_seconds_max, self.poll_seconds_min) {
            let (min, max) = (self.poll_seconds_min, self.poll_seconds_max);
            return Err(format!(
                "master.poll_seconds_max is {max}, expected {min} (poll_seconds_min) to 3600"
            ));
        }
        if !within(self.settle_seconds, 1.0) {
            return Err(format!("master.settle_seconds is {}, expected 1 to 3600", self.settle_seconds));
        }
        if !within(self.summary_seconds, 1.0) {
            return Err(format!("master.summary_seconds is {}, expected 1 to 3600", self.summary_seconds));
        }
        if !(1..=CHUNK_TASKS_MAX).contains(&self.shard_tasks) {
            return Err(format!(
                "master.shard_tasks is {}, expected 1 to {CHUNK_TASKS_MAX}",
                self.shard_tasks
            ));
        }
        systemd::log::check_filter(&self.log).map_err(|why| format!("master.log: {why}"))
    }

    /// Where repositories of dropped rows lie; a relative path begins at `here`.
    ///
    /// # Errors
    /// The key that is wrong, and what is expected.
    pub fn template(&self, here: &Path) -> Result<Option<Template>, String> {
        let template = self.repositories.as_deref().map(|text| Template::parse(text, here));
        template.transpose().map_err(|why| format!("master.repositories: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_key_that_is_wrong() {
        let check = |change: fn(&mut MasterConfig), expected: Result<(), &str>| {
            let mut config = MasterConfig::default();
            change(&mut config);
            let got = config.check().map_err(|why| why.split(' ').next().unwrap_or_default().to_owned());
            assert_eq!(got, expected.map_err(str::to_owned));
        };
        check(|_| (), Ok(()));
        check(|c| c.poll_seconds_min = 0.5, Err("master.poll_seconds_min"));
        check(|c| c.poll_seconds_max = 0.5, Err("master.poll_seconds_max"));
        check(|c| c.poll_seconds_max = f64::NAN, Err("master.poll_seconds_max"));
        check(|c| c.settle_seconds = 0.0, Err("master.settle_seconds"));
        check(|c| c.summary_seconds = 1e9, Err("master.summary_seconds"));
        check(|c| c.shard_tasks = 200, Ok(()));
        check(|c| c.shard_tasks = 0, Err("master.shard_tasks"));
        check(|c| c.shard_tasks = 4097, Err("master.shard_tasks"));
        check(|c| c.log = "info,master=loud".to_owned(), Err("master.log:"));
    }
}

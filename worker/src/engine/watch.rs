use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt;
use queue_format::NodeRecord;

use super::Limits;
use super::cgroup::{Cgroup, Oom};
use super::connect::Inner;
use super::strain::Strain;

/// How often the kernel's counters are read: two small files.
const LOOK: Duration = Duration::from_millis(250);
/// How often limits are looked for that cannot be read, and how long is waited in between.
const READS: usize = 5;
const READ_PAUSE: Duration = Duration::from_millis(50);
/// How often the engine is asked instead, where the host's files cannot be read.
const ASK: Duration = Duration::from_secs(2);

/// What is seen of a running container from outside.
pub(super) struct Watch<'a> {
    inner: &'a Inner,
    id: &'a str,
    limit_bytes: u64,
    group: Option<Cgroup>,
    strain: Option<Strain>,
    pub(super) peak_memory_bytes: Option<u64>,
    /// The most of it that was no files', since it met the limit.
    unreclaimable_bytes: Option<u64>,
    pub(super) oom: Oom,
    pub(super) warnings: Vec<String>,
}

impl<'a> Watch<'a> {
    /// Of a container that was just started; its limits are read back.
    pub(super) async fn of_container(inner: &'a Inner, id: &'a str, limits: &Limits) -> Self {
        let mut watch = Self::of_ended(inner, id, limits.memory_bytes);
        let found = inner.inspect_container(id).await.ok().flatten();
        // 0 once it has ended.
        let pid = found.and_then(|found| found.state?.pid).filter(|&pid| pid > 0);
        let Some(pid) = pid else { return watch };
        for _ in 0..READS {
            let Some(group) = Cgroup::of_process(pid) else { return watch };
            let effective = group.effective();
            // Still there after its limits were read: of one that ended in between, nothing is known.
            if Cgroup::of_process(pid).as_ref() != Some(&group) {
                return watch;
            }
            if effective != Default::default() {
                watch.warnings = effective.mismatches(limits);
                watch.warnings.extend(too_many_files(pid, limits.nofile_max));
                watch.strain = Some(Strain::begin(&group, effective));
                watch.group = Some(group);
                watch.look();
                return watch;
            }
            // The group of one that ends just now may go before its process does.
            tokio::time::sleep(READ_PAUSE).await;
        }
        watch.warnings.push("the limits of containers cannot be read back on this host".to_owned());
        watch
    }

    /// Of one that has ended: nothing more is seen.
    pub(super) fn of_ended(inner: &'a Inner, id: &'a str, limit_bytes: u64) -> Self {
        Self {
            inner,
            id,
            limit_bytes,
            group: None,
            strain: None,
            peak_memory_bytes: None,
            unreclaimable_bytes: None,
            oom: Oom::default(),
            warnings: Vec::new(),
        }
    }

    /// Looks until dropped.
    pub(super) async fn keep(&mut self) -> Infallible {
        loop {
            if self.group.is_some() {
                tokio::time::sleep(LOOK).await;
                self.look();
            } else {
                tokio::time::sleep(ASK).await;
                let asked = self.ask().await;
                self.peak_memory_bytes = self.peak_memory_bytes.max(asked);
            }
        }
    }

    fn look(&mut self) {
        let Some(group) = &self.group else { return };
        self.peak_memory_bytes = self.peak_memory_bytes.max(group.peak_memory_bytes());
        if self.has_met_limit() {
            self.unreclaimable_bytes = self.unreclaimable_bytes.max(group.unreclaimable_bytes());
        }
        // Of a group that is going nothing can be read: what was read last counts.
        self.oom = group.oom().unwrap_or(self.oom);
        if let Some(strain) = &mut self.strain {
            strain.look();
        }
    }

    /// Whether it was seen at its limit of memory with more than files.
    pub(super) fn was_full(&self) -> bool {
        self.has_met_limit() && self.unreclaimable_bytes.is_some_and(|bytes| bytes >= self.limit_bytes / 2)
    }

    fn has_met_limit(&self) -> bool {
        self.peak_memory_bytes.is_some_and(|bytes| bytes >= self.limit_bytes / 100 * 99)
    }

    /// What the kernel held it to, and what it had to wait for.
    pub(super) fn record(&self) -> Option<NodeRecord> {
        self.strain.as_ref().map(Strain::record)
    }

    async fn ask(&self) -> Option<u64> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let stats = std::pin::pin!(self.inner.client.stats(self.id, Some(options))).next().await?.ok()?;
        let memory = stats.memory_stats?;
        memory.max_usage.max(memory.usage)
    }
}

/// What is to be said where a process may have more files open than it should.
fn too_many_files(pid: i64, asked: u64) -> Option<String> {
    let held = open_files_in(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)?;
    (held > asked)
        .then(|| format!("limit of open files does not hold: asked for {asked}, the kernel holds {held}"))
}

/// The hard limit of open files in /proc/PID/limits: name, soft, hard, unit.
fn open_files_in(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = values.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_of_open_files_is_read() {
        let limits = |soft: &str, hard: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max core file size        0                    unlimited            bytes     \n\
                 Max open files            {soft:<20} {hard:<20} files     \n"
            )
        };
        assert_eq!(open_files_in(&limits("1024", "524288")), Some(524_288));
        assert_eq!(open_files_in(&limits("1024", "unlimited")), Some(u64::MAX));
        assert_eq!(open_files_in(""), None);
        let own = i64::from(std::process::id());
        assert_eq!(too_many_files(own, u64::MAX), None);
        assert!(too_many_files(own, 1).is_some_and(|said| said.contains("asked for 1,")));
    }
}

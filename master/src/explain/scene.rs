use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;
use queue_format::{Class, Control, Owner, Spool, SpoolError, Summary, TaskId, Timing, WorkerStatus};

use super::timeline::{Moment, timeline};
use crate::show::Page;
use crate::text::{clean_line, ellipsis};

/// Moments shown; the logs have all.
const MOMENTS_SHOWN: usize = 100;

/// Characters of a line shown.
const LINE_CHARS_MAX: usize = 300;

/// All that a task's fate depends on, as it stands now.
#[derive(Debug)]
pub struct Scene {
    /// When it was looked at.
    pub now: Timestamp,
    /// The task itself.
    pub page: Page,
    /// What people asked for.
    pub control: Control,
    /// What every worker last said.
    pub workers: Vec<WorkerStatus>,
    /// Every incarnation, with its last beat.
    pub incarnations: BTreeMap<Owner, Option<u64>>,
    /// What a master last counted.
    pub summary: Option<Summary>,
    /// Classes of which no more may be claimed, by anybody.
    pub full_classes: BTreeSet<Class>,
    /// Why the nodes that hold as many claims as they may claim no more.
    pub full_nodes: BTreeMap<String, String>,
    /// When silence is death.
    pub timing: Timing,
    /// What happened to it, in order.
    pub timeline: Vec<Moment>,
}

impl Scene {
    /// Looks at everything.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn gather(spool: &Spool, id: &TaskId, now: Timestamp) -> Result<Self, SpoolError> {
        let workers = spool.worker_statuses()?;
        let page = Page::gather(spool, id, &workers)?;
        let control = spool.control()?;
        let nodes: BTreeSet<&str> = workers.iter().map(|worker| worker.owner.node()).collect();
        let mut full_nodes = BTreeMap::new();
        for node in nodes {
            if let Some(obstacle) = spool.node_obstacle(control.limits(), node)? {
                full_nodes.insert(node.to_owned(), obstacle);
            }
        }
        Ok(Self {
            now,
            timeline: timeline(spool, &page)?,
            page,
            full_classes: spool.full_classes(control.limits())?,
            control,
            workers,
            incarnations: spool.incarnations()?,
            summary: spool.summary(),
            full_nodes,
            timing: spool.timing(),
        })
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.page.id);
        let mut add = |label: &str, lines: &[String]| {
            for (index, line) in lines.iter().enumerate() {
                let label = if index == 0 { label } else { "" };
                let _ = writeln!(text, "  {label:8} {}", ellipsis(line, LINE_CHARS_MAX));
            }
        };
        let places: Vec<String> =
            self.page.places.iter().map(|place| place.path.display().to_string()).collect();
        add("where", &places);
        add("why", &self.reasons());
        let left_out = self.timeline.len().saturating_sub(MOMENTS_SHOWN);
        let mut history: Vec<String> = Vec::new();
        if left_out > 0 {
            history.push(format!("{left_out} moments before these, in log/"));
        }
        history.extend(self.timeline[left_out..].iter().map(|moment| {
            let at = moment.at.strftime("%Y-%m-%d %H:%M:%S");
            let node = moment.node.as_deref().unwrap_or("–");
            format!("{at}  {node:12}  {}", clean_line(&moment.what))
        }));
        add("history", &history);
        add("next", &self.page.advice());
        text
    }
}

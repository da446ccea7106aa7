use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use crate::owner::node_name;
use crate::{Limits, PathError, Spool, TaskId};

/// The longest reason of a pause that is read.
const PAUSE_BYTES_MAX: u64 = 4096;

/// The largest limits.toml that is read.
const LIMITS_BYTES_MAX: u64 = 1 << 16;

/// Things that are not understood, of which each is said; the others are not.
const NOTICES_MAX: usize = 20;

/// What people ask of all daemons at once, as it stands in `control/`: each entry is a file that `touch` makes.
///
/// | file | meaning |
/// |---|---|
/// | `control/pause` | nobody claims; its content is the reason that people are shown |
/// | `control/drain/<node>` | that node finishes what it has, and claims no more |
/// | `control/cancel/<id>` | that task is set aside, wherever it is; whoever does so removes the file |
/// | `control/limits.toml` | how much may be claimed at once ([`Limits`]) |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    pause: Option<String>,
    drained: BTreeSet<String>,
    cancelled: BTreeSet<TaskId>,
    limits: Limits,
    has_invalid_limits: bool,
    notices: Vec<String>,
}

impl Spool {
    /// Reads `control/`; one listing where nobody asks for anything.
    ///
    /// # Errors
    /// The directory cannot be listed. What is in it and cannot be understood is a notice, not an error.
    pub fn control(&self) -> Result<Control, PathError> {
        let (layout, files) = (self.layout(), self.files());
        let mut control = Control::default();
        let mut names = files.list(&layout.control())?;
        names.sort();
        for name in &names {
            match name.as_str() {
                "pause" => control.pause = Some(self.pause_reason()),
                "drain" => {
                    let nodes = self.marks(&layout.drained(), "node", &mut control)?;
                    control.drained.extend(nodes.iter().map(|node| node_name(node)));
                }
                "cancel" => {
                    for id in self.marks(&layout.cancelled(), "task", &mut control)? {
                        match id.parse() {
                            Ok(id) => drop(control.cancelled.insert(id)),
                            Err(why) => control.say(format!("control/cancel: {why}")),
                        }
                    }
                }
                "limits.toml" => match self.limits() {
                    Ok(limits) => control.limits = limits,
                    Err(why) => {
                        control.has_invalid_limits = true;
                        control.say(format!(
                            "control/limits.toml: {why}; until it is mended the last valid limits count"
                        ));
                    }
                },
                other => control.say(format!(
                    "control/{}: not known, expected pause, drain/, cancel/ or limits.toml; remove it",
                    other.escape_default()
                )),
            }
        }
        Ok(control)
    }

    /// The files that people made in a directory of `control/`.
    fn marks(&self, dir: &Path, what: &str, control: &mut Control) -> Result<Vec<String>, PathError> {
        if self.files().is_file(dir) {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            control.say(format!(
                "control/{name}: it is a file, expected a directory with a file for each {what}; remove it, and use \
                 bottega {name}"
            ));
        }
        self.files().list(dir)
    }

    /// Whatever is wrong with the file, it is there, and so there is a pause.
    fn pause_reason(&self) -> String {
        let read = self.files().read_regular(&self.layout().pause(), PAUSE_BYTES_MAX);
        let bytes = read.unwrap_or_default();
        String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn limits(&self) -> Result<Limits, String> {
        let bytes = match self.files().read_regular(&self.layout().limits(), LIMITS_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.source.kind() == ErrorKind::NotFound => return Ok(Limits::default()),
            // A link, a directory, a file that nobody may read: no reason to end.
            Err(e) => return Err(format!("it cannot be read: {}", e.source)),
        };
        String::from_utf8(bytes).map_err(|e| e.to_string()).and_then(|text| Limits::parse(&text))
    }
}

impl Control {
    /// Puts the limits of the look before in the place of limits that cannot be understood. Without any that were
    /// valid, nothing is limited.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        if self.has_invalid_limits {
            self.limits = before.limits.clone();
        }
        self
    }

    /// The reason of a pause, empty where none was given; `None` where there is no pause.
    #[must_use]
    pub fn paused(&self) -> Option<&str> {
        self.pause.as_deref()
    }

    /// Whether this node is to claim no more.
    #[must_use]
    pub fn is_drained(&self, node: &str) -> bool {
        self.drained.contains(&node_name(node))
    }

    /// Nodes that are to claim no more.
    #[must_use]
    pub fn drained(&self) -> &BTreeSet<String> {
        &self.drained
    }

    /// Tasks that are to be set aside.
    #[must_use]
    pub fn cancelled(&self) -> &BTreeSet<TaskId> {
        &self.cancelled
    }

    /// How much may be claimed at once; nothing is limited where the file cannot be understood and none that could
    /// was seen before ([`Control::after`]).
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What lies in `control/` and is not understood, each in one sentence.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Why a node may claim nothing, in one sentence with its remedy; `None` where it may.
    #[must_use]
    pub fn obstacle(&self, node: &str) -> Option<String> {
        let drained = || {
            format!(
                "{node} is drained: it finishes what it has; to let it claim again: bottega drain --undo {node} (rm \
                 control/drain/{node})"
            )
        };
        self.pause_obstacle().or_else(|| self.is_drained(node).then(drained))
    }

    /// Why nobody may claim anything, in one sentence with its remedy; `None` where there is no pause.
    #[must_use]
    pub fn pause_obstacle(&self) -> Option<String> {
        let why = match self.paused()? {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        Some(format!("the spool is paused{why}; to go on: bottega resume (rm control/pause)"))
    }

    fn say(&mut self, notice: String) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push(notice);
        }
    }
}

use std::time::SystemTime;

use jiff::Timestamp;
use queue_format::{Event, Spool, SpoolError, Token};

use crate::show::Page;

/// Something that happened to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When, by the clock of the node that says so.
    pub at: Timestamp,
    /// Which node says so.
    pub node: Option<String>,
    /// What, in words.
    pub what: String,
}

/// What happened to a task, in order: from the logs, and where they say nothing, from its file and its manifests.
///
/// # Errors
/// The logs cannot be read.
pub fn timeline(spool: &Spool, page: &Page) -> Result<Vec<Moment>, SpoolError> {
    let mut moments = Vec::new();
    let published =
        page.places.first().and_then(|place| std::fs::metadata(&place.path).ok()?.modified().ok());
    if let Some(at) = published.and_then(timestamp) {
        // Its content never changes, and renames leave this time alone.
        moments.push(Moment { at, node: None, what: "its file was written".to_owned() });
    }
    let events = spool.events_of(&page.id)?;
    for (owner, logged) in &events {
        let node = Some(owner.node().to_owned());
        moments.push(Moment { at: logged.at, node, what: said(&logged.event) });
    }
    let is_logged = |token: Token| {
        events.iter().any(
            |(_, logged)| matches!(&logged.event, Event::Concluded { token: known, .. } if *known == token),
        )
    };
    for attempt in page.attempts.iter().filter(|attempt| !is_logged(attempt.token)) {
        let Some(manifest) = &attempt.manifest else { continue };
        let node = Some(manifest.owner.node().to_owned());
        let what = format!("attempt {} began", attempt.token);
        moments.push(Moment { at: manifest.started_at, node: node.clone(), what });
        let what = format!("attempt {} ended: {}", attempt.token, manifest.verdict);
        moments.push(Moment { at: manifest.finished_at, node, what });
    }
    moments.sort_by_key(|moment| moment.at);
    Ok(moments)
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

fn said(event: &Event) -> String {
    match event {
        Event::Claimed { token, class, .. } => format!("claimed as {token} from {class}"),
        Event::Adopted { token, .. } => format!("{token} goes on: its worker was started again"),
        Event::Concluded { token, verdict, to, .. } => format!("attempt {token} ended: {verdict} ({to})"),
        Event::Released { token, reason, .. } => format!("{token} handed back: {reason}"),
        Event::Delayed { token, reason, .. } => {
            format!("{token} handed back, to be tried again later: {reason}")
        }
        Event::Cancelled { token: Some(token), .. } => format!("{token} cancelled by a person"),
        Event::Cancelled { token: None, .. } => "cancelled by a person".to_owned(),
        Event::Lost { token, .. } => format!("{token} was gone: somebody moved or removed its file"),
        Event::Reaped { token, owner, .. } => format!("{token} taken back from {owner}, which was silent"),
        Event::Returned { token, .. } => format!("{token} handed back: its claim seemed to fail"),
        Event::Rejected { token, reason, to, .. } => {
            let to = to.map(|to| to.to_string()).unwrap_or_default();
            format!("{token} moved to failed/{to}: {reason}")
        }
        // The others are about no task.
        _ => String::new(),
    }
}

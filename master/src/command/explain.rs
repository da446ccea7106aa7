use std::io::Write;

use queue_format::Spool;

use super::operate::ExplainArguments;
use super::show::unknown;
use super::{CommandError, Host, Success};
use crate::explain::Scene;
use crate::show::find_id;

/// Tells why a task is where it is.
pub(super) fn run(
    arguments: &ExplainArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let Ok(id) = find_id(&arguments.id) else { return Err(unknown(&spool, &arguments.id)?) };
    let scene = Scene::gather(&spool, &id, (host.now)())?;
    if scene.page.places.is_empty() && scene.page.attempts.is_empty() && scene.timeline.is_empty() {
        return Err(unknown(&spool, id.as_str())?);
    }
    write!(out, "{}", scene.to_text())?;
    Ok(Success::Yes)
}

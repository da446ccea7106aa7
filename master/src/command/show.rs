use std::io::Write;

use queue_format::{Spool, Token};

use super::cli::{LogKind, ShowArguments};
use super::{CommandError, Host, Success};
use crate::show::{Log, Nearest, Page, find_id, tell_conversation};
use crate::text::clean;

/// Tells of one task.
pub(super) fn run(
    arguments: &ShowArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let spool = Spool::open(&arguments.spool.spool)?;
    let Ok(id) = find_id(&arguments.id) else { return Err(unknown(&spool, &arguments.id)?) };
    let mut page = Page::gather(&spool, &id, &spool.worker_statuses()?)?;
    if page.places.is_empty() && page.attempts.is_empty() {
        return Err(unknown(&spool, id.as_str())?);
    }
    if arguments.attempt.is_some() && arguments.log.is_none() && !arguments.conversation {
        return Err(CommandError::usage("--attempt: say of it --log or --conversation".to_owned()));
    }
    if arguments.conversation {
        let text = find_log(&spool, &page, Log::Conversation, arguments.attempt.as_deref())?;
        write!(out, "{}", tell_conversation(&text))?;
    } else if let Some(kind) = arguments.log {
        let log = match kind {
            LogKind::Build => Log::Build,
            LogKind::TestOnly => Log::TestOnly,
            LogKind::WithFix => Log::WithFix,
            LogKind::Output => Log::Output,
        };
        write!(out, "{}", clean(&find_log(&spool, &page, log, arguments.attempt.as_deref())?))?;
    } else if arguments.json {
        page.read_evidence(&spool, |_| true);
        writeln!(out, "{:#}", page.to_json())?;
    } else {
        let telling = page.telling().map(|attempt| attempt.token);
        page.read_evidence(&spool, |token| Some(token) == telling);
        write!(out, "{}", page.to_text((host.now)()))?;
    }
    Ok(Success::Yes)
}

fn find_log(spool: &Spool, page: &Page, log: Log, attempt: Option<&str>) -> Result<String, CommandError> {
    let asked = attempt.map(|text| {
        let wrong =
            |_| CommandError::usage(format!("--attempt: {text:?} is none; expected one such as a002"));
        text.parse::<Token>().map_err(wrong)
    });
    let asked = asked.transpose()?;
    for attempt in
        page.attempts.iter().rev().filter(|attempt| asked.is_none_or(|token| token == attempt.token))
    {
        if let Some(text) = log.read(spool, &page.id, attempt.token)? {
            return Ok(text);
        }
    }
    let of = asked.map_or_else(|| "no attempt".to_owned(), |token| format!("attempt {token}"));
    let has = if asked.is_some() { "has no" } else { "has a" };
    Err(CommandError::Unknown(format!(
        "{}: {of} {has} {}; bottega show {} lists the attempts",
        page.id,
        log.file_name(),
        page.id
    )))
}

/// The error for an id that the spool does not have.
pub(super) fn unknown(spool: &Spool, wanted: &str) -> Result<CommandError, CommandError> {
    let (mut nearest, mut tasks) = (Nearest::to(wanted), 0_usize);
    spool.visit(|task| {
        tasks += 1;
        nearest.see(task.name.id);
    })?;
    let hint = match nearest.found().as_slice() {
        [] => format!("; the spool has {tasks} tasks, bottega status counts them"),
        near => format!("; did you mean {}?", near.join(" or ")),
    };
    Ok(CommandError::Unknown(format!(
        "there is no task {wanted:?} in {}{hint}",
        spool.layout().root().display()
    )))
}

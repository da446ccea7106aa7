//! `bottega-worker replay`: what an attempt came to when it is made again.

use anyhow::Context;
use queue_format::{JOURNAL_FILE, Spool, TaskId, Token};
use worker::attempt::replay::replay;
use worker::repository::{GitTimeouts, RepositoryCache};

/// Replays an attempt, and tells of each file whether it is the same; what is not ends with an error.
pub(crate) async fn run(
    spool: &Spool,
    id: &TaskId,
    attempt: Option<Token>,
    git_timeouts: GitTimeouts,
) -> anyhow::Result<()> {
    let found = spool.find(id)?;
    let place = found.first().with_context(|| format!("there is no task {id} in the spool"))?;
    let task = spool.read_task(place)?;
    let token = match attempt {
        Some(token) => token,
        None => last_recorded(spool, id)?.with_context(|| {
            format!("no attempt at {id} was recorded: only those with brain = \"agents\" or \"auto\" are")
        })?,
    };
    let dir = tempfile::tempdir().context("cannot make a directory")?;
    let context_dir = dir.path().join("context");
    std::fs::create_dir(&context_dir).context("cannot make a directory")?;
    let repositories = RepositoryCache::new(&dir.path().join("repositories"), git_timeouts);
    let replayed = replay(spool, &task, token, repositories, &context_dir).await?;
    println!("{id} {token}: {}, {} answers from its journal", replayed.verdict, replayed.answers);
    for (name, is_same) in &replayed.files {
        println!("{} {name}", if *is_same { "same     " } else { "different" });
    }
    anyhow::ensure!(
        replayed.is_same(),
        "it did not come to the same: another version of Bottega made it, or its files were changed"
    );
    Ok(())
}

fn last_recorded(spool: &Spool, id: &TaskId) -> anyhow::Result<Option<Token>> {
    for token in spool.attempts(id)?.into_iter().rev() {
        if spool.manifest(id, token)?.is_some_and(|manifest| manifest.files.contains_key(JOURNAL_FILE)) {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

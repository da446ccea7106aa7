//! Mirrors that lack some blobs, as snapshots without their largest files do: the rest of a commit is still a tree
//! in which most tests run.

use std::path::Path;

use crate::git::{Git, GitError};

/// How many missing files a note names.
const NAMES_SHOWN: usize = 5;

/// Takes a commit from a mirror that cannot serve it whole, without the files whose content the mirror lacks, and
/// makes it `refs/heads/main`. Gives a note that names them; `None` where nothing is missing, so that whatever
/// kept the mirror from serving it is something else.
pub(super) async fn take(
    git: &Git,
    mirror: &Git,
    objects: &Path,
    commit: &str,
) -> Result<Option<String>, GitError> {
    let missing = missing_files(mirror, commit).await?;
    if missing.is_empty() {
        return Ok(None);
    }
    let seeing = git.seeing(objects);
    seeing.run(&["read-tree", commit]).await?;
    let paths: Vec<u8> = missing.iter().flat_map(|path| [path, &b"\0"[..]].concat()).collect();
    seeing.run_with_input(&["update-index", "--force-remove", "-z", "--stdin"], &paths).await?;
    let tree = seeing.run(&["write-tree"]).await?;
    let date = mirror.run(&["show", "--no-patch", "--format=%ct +0000", commit]).await?;
    let told = format!("{commit}, without what its mirror lacks");
    let ours = seeing.dated(&date).run(&["commit-tree", &tree, "-m", &told]).await?;
    // The objects of this commit alone, from the mirror into a pack of our own.
    let pack = [".git/objects/pack/pack", "--revs", "--quiet"];
    seeing
        .run_with_input(&["pack-objects", pack[1], pack[2], pack[0]], format!("{ours}\n").as_bytes())
        .await?;
    git.run(&["update-ref", "refs/heads/main", &ours]).await?;
    let shown: Vec<_> = missing.iter().take(NAMES_SHOWN).map(|path| String::from_utf8_lossy(path)).collect();
    let shown = shown.join(", ");
    let more = missing.len().saturating_sub(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(Some(format!(
        "the mirror lacks the content of {shown}{more}: left out; HEAD is {ours} instead of {commit}"
    )))
}

/// The paths of a commit whose blobs a repository does not have, byte for byte: they may be no UTF-8.
async fn missing_files(mirror: &Git, commit: &str) -> Result<Vec<Vec<u8>>, GitError> {
    let listed = mirror.bytes(&["ls-tree", "-r", "-z", "--full-tree", commit], b"").await?;
    // `<mode> blob <object>\t<path>`; submodules are commits, which a mirror never has.
    let files: Vec<(&str, &[u8])> = listed
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let (head, path) = entry.split_at_checked(entry.iter().position(|byte| *byte == b'\t')?)?;
            let object = std::str::from_utf8(head).ok()?.split_once(" blob ")?.1;
            Some((object, &path[1..]))
        })
        .collect();
    let objects: String = files.iter().map(|(object, _)| format!("{object}\n")).collect();
    let looked = mirror.run_with_input(&["cat-file", "--batch-check"], objects.as_bytes()).await?;
    let missing = looked.lines().zip(&files).filter(|(line, _)| line.ends_with(" missing"));
    Ok(missing.map(|(_, (_, path))| path.to_vec()).collect())
}

//! Mirrors that lack some blobs, as snapshots without their largest files do: the rest of a commit is still a tree
//! in which most tests run.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

use super::commit::Commit;
use super::source_tree::{FileKind, Listing};
use crate::git::{Git, GitError};

/// How many missing files a note names.
const NAMES_SHOWN: usize = 5;

/// What is left of a commit.
pub(super) struct Rest {
    /// The commit that has it.
    pub(super) head: String,
    /// What is missing, by name.
    pub(super) note: String,
}

/// Takes from `listing` the files whose content is not there, and makes a commit of the others, which replaces `commit`.
/// `None` where nothing is missing, so that whatever kept the commit from being read is something else, and where
/// nothing is left.
pub(super) async fn take(
    seeing: &Git,
    commit: &Commit,
    listing: &mut Listing,
) -> Result<Option<Rest>, GitError> {
    let missing = missing_objects(seeing, listing).await?;
    let (gone, left): (Vec<_>, Vec<_>) =
        std::mem::take(&mut listing.files).into_iter().partition(|file| missing.contains(&file.object));
    listing.files = left;
    if gone.is_empty() || listing.files.is_empty() {
        return Ok(None);
    }
    seeing.run(&["read-tree", &commit.id]).await?;
    let paths: Vec<u8> =
        gone.iter().flat_map(|file| [file.path.as_os_str().as_bytes(), &b"\0"[..]].concat()).collect();
    seeing.run_with_input(&["update-index", "--force-remove", "-z", "--stdin"], &paths).await?;
    let tree = seeing.run(&["write-tree"]).await?;
    let told = format!("{}, without what its mirror lacks", commit.id);
    let dated = seeing.dated(&format!("{} +0000", commit.seconds));
    let head = dated.run(&["commit-tree", &tree, "-m", &told]).await?;
    // The objects of this commit alone, from the mirror into a pack of our own.
    let pack = ["pack-objects", "--revs", "--quiet", ".git/objects/pack/pack"];
    seeing.run_with_input(&pack, format!("{head}\n").as_bytes()).await?;
    let shown: Vec<_> = gone.iter().take(NAMES_SHOWN).map(|file| file.path.to_string_lossy()).collect();
    let shown = shown.join(", ");
    let more = gone.len().saturating_sub(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let note = format!(
        "the mirror lacks the content of {shown}{more}: left out; HEAD is {head} instead of {}",
        commit.id
    );
    Ok(Some(Rest { head, note }))
}

/// The blobs of a commit that are not there. Submodules are commits, which a mirror never has.
async fn missing_objects(seeing: &Git, listing: &Listing) -> Result<HashSet<String>, GitError> {
    let blobs = listing.files.iter().filter(|file| file.kind != FileKind::Submodule);
    let asked: String = blobs.map(|file| format!("{}\n", file.object)).collect();
    let looked = seeing.run_with_input(&["cat-file", "--batch-check"], asked.as_bytes()).await?;
    Ok(looked.lines().filter_map(|line| line.strip_suffix(" missing")).map(str::to_owned).collect())
}

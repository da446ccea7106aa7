//! Collecting a real repository's history: the diffs are its own, and pages are as large as the server bears.

use serde_json::json;

use crate::common::{House, git};
use crate::faults::{collect, rows};
use crate::forge::{Forge, Manners};
use crate::project::this_repository;

/// Pull requests that are played: the minutes of an hour tell when each was made.
const PULLS: usize = 45;

/// A page of more than these is too heavy.
const PAGE_MAX: u64 = 8;

#[test]
fn every_commit_of_a_real_history_is_collected_with_its_diff() {
    let Some(git_dir) = this_repository() else { return };
    let (house, forge) = (House::new(), Forge::start_from(&git_dir, PULLS));
    assert!(forge.pulls.len() > 10, "a history of {} commits", forge.pulls.len());
    forge.behave(Manners { page_max: usize::try_from(PAGE_MAX).ok(), ..Manners::default() });
    let collected = collect(&house, &forge);
    assert_eq!(collected.pulls.expect("it ends"), forge.pulls.len());
    let rows = rows(&house);
    for (row, pull) in rows.iter().zip(forge.pulls.iter().rev()) {
        let diff = git(&git_dir, &["diff", &pull.merge_base, &pull.head]);
        let Ok(diff) = String::from_utf8(diff) else { continue };
        let expected = (json!(pull.number), json!(pull.title), json!(diff), json!(pull.merge_base));
        let got = (&row["pull_number"], &row["title"], &row["patch"], &row["base_commit"]);
        assert_eq!(got, (&expected.0, &expected.1, &expected.2, &expected.3));
    }
    let sizes = forge.page_sizes();
    let next = |size: u64| if size > PAGE_MAX { size / 2 } else { size + size.div_ceil(4) };
    assert_eq!(sizes[0], 25, "{sizes:?}");
    assert!(sizes.windows(2).all(|pair| pair[1] == next(pair[0])), "pages shrink and grow: {sizes:?}");
    assert!(sizes.windows(2).filter(|pair| pair[1] > pair[0]).count() > 1, "{sizes:?}");
}

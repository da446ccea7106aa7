//! Judgements of the last look.

use queue_format::LedgerEntry;

use crate::inventory::{Container, Image, Inventory};
use crate::named::NamedImages;
use crate::policy::{Candidate, Reason, reason};
use crate::protect::{container_entry, image_entry, is_accepted, is_base};

/// What the last look gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is still a leftover; so many bytes are freed, where that is known.
    Remove(Option<u64>),
    /// It is not, or no longer.
    Keep(&'static str),
    /// It is no more.
    Gone,
    /// It still is, and nothing is to be done about it now.
    Wait(&'static str),
}

/// Whether a claim stands that did not when the listing was made. `now` knows the entry alone, as it is now.
pub(crate) fn judge_claim(now: &Inventory, entry: &LedgerEntry) -> Option<Look> {
    reason(now, entry).is_none().then_some(Look::Keep("its claim stands again"))
}

/// What becomes of a container that was found as it is now, if it was found at all.
pub(crate) fn judge_container(now: &Inventory, found: Option<&Container>) -> Look {
    match found {
        None => Look::Gone,
        Some(container) if container_entry(now, container).is_none() => Look::Keep("it is not ours"),
        Some(container) if container.is_removing => Look::Wait("the engine has been removing it"),
        Some(_) => Look::Remove(None),
    }
}

/// What becomes of an image that was found as it is now, if it was found at all; `named` are those of claimed tasks and of
/// waiting ones.
pub(crate) fn judge_image(
    now: &Inventory,
    named: [&NamedImages; 2],
    found: Option<&Image>,
    candidate: &Candidate,
) -> Look {
    let Some(image) = found else { return Look::Gone };
    let is_spent = matches!(candidate.reason, Reason::Unused | Reason::DiskFull);
    match image_entry(now, image) {
        None => Look::Keep("it is not ours"),
        Some(_) if is_base(image) => Look::Keep("it is a base image"),
        Some(_) if named.iter().any(|named| named.mean(image)) => Look::Keep("a task is to run in it"),
        Some(entry) if is_accepted(now, image, entry) && !is_spent => Look::Keep("its task is accepted"),
        Some(_) => Look::Remove(candidate.bytes),
    }
}

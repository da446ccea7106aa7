use serde::{Deserialize, Serialize};

use crate::{Owner, PathError, Spool, SpoolError};

/// The largest account that is read, in bytes.
const ACCOUNT_BYTES_MAX: u64 = 1 << 16;

/// What models have cost: of one incarnation, `spend/<owner>.json`, which it alone writes; or of all together.
///
/// Whoever removes the files begins to count anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// In millionths of a dollar.
    pub micro_dollars: u64,
}

impl Spool {
    /// Writes down what an incarnation has spent since it began.
    ///
    /// # Errors
    /// The spool cannot be written.
    pub fn write_spend(&self, owner: &Owner, spend: &Spend) -> Result<(), SpoolError> {
        self.files().replace_json(&self.layout().spend(owner), spend)
    }

    /// What one incarnation has written down; nothing where it has not.
    #[must_use]
    pub fn spend_of(&self, owner: &Owner) -> Spend {
        let read = self.files().read_regular(&self.layout().spend(owner), ACCOUNT_BYTES_MAX).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Whether an incarnation's account is there: a person removes it to count anew.
    ///
    /// # Errors
    /// The directory cannot be listed: that says nothing.
    pub fn has_spend(&self, owner: &Owner) -> Result<bool, PathError> {
        let name = format!("{owner}.json");
        Ok(self.files().list(&self.layout().spends())?.contains(&name))
    }

    /// What all incarnations have written down, those that are gone too; a torn or foreign file is passed over.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn spend(&self) -> Result<Spend, PathError> {
        let mut sum = Spend::default();
        for name in self.files().list(&self.layout().spends())? {
            let Some(owner) = name.strip_suffix(".json").and_then(|name| name.parse::<Owner>().ok()) else {
                continue;
            };
            sum.micro_dollars = sum.micro_dollars.saturating_add(self.spend_of(&owner).micro_dollars);
        }
        Ok(sum)
    }
}

//! What this worker's models cost, told to the fleet, and what the fleet's have cost, heard of.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use queue_format::Spend;

use super::Worker;
use crate::agents::BrainKind;
use crate::engine::Engine;

/// How often: so much may be spent beyond the limit.
const ACCOUNT_PERIOD: Duration = Duration::from_secs(3);

impl<E: Engine + 'static> Worker<E> {
    /// Takes up what the process before this one has spent, and hears of the others: before anything is asked.
    pub(super) fn open_account(&self) {
        self.llm.fleet().charge(self.spool.spend_of(&self.owner).micro_dollars);
        self.balance(&mut self.llm.fleet().here());
    }

    /// Keeps the account until it is dropped.
    pub(super) async fn keep_account(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ACCOUNT_PERIOD).await;
            let me = self.clone();
            // The spool may hang: nothing waits for this but the next look.
            let _ = tokio::task::spawn_blocking(move || {
                let mut written = me.spool.spend_of(&me.owner).micro_dollars;
                me.balance(&mut written);
            })
            .await;
        }
    }

    /// Why nothing is claimed that might ask a model.
    pub(super) fn modelless(&self) -> Option<String> {
        let asks = self.config.borrow().brain != BrainKind::Rules;
        asks.then(|| self.llm.fleet().obstacle().or_else(|| self.llm.obstacle())).flatten()
    }

    /// Writes down what is not written yet, and reads what others have.
    pub(super) fn balance(&self, written: &mut u64) {
        let (fleet, here) = (self.llm.fleet(), self.llm.fleet().here());
        if here > *written {
            match self.spool.write_spend(&self.owner, &Spend { micro_dollars: here }) {
                Ok(()) => *written = here,
                Err(error) => tracing::warn!(%error, "cannot write down what models have cost"),
            }
        }
        let limit = self.control.lock().unwrap_or_else(PoisonError::into_inner).limits().model_micro_dollars;
        // Where it cannot be read, what was read last counts.
        if let Ok(all) = self.spool.spend() {
            fleet.look(all.micro_dollars.saturating_sub(*written), limit);
        }
    }
}

//! What this worker's models cost, told to the fleet, and what the fleet's have cost, heard of.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use queue_format::{Class, Spend};

use super::Worker;
use crate::agents::BrainKind;
use crate::board::Topic;
use crate::engine::Engine;

/// The work that agents do.
const BUILD: &str = "build";
/// How often: so much may be spent beyond the limit.
const ACCOUNT_PERIOD: Duration = Duration::from_secs(3);

impl<E: Engine + 'static> Worker<E> {
    /// Takes up what the process before this one has spent, and hears of the others, before anything is asked; gives what
    /// is written down.
    pub(super) fn open_account(&self) -> u64 {
        let mut written = self.spool.spend_of(&self.owner).micro_dollars;
        self.llm.fleet().charge(written);
        self.balance(&mut written);
        written
    }

    /// Keeps the account, of which so much is written down, until it is dropped.
    pub(super) async fn keep_account(self: Arc<Self>, mut written: u64) {
        loop {
            tokio::time::sleep(ACCOUNT_PERIOD).await;
            let me = self.clone();
            // The spool may hang: nothing waits for this but the next look.
            let balanced = tokio::task::spawn_blocking(move || {
                me.heed_keys();
                me.tell_of_models();
                me.balance(&mut written);
                written
            });
            written = balanced.await.unwrap_or(written);
        }
    }

    /// Why no model can be asked now; where none is to be, there is no reason to tell.
    fn modelless(&self) -> Option<String> {
        let asks = self.config.borrow().brain != BrainKind::Rules;
        asks.then(|| self.llm.fleet().obstacle().or_else(|| self.llm.obstacle())).flatten()
    }

    /// Which tasks are left for now, because they begin with a model and none can be asked.
    pub(super) fn lacks_model(&self) -> impl Fn(&Class) -> bool + use<E> {
        let (brain, is_modelless) = (self.config.borrow().brain, self.modelless().is_some());
        move |class| is_modelless && begins_with_model(class, brain)
    }

    fn tell_of_models(&self) {
        let held_up = match self.config.borrow().brain {
            BrainKind::Auto => "environments that the rules cannot make wait in their slots",
            _ => "no environments are begun",
        };
        for news in self.board.tell(Topic::Models, self.modelless().map(|why| format!("{held_up}: {why}"))) {
            tracing::warn!("{news}");
        }
    }

    /// Takes up keys whose files have changed.
    fn heed_keys(&self) {
        let failed = self.llm.reread_keys();
        let said =
            failed.iter().map(|why| format!("the key of an endpoint of models stays as it was: {why}"));
        self.board.tell(Topic::Keys, said);
    }

    /// Writes down what is not written yet, and reads what others have. Where the file is gone that held `written`, a
    /// person has it counted anew.
    pub(super) fn balance(&self, written: &mut u64) {
        let fleet = self.llm.fleet();
        if *written > 0 && self.spool.has_spend(&self.owner).is_ok_and(|is_there| !is_there) {
            fleet.forget(std::mem::take(written));
        }
        let here = fleet.here();
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

/// Of the rules nobody knows beforehand how far they come: with them first, a task is begun, and waits where it needs a model.
fn begins_with_model(class: &Class, brain: BrainKind) -> bool {
    brain == BrainKind::Agents && class.work() == BUILD
}

#[cfg(test)]
mod tests {
    use queue_format::Resources;

    use super::*;

    #[test]
    fn only_what_begins_with_a_model_is_left_without_one() {
        let check = |work: &str, brain: BrainKind, expected: bool| {
            for cores in [None, Some(2)] {
                let class = Class::shaped(5, work, &Resources { cores, ..Resources::default() });
                assert_eq!(begins_with_model(&class, brain), expected, "{class} {brain:?}");
            }
        };
        for brain in [BrainKind::Rules, BrainKind::Auto, BrainKind::Agents] {
            check("build", brain, brain == BrainKind::Agents);
            check("run", brain, false);
            check("native", brain, false);
        }
    }
}

use std::time::Duration;

/// After so many conversations in a row that came to nothing, none is begun for so long: a model that babbles is no
/// reason to fail a queue of tasks.
const USELESS_MAX: u32 = 3;
/// What a filter takes away says little of the model, and an endpoint that answers nothing but that says enough: so many
/// refusals weigh as one conversation that came to nothing.
const REFUSALS: u32 = 4;
const USELESS_PAUSE: Duration = Duration::from_secs(300);

/// Conversations that came to nothing, one after the other.
#[derive(Debug, Default)]
pub(super) struct Babble {
    in_a_row: u32,
    refused: u32,
    pause: Option<(Duration, String)>,
}

impl Babble {
    /// A conversation came to an answer that can be used, or to none for this reason. After a pause they are counted anew.
    pub(super) fn came_to(&mut self, answer: Result<(), &str>, now: Duration) {
        let Err(why) = answer else { return *self = Self::default() };
        self.in_a_row += 1;
        self.pause_if_due(why, now);
    }

    /// The last answer of a conversation was refused.
    pub(super) fn was_refused(&mut self, why: &str, now: Duration) {
        self.refused += 1;
        self.pause_if_due(why, now);
    }

    fn pause_if_due(&mut self, why: &str, now: Duration) {
        if self.in_a_row * REFUSALS + self.refused >= USELESS_MAX * REFUSALS {
            let count = self.in_a_row + self.refused;
            let why = format!("{count} conversations in a row came to nothing; the last: {why}");
            *self = Self { pause: Some((now + USELESS_PAUSE, why)), ..Self::default() };
        }
    }

    /// Why nothing is asked now.
    pub(super) fn obstacle(&self, now: Duration) -> Option<String> {
        self.pause.as_ref().filter(|(until, _)| now < *until).map(|(_, why)| why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_row_bring_a_pause_and_are_counted_anew_after_it() {
        let useless = Err("no JSON");
        let check = |answers: &[Result<(), &str>], expected: bool| {
            let mut babble = Babble::default();
            answers.iter().for_each(|answer| babble.came_to(*answer, Duration::ZERO));
            assert_eq!(babble.obstacle(Duration::ZERO).is_some(), expected, "{answers:?}");
        };
        check(&[], false);
        check(&[useless; USELESS_MAX as usize - 1], false);
        check(&[useless; USELESS_MAX as usize], true);
        check(&[useless, useless, Ok(()), useless, useless], false);
        check(&[useless, useless, useless, Ok(())], false);

        let refusals = |count: u32, useless_first: bool| {
            let mut babble = Babble::default();
            if useless_first {
                babble.came_to(useless, Duration::ZERO);
            }
            (0..count).for_each(|_| babble.was_refused("filtered", Duration::ZERO));
            babble.obstacle(Duration::ZERO).is_some()
        };
        assert!(!refusals(11, false) && refusals(12, false) && !refusals(7, true) && refusals(8, true));

        let mut babble = Babble::default();
        (0..USELESS_MAX).for_each(|_| babble.came_to(useless, Duration::ZERO));
        let why = babble.obstacle(USELESS_PAUSE - Duration::from_millis(1)).unwrap();
        assert_eq!(why, "3 conversations in a row came to nothing; the last: no JSON");
        assert_eq!(babble.obstacle(USELESS_PAUSE), None);
        for nth in 1..=USELESS_MAX {
            babble.came_to(useless, USELESS_PAUSE);
            assert_eq!(babble.obstacle(USELESS_PAUSE).is_some(), nth == USELESS_MAX, "{nth}");
        }
    }
}

//! What the slots are doing, for whoever looks at the spool.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use queue_format::{Owner, SlotActivity, SlotStatus, TaskId, WorkerStatus};

use crate::slots::Slot;

/// Shared by the slots; the worker publishes it to the spool from time to time.
#[derive(Debug)]
pub struct Board {
    owner: Owner,
    state: Mutex<State>,
}

/// What a notice is of: what is said of it next takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// What was found at the start.
    Start,
    /// What the node's test of itself found missing.
    SelfTest,
    /// Changes of the configuration that do not hold before a restart.
    Restart,
    /// Changes of the endpoints of models that cannot hold.
    Endpoints,
    /// Keys of endpoints that cannot be read any more.
    Keys,
    /// Why no model can be asked now.
    Models,
    /// What is not as it should be with a slot.
    Slot(u32),
    /// What of an attempt is still there in a slot.
    Rest(u32),
    /// A verdict of a slot's that cannot be written yet.
    Verdict(u32),
    /// What idle slots wait for.
    Joining,
    /// What the spool has refused last.
    Spool,
}

#[derive(Debug)]
struct State {
    kinds: Vec<String>,
    notices: BTreeMap<Topic, Vec<String>>,
    obstacle: Option<String>,
    slots: Vec<SlotStatus>,
    changed: bool,
}

impl Board {
    /// A board with every slot idle.
    #[must_use]
    pub fn new(owner: Owner, slots: &[Slot], notices: Vec<String>) -> Self {
        let slots = slots
            .iter()
            .map(|slot| SlotStatus {
                slot: slot.number,
                cpuset: slot.limits.cpuset_cpus.clone(),
                memory_bytes: slot.limits.memory_bytes,
                group: Some(slot.group),
                out_of_service: None,
                activity: None,
            })
            .collect();
        Self {
            owner,
            state: Mutex::new(State {
                kinds: Vec::new(),
                notices: BTreeMap::from([(Topic::Start, notices)]),
                obstacle: None,
                slots,
                changed: true,
            }),
        }
    }

    /// The kinds of work that are done from now on.
    pub fn set_kinds(&self, kinds: impl Iterator<Item = &'static str>) {
        let mut state = self.lock();
        state.kinds = kinds.map(str::to_owned).collect();
        state.changed = true;
    }

    /// A slot begins a stage of a task.
    pub fn begin(&self, slot: u32, task: &TaskId, stage: &str) {
        let activity = SlotActivity { task: task.clone(), stage: stage.to_owned(), since: Timestamp::now() };
        self.set(slot, Some(activity));
    }

    /// A slot has nothing to do.
    pub fn idle(&self, slot: u32) {
        self.set(slot, None);
    }

    /// Which slots are given nothing, and why; gives what is news, in the order of slots.
    pub fn set_out_of_service(&self, out: &BTreeMap<u32, String>) -> Vec<(u32, Option<String>)> {
        let mut state = self.lock();
        let mut news = Vec::new();
        for status in &mut state.slots {
            let why = out.get(&status.slot).cloned();
            if status.out_of_service != why {
                news.push((status.slot, why.clone()));
                status.out_of_service = why;
            }
        }
        state.changed |= !news.is_empty();
        news
    }

    /// What people should know of a topic, in the place of what was said of it before; gives what nobody has said yet.
    pub fn tell<T: Into<String>>(&self, of: Topic, texts: impl IntoIterator<Item = T>) -> Vec<String> {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        let mut state = self.lock();
        let is_known = |text: &&String| state.notices.values().flatten().any(|known| known == *text);
        let news = texts.iter().filter(|text| !is_known(text)).cloned().collect();
        if state.notices.get(&of).map_or(&[][..], Vec::as_slice) != texts {
            state.notices.insert(of, texts);
            state.changed = true;
        }
        news
    }

    /// Why nothing is claimed now, `None` once that is over; gives whether that is news.
    pub fn obstacle(&self, text: Option<&str>) -> bool {
        let mut state = self.lock();
        let is_news = state.obstacle.as_deref() != text;
        if is_news {
            state.obstacle = text.map(str::to_owned);
            state.changed = true;
        }
        is_news
    }

    /// How it goes, in one line.
    pub fn line(&self) -> String {
        let state = self.lock();
        let busy = state.slots.iter().filter(|slot| slot.activity.is_some()).count();
        let mut line = format!("{busy} of {} slots at work", state.slots.len());
        let out = state.slots.iter().filter(|slot| slot.out_of_service.is_some()).count();
        if out > 0 {
            line = format!("{line}, {out} out of service");
        }
        match &state.obstacle {
            Some(obstacle) => format!("{line}; nothing is claimed: {obstacle}"),
            None => line,
        }
    }

    /// The status to publish, and whether it has changed since the last call.
    pub fn status(&self) -> (WorkerStatus, bool) {
        let mut state = self.lock();
        let mut notices: Vec<String> = Vec::new();
        for text in state.notices.values().flatten() {
            if !notices.contains(text) {
                notices.push(text.clone());
            }
        }
        let status = WorkerStatus {
            owner: self.owner.clone(),
            at: Timestamp::now(),
            notices,
            kinds: state.kinds.clone(),
            obstacle: state.obstacle.clone(),
            slots: state.slots.clone(),
        };
        (status, std::mem::take(&mut state.changed))
    }

    fn set(&self, slot: u32, activity: Option<SlotActivity>) {
        let mut state = self.lock();
        let status = state.slots.iter_mut().find(|status| status.slot == slot);
        // A slot that finds nothing to do says so every few seconds.
        if let Some(status) = status.filter(|status| status.activity != activity) {
            status.activity = activity;
            state.changed = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use queue_format::Incarnation;
    use uuid::Uuid;

    use super::*;
    use crate::config::WorkerConfig;
    use crate::slots::plan;
    use crate::slots::tests::machine;

    #[test]
    fn what_is_said_of_a_topic_takes_the_place_of_what_was() {
        let owner = Owner::new("node", Incarnation::new(Uuid::now_v7()));
        let board = Board::new(owner, &[], vec!["no init".to_owned()]);
        assert!(board.status().1, "the first is news");
        let check = |of: Topic, texts: &[&str], news: &[&str], expected: &[&str], has_changed: bool| {
            assert_eq!(board.tell(of, texts.iter().copied()), news);
            let (status, changed) = board.status();
            assert_eq!(
                (status.notices, changed),
                (expected.iter().map(ToString::to_string).collect(), has_changed)
            );
        };
        check(Topic::Spool, &[], &[], &["no init"], false);
        check(Topic::Spool, &["full"], &["full"], &["no init", "full"], true);
        check(Topic::Spool, &["read-only"], &["read-only"], &["no init", "read-only"], true);
        check(Topic::Spool, &["read-only"], &[], &["no init", "read-only"], false);
        // What is so of two slots is said once.
        check(Topic::Slot(0), &["no group"], &["no group"], &["no init", "no group", "read-only"], true);
        check(Topic::Slot(1), &["no group"], &[], &["no init", "no group", "read-only"], true);
        check(Topic::Slot(0), &[], &[], &["no init", "no group", "read-only"], true);
        check(Topic::Slot(1), &[], &[], &["no init", "read-only"], true);
        check(Topic::Spool, &[], &[], &["no init"], true);
        check(
            Topic::SelfTest,
            &["no pids", "no io"],
            &["no pids", "no io"],
            &["no init", "no pids", "no io"],
            true,
        );
        check(Topic::SelfTest, &["no io"], &[], &["no init", "no io"], true);
        check(Topic::SelfTest, &["no init"], &[], &["no init"], true);
    }

    #[test]
    fn a_slot_that_stays_idle_is_no_news() {
        let slots = plan(&machine(1, 1, 1, 4 << 30), &WorkerConfig::default()).slots;
        let board = Board::new(Owner::new("node", Incarnation::new(Uuid::now_v7())), &slots, Vec::new());
        assert!(board.status().1, "the first is");
        board.idle(0);
        assert!(!board.status().1);
        board.begin(0, &"x".parse().unwrap(), "build");
        assert!(board.status().1);
        board.idle(0);
        assert!(board.status().1);
    }

    #[test]
    fn a_slot_out_of_service_says_why_and_is_not_idle() {
        let slots = plan(&machine(1, 2, 1, 4 << 30), &WorkerConfig::default()).slots;
        let board = Board::new(Owner::new("node", Incarnation::new(Uuid::now_v7())), &slots, Vec::new());
        let check = |out: &[(u32, &str)], news: usize, idle: [bool; 2], line: &str| {
            let out = out.iter().map(|(slot, why)| (*slot, (*why).to_owned())).collect();
            assert_eq!(board.set_out_of_service(&out).len(), news);
            let (status, _) = board.status();
            assert_eq!([0, 1].map(|slot| status.slots[slot].is_idle()), idle);
            assert_eq!(board.line(), line);
        };
        check(&[], 0, [true, true], "0 of 2 slots at work");
        check(&[(1, "offline")], 1, [true, false], "0 of 2 slots at work, 1 out of service");
        check(&[(1, "offline")], 0, [true, false], "0 of 2 slots at work, 1 out of service");
        check(&[(0, "taken")], 2, [false, true], "0 of 2 slots at work, 1 out of service");
    }
}

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

#[derive(Debug)]
struct State {
    kinds: Vec<String>,
    notices: Vec<String>,
    /// What is not as it should be with a slot, by its number.
    of_slots: BTreeMap<u32, String>,
    trouble: Option<String>,
    waiting: Option<String>,
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
                notices,
                of_slots: BTreeMap::new(),
                trouble: None,
                waiting: None,
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

    /// Says something once that people should know.
    pub fn notice(&self, text: &str) {
        let mut state = self.lock();
        if !state.notices.iter().any(|known| known == text) {
            state.notices.push(text.to_owned());
            state.changed = true;
        }
    }

    /// What people should know of a slot, in the place of what was said of it before; gives what is news.
    pub fn notice_of_slot<'a>(&self, slot: u32, text: Option<&'a str>) -> Option<&'a str> {
        let mut state = self.lock();
        let is_known = text.is_some_and(|text| state.of_slots.values().any(|known| known == text));
        let before = match text {
            Some(text) => state.of_slots.insert(slot, text.to_owned()),
            None => state.of_slots.remove(&slot),
        };
        state.changed |= before.as_deref() != text;
        text.filter(|_| !is_known)
    }

    /// Takes a notice back.
    pub fn withdraw(&self, text: &str) {
        self.keep_notices(|known| known != text);
    }

    /// Takes back every notice that begins so.
    pub fn withdraw_group(&self, beginning: &str) {
        self.keep_notices(|known| !known.starts_with(beginning));
    }

    fn keep_notices(&self, stays: impl Fn(&str) -> bool) {
        let mut state = self.lock();
        let before = state.notices.len();
        state.notices.retain(|known| stays(known));
        state.changed |= state.notices.len() != before;
    }

    /// What the spool has refused last, `None` once it has not: one notice that replaces the one before.
    pub fn trouble(&self, text: Option<&str>) {
        let mut state = self.lock();
        if state.trouble.as_deref() != text {
            state.trouble = text.map(str::to_owned);
            state.changed = true;
        }
    }

    /// What idle slots wait for, `None` once they do not.
    pub fn waiting(&self, text: Option<&str>) {
        let mut state = self.lock();
        state.changed |= state.waiting.as_deref() != text;
        state.waiting = text.map(str::to_owned);
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
        let mut notices: Vec<String> = state.notices.clone();
        for text in state.of_slots.values().chain(&state.waiting).chain(&state.trouble) {
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
    fn trouble_is_replaced_and_goes() {
        let owner = Owner::new("node", Incarnation::new(Uuid::now_v7()));
        let board = Board::new(owner, &[], vec!["no init".to_owned()]);
        let check = |text: Option<&str>, expected: &[&str], is_news: bool| {
            board.trouble(text);
            let (status, changed) = board.status();
            assert_eq!(
                (status.notices, changed),
                (expected.iter().map(ToString::to_string).collect(), is_news)
            );
        };
        check(None, &["no init"], true);
        check(Some("full"), &["no init", "full"], true);
        check(Some("read-only"), &["no init", "read-only"], true);
        check(Some("read-only"), &["no init", "read-only"], false);
        check(None, &["no init"], true);
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

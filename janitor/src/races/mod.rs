//! The stages, the last look and the removals beside everything that others do meanwhile, on a model of an engine, a ledger
//! and a spool: no schedule may cost a foreign object, nor one that a live claim names. The lock of builds is the true one.
//!
//! Everything may happen between two steps of the janitor: between its listings of containers, images, ledger and spool,
//! between the plan and each removal, and between the last look at the ledger and the one at the object. Only one thing is
//! taken for one: the last look at an object and its removal, for the engine has no removal under a condition. A person who
//! gives an image of ours a name in that millisecond gives it too late.

mod janitor;
mod model;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use queue_format::BuildGate;

use janitor::{Blind, Scene};
use model::Random;

/// In a normal run; a million by `make janitor-long`.
const SCHEDULES: u64 = 4_000;
const SCHEDULES_LONG: u64 = 1_000_000;
/// Within so many a missing guard must show.
const SCHEDULES_MUTANT: u64 = 40_000;
/// What happens before the first look, and the passes of each schedule.
const EVENTS_BEFORE: u64 = 24;
const PASSES: u64 = 8;

/// What schedules came to.
#[derive(Default)]
struct Told {
    violation: Option<String>,
    removed: BTreeMap<&'static str, u64>,
    events: u64,
}

async fn schedule(seed: u64, gate: &BuildGate, blind: Option<Blind>, told: &mut Told) {
    let mut scene = Scene::new(Random::new(seed), gate.clone(), blind);
    let start = Instant::now();
    for _ in 0..EVENTS_BEFORE {
        scene.model.get_mut().step();
    }
    for pass in 0..PASSES {
        scene.pass(start + Duration::from_secs(pass)).await;
        if let Some(violation) = &scene.model.get_mut().violation {
            told.violation = Some(format!("schedule {seed}: {violation}"));
            return;
        }
    }
    let model = scene.model.get_mut();
    for (what, number) in &model.removed {
        *told.removed.entry(what).or_default() += number;
    }
    told.events += model.events;
}

fn schedules(first: u64, number: u64, blind: Option<Blind>) -> Told {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = BuildGate::prepare(dir.path()).expect("a gate");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut told = Told::default();
        for seed in first..first + number {
            schedule(seed, &gate, blind, &mut told).await;
            if told.violation.is_some() {
                break;
            }
        }
        told
    })
}

#[test]
fn no_schedule_costs_what_is_foreign_or_live() {
    let told = schedules(0, SCHEDULES, None);
    assert_eq!(told.violation, None);
    for what in ["container", "step", "image", "layer", "spent", "slow"] {
        let removed = told.removed.get(what).copied().unwrap_or(0);
        assert!(removed > SCHEDULES / 400, "too few of {what}: {:?}", told.removed);
    }
}

#[test]
#[ignore = "a million schedules take minutes; make janitor-long"]
fn no_schedule_of_a_million_costs_what_is_foreign_or_live() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let share = SCHEDULES_LONG.div_ceil(threads);
    let began = Instant::now();
    let told: Vec<Told> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|n| scope.spawn(move || schedules(1_000_000 + n * share, share, None)))
            .collect();
        running.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    });
    let mut removed: BTreeMap<&str, u64> = BTreeMap::new();
    for one in &told {
        assert_eq!(one.violation, None);
        one.removed.iter().for_each(|(what, number)| *removed.entry(what).or_default() += number);
    }
    let events: u64 = told.iter().map(|one| one.events).sum();
    let seconds = began.elapsed().as_secs();
    println!("{} schedules, {events} events, removed {removed:?}, {seconds} s", share * threads);
}

#[test]
fn without_any_one_guard_a_schedule_is_found_that_costs_something() {
    for blind in Blind::ALL {
        let told = schedules(0, SCHEDULES_MUTANT, Some(blind));
        assert!(told.violation.is_some(), "nothing is lost without the guard {blind:?}");
        println!("{blind:?}: {}", told.violation.unwrap_or_default());
    }
}

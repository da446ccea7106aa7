//! The real protocol on a simulated NFS: many processes on several nodes, every one of them stopped between any two
//! calls, with caches that are out of date, answers that are lost, calls that are done late or twice, full disks,
//! crashes, and people who move files. All of it follows from one number:
//!
//! - `BOTTEGA_SIM_SEED=17 cargo test -p queue-format --test simulation` tells that one history again, line by line;
//! - `BOTTEGA_SIM_HISTORIES=1000000` tells more of them, `BOTTEGA_SIM_FIRST=5000` others.

mod broken;
mod check;
mod client;
mod faults;
mod fiber;
mod history;
mod human;
mod master;
mod mount;
mod rng;
mod schedule;
mod server;
mod stage;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use broken::Variant;
use check::Broken;
use faults::{Counts, Event};
use history::Teller;

/// Histories of one run of the tests.
const HISTORIES: u64 = 100_000;

/// Histories in which a flaw must be found.
const HISTORIES_WITH_FLAW: u64 = 3_000;

/// Broken histories that are kept for the report.
const KEPT_MAX: usize = 20;

#[derive(Default)]
struct Sum {
    counts: Counts,
    broken: BTreeMap<Broken, u64>,
    kept: Vec<(u64, Broken, String)>,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn tell_many(first: u64, histories: u64) -> Sum {
    let next = AtomicU64::new(first);
    let sum = Mutex::new(Sum::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut teller = Teller::new();
                let mut mine = Sum::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + histories {
                        break;
                    }
                    let outcome = teller.tell(seed, Variant::Sound, false);
                    for (event, n) in outcome.counts {
                        *mine.counts.entry(event).or_default() += n;
                    }
                    for (broken, what) in outcome.broken {
                        *mine.broken.entry(broken).or_default() += 1;
                        if mine.kept.len() < KEPT_MAX {
                            mine.kept.push((seed, broken, what));
                        }
                    }
                }
                let mut sum = sum.lock().expect("no panic");
                for (event, n) in mine.counts {
                    *sum.counts.entry(event).or_default() += n;
                }
                for (broken, n) in mine.broken {
                    *sum.broken.entry(broken).or_default() += n;
                }
                sum.kept.extend(mine.kept);
            });
        }
    });
    let mut sum = sum.into_inner().expect("no panic");
    sum.kept.sort();
    sum
}

fn replay(seed: u64) {
    let outcome = Teller::new().tell(seed, Variant::Sound, true);
    for line in &outcome.log {
        println!("{line}");
    }
    assert!(outcome.broken.is_empty(), "seed {seed}: {:#?}", outcome.broken);
}

#[test]
fn no_history_loses_a_task_or_accepts_two_results() {
    if let Some(seed) = number("BOTTEGA_SIM_SEED") {
        return replay(seed);
    }
    let histories = number("BOTTEGA_SIM_HISTORIES").unwrap_or(HISTORIES);
    let began = Instant::now();
    let sum = tell_many(number("BOTTEGA_SIM_FIRST").unwrap_or(0), histories);
    println!("{histories} histories in {:.1} s", began.elapsed().as_secs_f64());
    for (event, n) in &sum.counts {
        println!("{n:>12} {event:?}");
    }
    for (broken, n) in &sum.broken {
        println!("{n:>12} BROKEN {broken:?}");
    }
    for (seed, broken, what) in &sum.kept {
        println!("seed {seed}: {broken:?}: {what}");
    }
    if let Some((seed, _, _)) = sum.kept.first() {
        replay(*seed);
    }
    let common = [
        Event::CrashAfter,
        Event::CrashBefore,
        Event::Zombie,
        Event::LateCallDone,
        Event::HumanMove,
        Event::HumanNote,
        Event::WroteOn,
    ];
    for event in common {
        assert!(histories < 1000 || sum.counts.contains_key(&event), "{event:?} never happened");
    }
}

#[test]
fn a_seed_tells_the_same_history_again() {
    for seed in 0..50 {
        let first = Teller::new().tell(seed, Variant::Sound, true);
        let mut teller = Teller::new();
        teller.tell(seed + 1, Variant::Sound, false);
        assert_eq!(first.log, teller.tell(seed, Variant::Sound, true).log, "seed {seed}");
    }
}

#[test]
fn the_checker_finds_every_flaw_that_was_put_in() {
    let check = |variant, expected| {
        let mut teller = Teller::new();
        let found = (0..HISTORIES_WITH_FLAW).find(|seed| {
            teller.tell(*seed, variant, false).broken.iter().any(|(broken, _)| *broken == expected)
        });
        println!("{variant:?}: {expected:?} in seed {found:?}");
        assert!(found.is_some(), "{variant:?} was not found to be {expected:?}");
    };
    check(Variant::BelievesItsCache, Broken::Doubled);
    check(Variant::TrustsErrno, Broken::Untrue);
    check(Variant::ResultsLast, Broken::Torn);
    check(Variant::CopiesInsteadOfRenaming, Broken::Doubled);
    check(Variant::PublishesInPlace, Broken::Refused);
    check(Variant::PublishesBlindly, Broken::Doubled);
    check(Variant::RemovesWhatItHasRead, Broken::Lost);
}

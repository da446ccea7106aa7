//! The queue's protocol, searched state by state: whatever the network, the processes and people do, no task is lost
//! and at most one result of a task is accepted.
//!
//! A state ([`state::State`]) is the server's names and lease directories, what each worker believes, and the RENAMEs
//! that were sent. An action ([`protocol::Action`]) is one step of one of them:
//!
//! | action | what it stands for |
//! |---|---|
//! | `Start`, `End` | `Lease::open` and `Heartbeat::begin`; a crash, or the end of a worker that finds its heartbeat or its lease gone (both are possible at any step) |
//! | `MakeClassDir`, `Claim` | `Lease::claim`: MKDIR of the class directory (the lease directory is never made again), then the RENAME of a name that was listed, its token raised (`TaskName::claimed`) |
//! | `Conclude` | `Claim::conclude` with an accepted or a failed verdict, `Claim::release` |
//! | `Answer`, `Unclear`, `Late` | the network: the RENAME is executed and its answer heard; an error is heard that says nothing; the RENAME is executed and nobody hears of it |
//! | `Look`, `LookStale` | the look at the target after an error (`Files::rename`; one look, which a cache may answer, for a claim; for what ends a claim two with a change of the worker's own in between) |
//! | `Notice`, `ReturnStray` | `Lease::look_after`: a claim's file is gone; a task is there that no claim knows |
//! | `Suspect`, `Reap…` | any daemons, any number at once: the judge, `Spool::reap` file by file, then RMDIR |
//! | `LateMakeLease`, `LateMakeClass` | MKDIRs of the dead or suspected that are executed once more |
//! | `Move` | a person's `mv` between pending, hold, failed and out of a lease directory |
//!
//! **The network.** What was sent may be executed at any later time, any number of times or never, also after its
//! sender died; so a worker may hear ENOENT for its own success. A RENAME carries the handle of the directory that it
//! was sent to: once that directory is removed it fails for ever, though a directory of the same name be made. A
//! reaper's own RENAMEs and RMDIRs need no place in the network: a heartbeat that is gone never returns, so that a
//! late one is the same as another reaper's.
//!
//! **Bounded** are only the tasks, the incarnations, how many of them live at once, and the claims of all tasks
//! together. Crashes, false suspicions, lost answers, repetitions, people's moves are not.
//!
//! **Assumed**: a RENAME, MKDIR, RMDIR is atomic on the server, and executed in some one order with all others; a
//! client sees its own changes (a look after an own mutation in that directory is true); an incarnation's name is
//! never used twice; a person keeps the token in a name, moves nothing into a lease directory or out of `done/`, and
//! copies nothing; a worker's claims are made by one thread; a lease directory without a heartbeat is reaped as
//! well, however often it comes back (`Spool::incarnations`).
//!
//! **Not modelled**: contents of files and results (the simulation does), publishing, `delayed/` and `r` (a name
//! without `r` is found more often, not less), shards and stale listings (a name that is no longer there is a RENAME
//! that fails), time (whoever may act may also wait for ever), the heartbeat's counter, a worker's orderly end.
//!
//! What is searched in every run takes some 45 s of processor time.
//!
//! **At rest**: from every state, with no fault from then on and all that is still in the network lost, the living
//! and the reapers bring every task to `done/`, unless a person or a verdict set it aside
//! ([`protocol::Protocol::comes_to_rest`]).

mod properties;
mod protocol;
mod server;
mod settle;
mod show;
mod state;
mod symmetry;
mod worker;

use std::time::Instant;

use protocol::{Mutant, Protocol, Reduction};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// One task, two workers, two claims: enough for a counter-example to each mutant.
const SMALL: Protocol = Protocol {
    incarnations: 2,
    at_once: 2,
    tasks: 1,
    claims: 2,
    fails: true,
    remembers: false,
    reduction: Reduction::Symmetry,
    mutant: Mutant::None,
};

/// Threads of a search that need not find the shortest way.
const THREADS: usize = 2;

/// The longest counter-example that is looked for.
const STEPS_MAX: usize = 12;

#[test]
fn three_workers_at_one_task() {
    // 1,283,554 states.
    search(Protocol { incarnations: 3, at_once: 3, ..SMALL });
}

#[test]
fn two_workers_at_two_tasks() {
    // 1,667,010 states.
    search(Protocol { tasks: 2, fails: false, ..SMALL });
}

#[test]
fn every_way_back_to_pending_ends_in_done() {
    // 163,052 states.
    search(Protocol { remembers: true, ..SMALL });
}

#[test]
fn nothing_is_missed_by_what_the_search_leaves_out() {
    // 898,130 states.
    search(Protocol { fails: false, reduction: Reduction::None, ..SMALL });
}

#[test]
fn a_lease_directory_made_again_costs_a_zombies_work_and_no_more() {
    // 58,076 states.
    search(Protocol { mutant: Mutant::RemakesLease, ..SMALL });
}

/// `cargo test -p queue-format --test model -- --ignored --nocapture`: 5.5 minutes on two busy cores, 2 GB.
#[test]
#[ignore = "minutes, and gigabytes of memory"]
fn larger_worlds() {
    for world in [
        // 1,417,282 states, 31 s.
        Protocol { incarnations: 3, claims: 4, ..SMALL },
        // 6,464,964 states, 96 s.
        Protocol { incarnations: 4, at_once: 3, claims: 2, ..SMALL },
        // 3,662,973 states, 33 s.
        Protocol { tasks: 2, ..SMALL },
        // 11,774,273 states, 170 s.
        Protocol { tasks: 2, claims: 3, fails: false, ..SMALL },
    ] {
        search(world);
    }
}

/// What breaks first, and what a mutant is there to show, with the fewest steps to it.
#[test]
fn a_protocol_without_any_one_of_its_parts_is_caught() {
    use properties::*;
    let check = |mutant, property, steps| {
        for reduction in [Reduction::Steps, Reduction::Symmetry, Reduction::None] {
            let found = shortest(Protocol { mutant, reduction, ..SMALL }, property);
            assert_eq!(found, steps, "{mutant:?}, {reduction:?}: {property}");
        }
    };
    check(Mutant::NoToken, NOT_OVERTAKEN, 4);
    check(Mutant::NoToken, ONE_HOLDER, 5);
    check(Mutant::NoRmdirFence, RESTS, 4);
    check(Mutant::TrustErrno, VOID_IS_VOID, 5);
    check(Mutant::GoneIsDone, ACCEPTED_IS_ACCEPTED, 5);
    check(Mutant::TrustOneLook, VOID_IS_VOID, 6);
    check(Mutant::VoidUnlooked, VOID_IS_VOID, 7);
    check(Mutant::IgnoreStrays, RESTS, 4);
    check(Mutant::JudgeHeartbeatsOnly, RESTS, 4);
    check(Mutant::TrustRmdirFence, RESTS, 10);
    check(Mutant::RemoveTree, ONE_FILE, 4);
    check(Mutant::PersonDropsToken, TOKEN_RISES, 3);
    check(Mutant::PersonUndoes, DONE_IS_DONE, 5);
    check(Mutant::PersonUndoes, ONE_BELIEVER, 5);
}

/// Searches all states: what must hold holds in each, what must happen happens in some.
fn search(protocol: Protocol) {
    let began = Instant::now();
    let checker =
        protocol.checker().threads(THREADS).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "{protocol:?}\n{} states, {} steps between them, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
    );
    let found = checker.discoveries();
    for property in protocol.properties() {
        let path = found.get(property.name).cloned();
        match (property.expectation, path) {
            (Expectation::Always, None) => {}
            (Expectation::Always, Some(path)) => {
                panic!("not so: {}\n{}", property.name, show::steps(&protocol, &path.into_vec()))
            }
            (_, Some(path)) => println!("  {} (a way of {} steps)", property.name, path.into_actions().len()),
            (_, None) => panic!("never so: {}", property.name),
        }
    }
    assert!(checker.is_done(), "the search is complete");
}

/// The fewest steps in which a mutant breaks a property; printed.
fn shortest(protocol: Protocol, property: &'static str) -> usize {
    for steps in 0..=STEPS_MAX {
        // Without a limit the search goes on for a while after its first discovery, and keeps the last.
        let search = protocol.checker().target_max_depth(steps + 2);
        let checker = search.finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
        if let Some(path) = checker.discovery(property) {
            let path = path.into_vec();
            // With symmetry a step may change who is called A.
            if protocol.reduction == Reduction::Steps {
                let words = show::steps(&protocol, &path);
                println!("{:?}: in {steps} steps not so: {property}\n{words}", protocol.mutant);
            }
            return path.len() - 1;
        }
    }
    panic!("{:?} is not caught within {STEPS_MAX} steps", protocol.mutant);
}

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::config::WorkerConfig;
use crate::slots::tests::machine;
use crate::slots::{Plans, plan, slots_made_of};

fn seats(state_dir: &Path, slots: u32) -> Seats {
    let config = WorkerConfig { slots, ..WorkerConfig::default() };
    let slots = plan(&machine(1, 8, 1, 64 << 30), &config).slots;
    let locks = CpuLocks::open(state_dir).unwrap();
    let seats = Seats::new(slots, locks, &CpuSet::default(), Duration::ZERO, || Duration::ZERO).unwrap();
    assert!(!seats.is_free(0), "before it is known what runs there");
    seats.look(&all(), &[]);
    seats
}

fn all() -> CpuSet {
    (0..8).collect()
}

#[test]
fn a_slot_whose_cores_another_worker_has_comes_into_service_when_that_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    // Of one slot, and of two.
    let (one, two) = (seats(dir.path(), 1), seats(dir.path(), 2));
    assert!(one.is_free(0) && !two.is_free(0) && two.is_free(1));
    two.look(&all(), &[]);
    let why = "another worker on this node has CPU 0".to_owned();
    assert_eq!(two.out_of_service(), BTreeMap::from([(0, why)]));
    assert_eq!(one.take(0, &Shape::default()).unwrap().limits.cpuset_cpus, "0-3");
    assert_eq!(two.take(0, &Shape::default()), None);
    assert!(!two.adopt(&[0]), "what runs there is the other's");
    drop(one);
    two.take_locks(&CpuSet::default()).unwrap();
    assert!(!two.is_free(0), "its container may run on");
    two.look(&all(), &["0-3".parse().unwrap()]);
    assert_eq!(two.out_of_service().len(), 1);
    assert!(!two.is_free(0));
    two.look(&all(), &[]);
    assert!(two.out_of_service().is_empty());
    assert!(two.is_free(0));
}

#[test]
fn cores_are_left_to_a_worker_whose_attempts_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = WorkerConfig { slots: 2, ..WorkerConfig::default() };
    let slots = plan(&machine(1, 8, 1, 64 << 30), &config).slots;
    let locks = CpuLocks::open(dir.path()).unwrap();
    let seats = Seats::new(slots, locks.clone(), &CpuSet::from_iter([5]), Duration::ZERO, || Duration::ZERO);
    let seats = seats.unwrap();
    let check = |expected: [bool; 2]| {
        seats.look(&all(), &[]);
        assert_eq!([0, 1].map(|number| seats.is_free(number)), expected, "{:?}", seats.out_of_service());
    };
    check([true, false]);
    assert!(!seats.adopt(&[1]));
    drop(locks.take(&"4-7".parse().unwrap()).unwrap().unwrap());
    seats.take_locks(&CpuSet::default()).unwrap();
    check([true, true]);
}

#[test]
fn what_a_dead_worker_left_and_what_is_unplugged_keep_slots_out_of_service() {
    let dir = tempfile::tempdir().unwrap();
    let seats = seats(dir.path(), 2);
    let check = |usable: &str, occupied: &[&str], expected: [bool; 2], out: usize| {
        let occupied: Vec<CpuSet> = occupied.iter().map(|cpus| cpus.parse().unwrap()).collect();
        seats.look(&usable.parse().unwrap(), &occupied);
        let said = seats.out_of_service();
        assert_eq!(([0, 1].map(|number| seats.is_free(number)), said.len()), (expected, out), "{said:?}");
        assert_eq!(
            seats.has_free_slot(),
            expected.contains(&true),
            "the watchdog is fed by slots in service"
        );
    };
    check("0-7", &[], [true, true], 0);
    check("0-7", &["5"], [true, false], 1);
    check("0-2,4-7", &["3-4"], [false, false], 2);
    check("0-7", &[], [true, true], 0);
}

#[test]
fn what_has_no_cpu_left_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let seats = seats(dir.path(), 2);
    let check = |usable: &str, cpus: &str, expected: bool| {
        seats.look(&usable.parse().unwrap(), &[]);
        assert_eq!(seats.are_gone(&cpus.parse().unwrap()), expected, "{cpus} of {usable}");
    };
    check("0-7", "0-3", false);
    check("3-7", "0-3", false);
    check("4-7", "0-3", true);
    check("4-7", "0-7", false);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_joined_waits_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let seats = seats(dir.path(), 2);
    let large = Shape { cores: Some(8), memory_bytes: None };
    assert_eq!(seats.take(1, &large).unwrap().limits.cpuset_cpus, "0-7");
    assert!(!seats.wait_for(0).await, "it is joined to the other");
    let (waited, ()) = tokio::join!(tokio::time::timeout(ASK_AGAIN / 2, seats.wait_for(0)), async {
        assert!(!seats.release(1), "nobody waits");
    });
    assert!(waited.unwrap());
}

/// What happens to two workers of one node, each of which goes on as itself when it is started again.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It plans beside the other, and goes on with what waits for it.
    Start {
        worker: usize,
        slots: u32,
        slot_cores: u32,
    },
    /// Its locks go with it; its containers run on.
    Kill {
        worker: usize,
    },
    /// The first half of a look: locks, and what runs of others.
    Ask {
        worker: usize,
    },
    /// The second half: others may have done anything meanwhile.
    Look {
        worker: usize,
    },
    Claim {
        worker: usize,
        slot: u32,
        cores: u32,
    },
    End {
        worker: usize,
        container: usize,
    },
    /// What a dead worker left is removed by somebody.
    Reap {
        worker: usize,
    },
    Unplug {
        cpu: u32,
    },
    Plug,
}

fn step() -> impl Strategy<Value = Step> {
    let worker = || 0_usize..2;
    prop_oneof![
        3 => (worker(), 1_u32..5, 1_u32..5)
            .prop_map(|(worker, slots, slot_cores)| Step::Start { worker, slots, slot_cores }),
        1 => worker().prop_map(|worker| Step::Kill { worker }),
        4 => worker().prop_map(|worker| Step::Ask { worker }),
        4 => worker().prop_map(|worker| Step::Look { worker }),
        12 => (worker(), 0_u32..4, prop_oneof![3 => Just(0), 1 => 1_u32..9])
            .prop_map(|(worker, slot, cores)| Step::Claim { worker, slot, cores }),
        2 => (worker(), 0_usize..4).prop_map(|(worker, container)| Step::End { worker, container }),
        1 => worker().prop_map(|worker| Step::Reap { worker }),
        1 => (0_u32..8).prop_map(|cpu| Step::Unplug { cpu }),
        1 => Just(Step::Plug),
    ]
}

struct Container {
    worker: usize,
    /// The slot that serves it, while its worker lives.
    lead: u32,
    cpus: CpuSet,
}

struct Node {
    dir: tempfile::TempDir,
    workers: [Option<Seats>; 2],
    /// The slots of each when it was last started.
    planned: [Vec<Slot>; 2],
    /// What each worker saw when it asked, until it looks.
    seen: [Option<Vec<CpuSet>>; 2],
    running: Vec<Container>,
    usable: CpuSet,
}

impl Node {
    /// Whether a container has begun.
    fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Start { worker, slots, slot_cores } => {
                if self.workers[worker].is_none() {
                    self.start(worker, &WorkerConfig { slots, slot_cores, ..WorkerConfig::default() });
                }
            }
            Step::Kill { worker } => self.workers[worker] = None,
            Step::Ask { worker } => {
                if let Some(seats) = &self.workers[worker] {
                    let awaited = self.awaited(worker);
                    seats.take_locks(&awaited).unwrap();
                    let locks = CpuLocks::open(self.dir.path()).unwrap();
                    assert!(locks.take(&awaited).unwrap().is_ok(), "CPUs {awaited} wait for another");
                    let others = self.running.iter().filter(|one| one.worker != worker);
                    self.seen[worker] = Some(others.map(|one| one.cpus.clone()).collect());
                }
            }
            Step::Look { worker } => {
                if let (Some(seats), Some(seen)) = (&self.workers[worker], self.seen[worker].take()) {
                    seats.look(&self.usable, &seen);
                }
            }
            Step::Claim { worker, slot, cores } => {
                let wanted = Shape { cores: (cores > 0).then_some(cores), memory_bytes: None };
                let given = self.workers[worker].as_ref().and_then(|seats| seats.take(slot, &wanted));
                if let Some(given) = given {
                    let cpus = given.cpu_set();
                    assert!(self.running.iter().all(|other| !other.cpus.touches(&cpus)), "{cpus} twice");
                    self.running.push(Container { worker, lead: slot, cpus });
                    return true;
                }
            }
            Step::End { worker, container } => {
                let theirs = self.running.iter().enumerate().filter(|(_, one)| one.worker == worker);
                let found = theirs.map(|(index, _)| index).nth(container);
                if let (Some(seats), Some(index)) = (&self.workers[worker], found) {
                    seats.release(self.running.remove(index).lead);
                }
            }
            Step::Reap { worker } => {
                if self.workers[worker].is_none() {
                    self.running.retain(|one| one.worker != worker);
                }
            }
            Step::Unplug { cpu } => self.usable = self.usable.minus(&CpuSet::from_iter([cpu])),
            Step::Plug => self.usable = all(),
        }
        false
    }

    /// The CPUs of attempts that wait for the other worker.
    fn awaited(&self, worker: usize) -> CpuSet {
        let theirs =
            self.running.iter().filter(|one| one.worker != worker && self.workers[one.worker].is_none());
        theirs.flat_map(|one| one.cpus.iter()).collect()
    }

    /// It goes on with what it can, and removes the rest before it claims.
    fn start(&mut self, worker: usize, config: &WorkerConfig) {
        let (locks, plans) = (CpuLocks::open(self.dir.path()).unwrap(), Plans::of(self.dir.path(), "boot"));
        let (mut machine, instance) = (machine(1, 8, 1, 64 << 30), ["a", "b"][worker]);
        let (locked, awaited) = (locks.taken(&machine.topology.cores).unwrap(), self.awaited(worker));
        machine.taken = locked.iter().chain(awaited.iter()).collect();
        machine.theirs = plans.of_others(instance, &machine.taken);
        let slots = plan(&machine, config).slots;
        if slots.is_empty() {
            return;
        }
        plans.keep(instance, &machine, &slots).unwrap();
        let seats = Seats::new(slots.clone(), locks, &awaited, Duration::ZERO, || Duration::ZERO).unwrap();
        let is_as_before = self.planned[worker] == slots;
        self.running.retain_mut(|one| {
            if one.worker != worker {
                return true;
            }
            let numbers = slots_made_of(&slots, &one.cpus).unwrap_or_default();
            one.lead = numbers.first().copied().unwrap_or_default();
            let goes_on = !numbers.is_empty() && seats.adopt(&numbers);
            assert!(goes_on || !is_as_before, "the attempt on CPUs {} is lost", one.cpus);
            goes_on
        });
        self.seen[worker] = None;
        self.planned[worker] = slots;
        self.workers[worker] = Some(seats);
    }
}

#[test]
fn two_workers_of_a_node_never_share_a_core_nor_lose_an_attempt() {
    let begun = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let steps = proptest::collection::vec(step(), 20..200);
    let result = runner.run(&steps, |steps| {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node {
            dir,
            workers: [None, None],
            planned: Default::default(),
            seen: Default::default(),
            running: Vec::new(),
            usable: all(),
        };
        for step in steps {
            begun.set(begun.get() + u32::from(node.step(step)));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(begun.get() > 100, "hardly anything ran: {}", begun.get());
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{ReservedCores, WorkerConfig};
use crate::slots::tests::machine;
use crate::slots::{plan, slots_of};
use crate::topology::CpuSet;

const WAIT_MAX: Duration = Duration::from_secs(100);

/// Slots of four CPUs and 8 GiB in each NUMA node.
fn slots(nodes: u32, slots_each: u32) -> Vec<Slot> {
    let config = WorkerConfig {
        slot_memory_gib: 8.0,
        reserved_memory_gib: 0.0,
        reserved_cores: ReservedCores::Cpus(0),
        ..WorkerConfig::default()
    };
    let memory_bytes = u64::from(nodes * slots_each) * (8 << 30);
    let made = plan(&machine(nodes, slots_each * 2, 2, memory_bytes), &config).slots;
    assert_eq!(made.len(), (nodes * slots_each) as usize);
    made
}

fn shape(cores: u32, memory_gib: u64) -> Shape {
    let count = |count| (count > 0).then_some(count);
    Shape { cores: (cores > 0).then_some(cores), memory_bytes: count(memory_gib).map(|gib| gib << 30) }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn joins_as_many_idle_slots_of_one_node_as_a_task_needs() {
    let check = |busy: &[u32], number: u32, wanted: Shape, expected: Option<(&str, u64)>| {
        let mut allocator = Allocator::new(slots(2, 3), WAIT_MAX);
        for busy in busy {
            allocator.take(*busy, &Shape::default(), at(0)).unwrap();
        }
        let has_room = allocator.has_room(number, &wanted, at(0));
        let given = allocator.take(number, &wanted, at(0));
        assert_eq!(has_room, given.is_some());
        let given = given.map(|slot| (slot.limits.cpuset_cpus, slot.limits.memory_bytes >> 30));
        assert_eq!(given, expected.map(|(cpus, gib)| (cpus.to_owned(), gib)), "{busy:?} {number} {wanted:?}");
    };
    check(&[], 0, shape(0, 0), Some(("0-3", 8)));
    check(&[], 0, shape(2, 1), Some(("0-3", 8)));
    check(&[], 1, shape(5, 0), Some(("0-7", 16)));
    check(&[], 1, shape(12, 0), Some(("0-11", 24)));
    check(&[], 4, shape(4, 9), Some(("12-19", 16)));
    check(&[], 0, shape(13, 0), None);
    check(&[], 0, shape(0, 25), None);
    check(&[1], 0, shape(8, 0), Some(("0-3,8-11", 16)));
    check(&[1, 2], 0, shape(8, 0), None);
    check(&[0], 0, shape(1, 0), None);
}

#[test]
fn joined_slots_end_together() {
    let mut allocator = Allocator::new(slots(1, 3), WAIT_MAX);
    allocator.take(1, &shape(8, 0), at(0)).unwrap();
    assert_eq!(allocator.joined_to(1), [0, 1]);
    assert!(!allocator.is_free(0, at(0)) && allocator.is_free(2, at(0)));
    allocator.release(2);
    assert!(!allocator.is_free(0, at(0)));
    allocator.release(1);
    assert!((0..3).all(|number| allocator.is_free(number, at(0))));
}

#[test]
fn slots_wait_for_a_large_task_in_one_group_for_a_bounded_time() {
    let mut allocator = Allocator::new(slots(2, 2), WAIT_MAX);
    let large: Class = "5-run-8c".parse().unwrap();
    let too_large: Class = "5-run-9c".parse().unwrap();
    let small: Class = "5-run-4c".parse().unwrap();
    assert!(allocator.needs_joining(&large));
    assert!(!allocator.needs_joining(&small) && !allocator.needs_joining(&too_large));
    for number in 0..4 {
        allocator.take(number, &Shape::default(), at(0)).unwrap();
    }
    allocator.release(3);
    allocator.saw(std::slice::from_ref(&large), at(0));
    assert!(allocator.waiting(at(0)).is_some());
    // Slot 3 waits for slot 2; the other group goes on.
    assert!(!allocator.is_free(3, at(1)));
    allocator.release(0);
    assert!(allocator.has_room(0, &small.shape(), at(1)));
    allocator.release(2);
    assert!(allocator.is_free(3, at(2)) && allocator.has_room(3, &large.shape(), at(2)));
    assert!(!allocator.has_room(3, &small.shape(), at(2)), "what was waited for is not taken apart again");
    allocator.take(3, &large.shape(), at(2)).unwrap();
    assert_eq!(allocator.waiting(at(2)), None);
    allocator.release(3);

    // In vain: then the small ones have their turn, for as long.
    allocator.take(2, &Shape::default(), at(3)).unwrap();
    allocator.take(1, &Shape::default(), at(3));
    allocator.saw(std::slice::from_ref(&large), at(10));
    assert!(allocator.waiting(at(10)).is_some());
    let (_, group) = allocator.waiting(at(10)).unwrap();
    let idle = if group == 0 { 0 } else { 3 };
    assert!(!allocator.is_free(idle, at(109)) && allocator.is_free(idle, at(110)));
    allocator.saw(std::slice::from_ref(&large), at(110));
    assert!(allocator.waiting(at(110)).is_none());
    assert!(allocator.is_free(idle, at(209)));
    allocator.saw(std::slice::from_ref(&large), at(210));
    assert!(allocator.waiting(at(210)).is_some());
    // Somebody else has taken it.
    allocator.saw(&[], at(211));
    assert!(allocator.waiting(at(211)).is_none() && allocator.is_free(idle, at(211)));
}

#[test]
fn what_is_out_of_service_is_not_given() {
    let mut allocator = Allocator::new(slots(1, 2), WAIT_MAX);
    assert!(allocator.set_out(0, Cause::Offline, Some("gone".to_owned())));
    assert!(!allocator.set_out(0, Cause::Offline, Some("gone".to_owned())), "no news");
    assert!(allocator.set_out(0, Cause::Locked, Some("taken".to_owned())));
    assert!(!allocator.is_free(0, at(0)) && !allocator.has_room(1, &shape(8, 0), at(0)));
    assert!(!allocator.needs_joining(&"5-run-8c".parse().unwrap()));
    assert_eq!(allocator.out_of_service(), BTreeMap::from([(0, "taken; gone".to_owned())]));
    allocator.set_out(0, Cause::Offline, None);
    assert!(!allocator.is_free(0, at(0)));
    assert!(allocator.set_out(0, Cause::Locked, None) && allocator.is_free(0, at(0)));
}

/// What happens to a node.
#[derive(Clone, Debug)]
enum Step {
    Look {
        slot: u32,
        cores: u32,
    },
    End {
        slot: u32,
    },
    Unplug {
        cpu: u32,
    },
    Plug,
    /// The worker dies; its containers run on.
    Crash,
    /// A container that a dead worker left is gone, or is adopted by the living one.
    Reap,
    Adopt,
    Pending {
        cores: u32,
    },
    Wait {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u32..6, 0u32..14).prop_map(|(slot, cores)| Step::Look { slot, cores }),
        4 => (0u32..6).prop_map(|slot| Step::End { slot }),
        1 => (0u32..24).prop_map(|cpu| Step::Unplug { cpu }),
        1 => Just(Step::Plug),
        1 => Just(Step::Crash),
        2 => Just(Step::Reap),
        1 => Just(Step::Adopt),
        1 => (0u32..14).prop_map(|cores| Step::Pending { cores }),
        1 => (0u64..150).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// A node beside the allocator: what really runs on which CPUs.
struct Node {
    allocator: Allocator,
    /// Of the living worker, by the slot that leads.
    running: BTreeMap<u32, CpuSet>,
    /// Of dead ones.
    left: Vec<CpuSet>,
    online: CpuSet,
    now: Duration,
}

impl Node {
    /// As `Seats::look` does.
    fn look(&mut self) {
        for slot in self.allocator.slots() {
            let (number, cpus) = (slot.number, slot.cpu_set());
            let offline = (!cpus.is_within(&self.online)).then(|| "offline".to_owned());
            self.allocator.set_out(number, Cause::Offline, offline);
            let occupied = self.left.iter().any(|left| left.touches(&cpus)).then(|| "occupied".to_owned());
            self.allocator.set_out(number, Cause::Occupied, occupied);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Look { slot, cores } => {
                let wanted = shape(*cores, 0);
                if let Some(given) = self.allocator.take(*slot, &wanted, self.now) {
                    assert!(wanted.fits(given.cpus.len(), u64::MAX));
                    let cpus = given.cpu_set();
                    assert!(cpus.is_within(&self.online), "an offline CPU");
                    let others = self.running.values().chain(&self.left);
                    assert!(others.into_iter().all(|other| !other.touches(&cpus)), "a core twice");
                    assert!(self.running.insert(*slot, cpus).is_none());
                }
            }
            Step::End { slot } => {
                if self.running.remove(slot).is_some() {
                    self.allocator.release(*slot);
                }
            }
            Step::Unplug { cpu } => {
                self.online = self.online.minus(&CpuSet::from_iter([*cpu]));
                self.look();
            }
            Step::Plug => {
                self.online = (0..24).collect();
                self.look();
            }
            Step::Crash => {
                self.left.extend(std::mem::take(&mut self.running).into_values());
                self.allocator = Allocator::new(slots(2, 3), WAIT_MAX);
                self.look();
            }
            Step::Reap => {
                self.left.pop();
                self.look();
            }
            Step::Adopt => {
                let Some(cpus) = self.left.last().cloned() else { return };
                let numbers = slots_of(&self.allocator.slots(), &cpus);
                if self.allocator.adopt(&numbers) {
                    self.left.pop();
                    self.running.insert(numbers[0], cpus);
                    self.look();
                }
            }
            Step::Pending { cores } => {
                let class: Class = format!("5-run-{cores}c").parse().unwrap();
                let large = Some(class).filter(|class| self.allocator.needs_joining(class));
                self.allocator.saw(large.as_slice(), self.now);
            }
            Step::Wait { seconds } => self.now += at(*seconds),
        }
    }
}

proptest! {
    #[test]
    fn no_two_containers_ever_share_a_core_and_every_slot_comes_back(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let (online, now) = ((0..24).collect(), Duration::ZERO);
        let allocator = Allocator::new(slots(2, 3), WAIT_MAX);
        let mut node = Node { allocator, running: BTreeMap::new(), left: Vec::new(), online, now };
        for step in &steps {
            node.step(step);
        }
        for number in node.running.clone().into_keys() {
            node.step(&Step::End { slot: number });
        }
        while !node.left.is_empty() {
            node.step(&Step::Reap);
        }
        node.step(&Step::Plug);
        node.now += WAIT_MAX;
        for number in 0..6 {
            prop_assert!(node.allocator.is_free(number, node.now), "slot {} did not come back", number);
        }
        prop_assert!(node.allocator.take(0, &shape(12, 0), node.now).is_some());
    }
}

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use queue_format::{
    AcceptanceClass, Claim, FailureReason, Incarnation, Instance, Manifest, Owner, Spool, TaskSpec, Verdict,
};
use uuid::Uuid;

use crate::human::SLOW_TASKS;
use crate::mount::{MOUNT, Mount};
use crate::rng::Rng;
use crate::schedule::Scheduler;
use crate::server::Server;
use crate::world::{self, World, with};

/// What every history of one thread begins with, made once.
pub(crate) struct Stage {
    pub(crate) spool: Spool,
    pub(crate) server: Server,
    tasks: BTreeMap<String, (TaskSpec, Vec<u8>)>,
    manifest: Manifest,
}

/// How many tasks there can be.
pub(crate) const TASKS_MAX: usize = 4;

impl Stage {
    pub(crate) fn new(scheduler: &mut Scheduler) -> Rc<Self> {
        let mut empty = World::new(Server::new(), 1, Rng::new(0), false);
        empty.calm();
        world::swap(Some(empty));
        world::begin("init", 0, None, || {
            Spool::init_on(Arc::new(Mount), MOUNT.as_ref(), Uuid::from_u128(1)).expect("a spool");
        });
        scheduler.run();
        let opened: Rc<std::cell::RefCell<Option<Spool>>> = Rc::default();
        let out = opened.clone();
        world::begin("open", 0, None, move || {
            *out.borrow_mut() = Some(Spool::open_on(Arc::new(Mount), MOUNT.as_ref()).expect("a spool"));
        });
        scheduler.run();
        let mut server = world::swap(None).expect("the world of the set-up").server;
        server.now_ms = 0;
        let ids = (0..TASKS_MAX).map(|n| format!("t{n}")).chain(SLOW_TASKS.map(str::to_owned));
        let tasks = ids.map(|id| {
            let spec = task(&id);
            let bytes = serde_json::to_vec_pretty(&spec).expect("JSON");
            (spec.id.to_string(), (spec, bytes))
        });
        let spool = opened.borrow_mut().take().expect("opened");
        Rc::new(Self { spool, server, tasks: tasks.collect(), manifest: manifest() })
    }

    pub(crate) fn spec(&self, id: &str) -> Option<&TaskSpec> {
        self.tasks.get(id).map(|(spec, _)| spec)
    }

    pub(crate) fn bytes(&self, id: &str) -> &[u8] {
        &self.tasks[id].1
    }

    pub(crate) fn manifest(&self, claim: &Claim, owner: &Owner, verdict: Verdict) -> Manifest {
        let (id, token) = (claim.name().id.clone(), claim.name().token);
        Manifest { id, token, owner: owner.clone(), verdict, ..self.manifest.clone() }
    }
}

/// A new life on a node.
pub(crate) fn owner(node: usize) -> Owner {
    Owner::new(&format!("n{node}"), Incarnation::new(with(|world| world.rng.uuid())))
}

pub(crate) fn accepted() -> Verdict {
    Verdict::Accepted { class: AcceptanceClass::Strict }
}

pub(crate) fn failed(reason: FailureReason) -> Verdict {
    Verdict::Failed { reason, detail: "it failed".to_owned(), log: Vec::new(), remedy: String::new() }
}

fn task(id: &str) -> TaskSpec {
    let instance: Instance = serde_json::from_value(serde_json::json!({
        "instance_id": id, "repo": "owner/name", "base_commit": "0".repeat(40), "problem_statement": "it breaks",
        "patch": "diff --git a/x b/x", "test_patch": "diff --git a/test_x b/test_x",
    }))
    .expect("a row");
    TaskSpec::build(instance, "/mirrors/owner+name/repo".to_owned()).expect("a valid task")
}

fn manifest() -> Manifest {
    serde_json::from_value(serde_json::json!({
        "format": 1, "id": "t0", "token": "a001", "owner": "n0~0", "verdict": "accepted", "class": "strict",
        "started_at": "2024-01-01T00:00:00Z", "finished_at": "2024-01-01T00:01:00Z", "iterations": 1,
        "stages": [], "python": null, "image_name": null, "image_bytes": null, "fail_to_pass": 1,
        "pass_to_pass": 2, "peak_memory_bytes": null, "files": {},
    }))
    .expect("a manifest")
}

//! Who goes and who stays.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::time::Duration;

use queue_format::{BuildGate, Life, LifeLock, ObjectKind, State, image_name};
use uuid::Uuid;

use crate::node::{Node, Shape, base_image, container_name};

#[tokio::test]
async fn foreign_objects_survive_and_leftovers_go() {
    let node = Node::new().await;
    let (alive, _lock) = node.living_owner();
    let dead = node.dead_owner();
    let image = node.raw_build("scratch", &HashMap::new(), &format!("canary-{}", node.hostname)).await;
    let canary = image.last().expect("an image").clone();

    // Foreign: one step away from being ours, each in another way.
    let forged = node.labels(&alive, "forged", 1);
    let mut other_spool = node.labels(&alive, "other-spool", 1);
    other_spool.spool = Uuid::now_v7().to_string().parse().expect("a spool");
    let mut other_node = node.labels(&alive, "other-node", 1);
    other_node.owner = format!("elsewhere~{}", Uuid::now_v7().simple()).parse().expect("an owner");
    let wrong_task = node.labels(&alive, "wrong-task", 1);
    let wrong_token = node.labels(&alive, "wrong-token", 1);
    let renamed = node.labels(&alive, "renamed", 1);
    for (labels, recorded_as) in [
        (&other_spool, other_spool.clone()),
        (&other_node, other_node.clone()),
        (&wrong_task, queue_format::Labels { task: crate::node::id("another"), ..wrong_task.clone() }),
        (&wrong_token, queue_format::Labels { token: queue_format::Token(2), ..wrong_token.clone() }),
        (&renamed, renamed.clone()),
    ] {
        node.record(&recorded_as, ObjectKind::Container { name: container_name(labels) });
    }
    let mut foreign = vec![node.raw_container(&canary, HashMap::new(), Shape::default()).await];
    for labels in [&forged, &other_spool, &other_node, &wrong_task, &wrong_token] {
        foreign.push(node.raw_container(&canary, labels.to_map(), Shape::default()).await);
    }
    let by_hand = format!("by-hand-{}", node.hostname);
    let shape = Shape { name: Some(&by_hand), ..Shape::default() };
    foreign.push(node.raw_container(&canary, renamed.to_map(), shape).await);
    let forged_image = node.labels(&alive, &format!("forged-{}", node.hostname), 1);
    let tag = image_name(&forged_image.task);
    foreign.extend(node.raw_build("scratch", &forged_image.to_map(), &tag).await);
    foreign.extend(image);

    // Live: their claim stands. Their names are this test's own, for images are tagged by them.
    let (live_task, orphan, failed) = (
        format!("live-{0}", node.hostname),
        format!("orphan-{0}", node.hostname),
        format!("failed-{0}", node.hostname),
    );
    node.claim(&alive, &live_task, 3);
    let live_build = node.labels(&alive, &live_task, 3);
    let mut live = node.build(&live_build).await;
    live.push(node.container(&canary, &node.labels(&alive, &live_task, 3)).await);
    let live_dir = node.work_dir(&node.labels(&alive, &live_task, 3));

    // Leftovers: claim gone, older claim of a task that runs again, worker dead.
    let mut gone = vec![node.container(&canary, &node.labels(&alive, "cancelled", 1)).await];
    gone.push(node.container(&canary, &node.labels(&alive, &live_task, 2)).await);
    node.claim(&dead, &orphan, 1);
    gone.push(node.container(&canary, &node.labels(&dead, &orphan, 1)).await);
    gone.extend(node.build(&node.labels(&dead, &orphan, 1)).await);
    gone.extend(node.build(&node.labels(&alive, &failed, 1)).await);
    let base = base_image(&node.docker).await;
    let running = node.container(&base, &node.labels(&alive, "cancelled", 1)).await;
    node.docker.start_container(&running, None).await.expect("started");
    gone.push(running);
    let gone_dir = node.work_dir(&node.labels(&dead, &orphan, 1));

    let report = node.janitor().once().await.expect("a pass");
    let left = node.left().await;
    let expected: BTreeSet<String> = foreign.into_iter().chain(live).collect();
    assert_eq!(left, expected, "{report:?} {:#?}", node.audit());
    assert_eq!((report.kept, report.failed), (0, 0), "{:#?}", node.audit());
    assert!(live_dir.is_dir() && !gone_dir.exists());
    let names: Vec<String> = node.audit().iter().map(|line| line["id"].to_string()).collect();
    assert!(gone.iter().all(|id| names.contains(&format!("\"{id}\""))), "every removal is told");
    assert!(node.ledger().get(live_build.object).is_some());
}

#[tokio::test]
async fn an_accepted_image_stays_until_its_task_leaves_done() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let task = format!("accepted-{}", node.hostname);
    let done = node.accept(&owner, &task, 2);
    let first = node.labels(&owner, &task, 2);
    let replaced = node.build(&first).await;
    let accepted = node.build(&node.labels(&owner, &task, 2)).await;
    let outdated = node.labels(&owner, &task, 1);
    node.record(&outdated, ObjectKind::Build { image: image_name(&outdated.task) });
    // A person works with the environment: a container of it, and an image on it.
    let name = image_name(&first.task);
    let mine = format!("mine-{}", node.hostname);
    let container =
        node.raw_container(&name, HashMap::new(), Shape { name: Some(&mine), ..Shape::default() }).await;
    let built_on = node.raw_build(&name, &HashMap::new(), &mine).await;

    let mut janitor = node.janitor();
    janitor.once().await.expect("a pass");
    let kept: BTreeSet<String> = accepted.iter().chain(&built_on).chain([&container]).cloned().collect();
    assert_eq!(node.left().await, kept, "of {replaced:?} {accepted:?}");

    // The task is retried: the environment goes, but not what the person made, nor what that needs.
    fs::remove_file(done).expect("removed");
    janitor.once().await.expect("a pass");
    assert_eq!(node.left().await, kept);
}

#[tokio::test]
async fn what_a_person_builds_on_a_leftover_stays_without_a_name_too() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let left = node.labels(&owner, &format!("left-{}", node.hostname), 1);
    let ours = node.build(&left).await;
    // Engines list when an image was made in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mine = format!("mine-{}", node.hostname);
    let nameless = node.raw_build(&image_name(&left.task), &HashMap::new(), &mine).await;
    let named = node.raw_build("scratch", &HashMap::new(), &mine).await;
    let cut_off = node.build(&node.labels(&owner, &format!("cut-off-{}", node.hostname), 1)).await;
    node.janitor().once().await.expect("a pass");
    let kept: BTreeSet<String> = ours.iter().chain(&nameless).chain(&named).cloned().collect();
    assert_eq!(node.left().await, kept, "of {nameless:?} and {cut_off:?}");
}

#[tokio::test]
async fn base_images_foreign_tags_and_steps_of_builds_are_told_apart() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let based = node.build(&node.labels(&owner, &format!("base-{}", node.hostname), 1)).await;
    node.tag(based.last().expect("an image"), "openswe-python-0.0", &node.hostname).await;
    let tagged = node.build(&node.labels(&owner, &format!("tagged-{}", node.hostname), 1)).await;
    node.tag(tagged.last().expect("an image"), &format!("keep-{}", node.hostname), "1").await;

    // A build step that was left, and a person's container of the same image with the labels that it inherits.
    let ended = node.labels(&owner, &format!("ended-{}", node.hostname), 1);
    let images = node.build(&ended).await;
    let first = images.first().expect("an image");
    let step_name = format!("step-{}", node.hostname);
    let step = Shape { name: Some(&step_name), no_logs: true, limits: true, runs: false };
    node.raw_container(first, HashMap::new(), step).await;
    // What a person builds on an image of ours has its labels, and none of a worker's limits.
    let theirs = node.build(&node.labels(&owner, &format!("theirs-{}", node.hostname), 1)).await;
    let their_name = format!("their-step-{}", node.hostname);
    let their_step = Shape { name: Some(&their_name), no_logs: true, limits: false, runs: false };
    let their_step = node.raw_container(theirs.last().expect("an image"), HashMap::new(), their_step).await;
    // For Docker that is another registry's name, and all that the image has once the next build takes its own.
    let taken = node.labels(&owner, &format!("taken-{}", node.hostname), 1);
    let mine = node.build(&taken).await;
    let name = image_name(&taken.task);
    node.tag(mine.last().expect("an image"), &format!("localhost/{name}"), "latest").await;
    node.build(&node.labels(&owner, taken.task.as_str(), 2)).await;
    node.janitor().once().await.expect("a pass");
    let kept: BTreeSet<String> =
        based.iter().chain(&tagged).chain(&theirs).chain(&mine).chain([&their_step]).cloned().collect();
    assert_eq!(node.left().await, kept, "the build and its step are gone");

    let again = node.labels(&owner, &format!("again-{}", node.hostname), 1);
    let images = node.build(&again).await;
    let by_hand_name = format!("hand-{}", node.hostname);
    let by_hand = Shape { name: Some(&by_hand_name), ..Shape::default() };
    let container = node.raw_container(&images[1], HashMap::new(), by_hand).await;
    node.janitor().once().await.expect("a pass");
    let needed = images[..2].iter().cloned();
    let kept: BTreeSet<String> = kept.into_iter().chain(needed).chain([container]).collect();
    assert_eq!(node.left().await, kept, "a person's container keeps its image");
}

#[tokio::test]
async fn claims_of_the_dead_are_taken_back_and_those_of_the_living_stay() {
    let node = Node::new().await;
    let (alive, _lock) = node.living_owner();
    let dead = node.dead_owner();
    let stranger = node.owner();
    for owner in [&alive, &dead, &stranger] {
        node.claim(owner, &format!("of-{}", owner.incarnation()), 4);
    }
    node.janitor().pass().await.expect("a pass");
    let state_of = |owner: &queue_format::Owner| {
        let found = node.spool.find(&crate::node::id(&format!("of-{}", owner.incarnation()))).expect("found");
        assert_eq!(found.len(), 1);
        (found[0].state.clone(), found[0].name.token.0)
    };
    assert_eq!(state_of(&alive), (State::Claimed(alive.clone()), 4));
    assert_eq!(state_of(&stranger), (State::Claimed(stranger.clone()), 4));
    assert!(matches!(state_of(&dead), (State::Pending(_), 4)));
    assert_eq!(LifeLock::look(&node.state(), &dead).expect("a look"), Life::Dead);
}

#[tokio::test]
async fn a_plan_says_what_once_does_and_changes_nothing() {
    let node = Node::new().await;
    let (owner, _lock) = node.living_owner();
    let dead = node.dead_owner();
    let task = format!("planned-{}", node.hostname);
    node.claim(&dead, &task, 1);
    let images = node.build(&node.labels(&dead, &task, 1)).await;
    let container = node.container(images.last().expect("an image"), &node.labels(&owner, &task, 7)).await;
    let dir = node.work_dir(&node.labels(&dead, &task, 1));
    node.record(&node.labels(&dead, &task, 1), ObjectKind::Container { name: "never-made".to_owned() });

    let before = node.left().await;
    let building = BuildGate::open(&node.state()).and_then(|gate| gate.build()).expect("a lock");
    let mut beside = node.janitor().plan().await.expect("a plan");
    drop(building);
    let lines = node.janitor().plan().await.expect("a plan");
    let waits = format!("a build runs now: of these, {} images wait until none does", images.len());
    assert_eq!(beside.pop(), Some(waits));
    assert_eq!(beside.len(), lines.len(), "{beside:#?}");
    assert_eq!(node.left().await, before);
    assert!(dir.is_dir() && node.audit().is_empty());

    node.janitor().once().await.expect("a pass");
    let audit = node.audit();
    let removed: Vec<_> = audit.iter().filter(|line| line["event"] == "removed").collect();
    assert_eq!(lines.len(), removed.len(), "{lines:#?} {removed:#?}");
    for line in &removed {
        let (what, name) = (line["what"].as_str().expect("text"), line["name"].as_str().expect("text"));
        let said = |text: &&String| text.contains(&format!("{what} {name}"));
        assert!(lines.iter().any(|text| said(&text)), "{line} is not in {lines:#?}");
    }
    let line = |what: &str| lines.iter().find(|line| line.contains(what)).expect(what).clone();
    assert!(line("take back lease").ends_with("its worker is dead"));
    assert!(
        line(&format!("({})", &container[..12])).contains(&format!("of {task} a007: its claim is gone, "))
    );
    assert!(line("work-directory").ends_with(" kB"), "{}", line("work-directory"));
    assert!(line("forget ledger-entry").contains("its worker is dead"));
    assert_eq!(lines.iter().filter(|line| line.starts_with("remove image")).count(), images.len());
    assert!(node.left().await.is_empty());
}

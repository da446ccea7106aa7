//! Builds: what they make, what they may use, and that nothing of one is left.

use std::collections::HashSet;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, ResourcesUlimits};
use bollard::query_parameters::RemoveContainerOptionsBuilder;

use super::*;

#[tokio::test]
async fn a_build_makes_a_labelled_image_and_keeps_its_cache() {
    let node = Node::connect().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("repo/.git")).unwrap();
    std::fs::write(dir.path().join("repo/.git/HEAD"), "ref").unwrap();
    std::os::unix::fs::symlink("gone", dir.path().join("repo/link")).unwrap();
    let dockerfile = format!(
        "FROM {BASE_IMAGE}\nCOPY repo /testbed\nRUN cat /testbed/.git/HEAD && readlink /testbed/link && ulimit -n\nENTRYPOINT [\"false\"]\n"
    );
    let request = build_request(&node, dir.path(), &dockerfile);
    let first = node.docker.build(&request).await.unwrap();
    let BuildEnd::Built(id) = &first.end else { panic!("{first:?}") };
    let nofile = request.limits.nofile_max;
    assert!(first.log.contains("\nref") && first.log.contains(&format!("gone\n{nofile}\n")), "{}", first.log);
    let again = node.docker.build(&request).await.unwrap();
    assert_eq!(again.end, first.end);
    assert!(again.log.contains("Using cache"), "{}", again.log);
    let images = node.docker.images(&request.image_name).await.unwrap();
    assert_eq!(images.get(&request.image_name), Some(id));
    let made_at: jiff::Timestamp =
        node.raw.inspect_image(id).await.unwrap().created.unwrap().parse().unwrap();
    let ended_at = node.ledger.get(request.labels.object).unwrap().ended_at.unwrap();
    assert!(made_at <= ended_at, "the image of {made_at} is no younger than its build, of {ended_at}");

    let mut run = run_request(&node, "env -i ls -A /testbed");
    run.image.clone_from(id);
    assert_eq!(node.docker.run(&run).await.unwrap().log, ".git\nlink\n");
    assert!(first.own_bytes.is_some_and(|bytes| bytes < 1 << 20), "two small files: {:?}", first.own_bytes);
    node.docker.remove_image(&request.image_name).await.unwrap();
    node.docker.remove_image(&request.image_name).await.unwrap();
    assert!(node.docker.images(&request.image_name).await.unwrap().is_empty());
    assert_eq!(node.ledger.get(request.labels.object), None);
}

/// It inherits the labels of a worker that may begin anew, be cut off, or die.
#[tokio::test]
async fn a_persons_container_of_an_image_of_ours_is_no_workers() {
    let node = Node::connect().await;
    let dir = tempfile::tempdir().unwrap();
    let request = build_request(&node, dir.path(), &format!("FROM {BASE_IMAGE}\nRUN echo mine > /x\n"));
    let BuildEnd::Built(id) = node.docker.build(&request).await.unwrap().end else { panic!("not built") };
    let object = request.labels.object;
    let create = async |host_config: HostConfig| {
        let command = Some(vec!["sleep".to_owned(), "600".to_owned()]);
        let host_config = Some(host_config);
        let body =
            ContainerCreateBody { image: Some(id.clone()), cmd: command, host_config, ..Default::default() };
        node.raw.create_container(None, body).await.unwrap().id
    };
    let persons = create(HostConfig::default()).await;
    // Podman lists no step of a build.
    let lists_steps = !node.docker.facts().is_podman;
    // What a worker that was killed leaves of a build.
    let log_config = Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None });
    let fsize = ResourcesUlimits { name: Some("fsize".to_owned()), soft: Some(1 << 30), hard: Some(1 << 30) };
    let step = create(HostConfig {
        log_config,
        cpuset_cpus: Some("0".to_owned()),
        memory: Some(1 << 28),
        ulimits: Some(vec![fsize]),
        ..HostConfig::default()
    });
    if lists_steps {
        step.await;
        assert_eq!(node.containers(object, true).await, 2);
    }
    node.docker.remove_containers_of(&request.labels.owner, &HashSet::new()).await.unwrap();
    assert_eq!(node.containers(object, true).await, 1, "the step goes");
    // A build of the same attempt that is cut off.
    let slow = build_request(&node, dir.path(), &format!("FROM {BASE_IMAGE}\nRUN sleep 600\n"));
    let slow = BuildRequest { labels: request.labels.clone(), timeout: Duration::from_secs(1), ..slow };
    assert_eq!(node.docker.build(&slow).await.unwrap().end, BuildEnd::TimedOut);
    node.raw.inspect_container(&persons, None).await.expect("it is somebody else's");
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    node.raw.remove_container(&persons, Some(options)).await.unwrap();
    node.remove_images(object).await;
}

/// Two spools may build the same task on one node: what fails in one takes nothing from the other.
#[tokio::test]
async fn a_name_stays_with_the_image_it_was_given_to() {
    let node = Node::connect().await;
    let dir = tempfile::tempdir().unwrap();
    let request =
        |text: &str| build_request(&node, dir.path(), &format!("FROM {BASE_IMAGE}\nRUN echo {text} > /x\n"));
    let kept = request("kept");
    let BuildEnd::Built(id) = node.docker.build(&kept).await.unwrap().end else { panic!("not built") };
    let name = format!("{}-accepted", kept.image_name);
    node.docker.tag_image(&id, &name).await.unwrap();
    node.docker.remove_image(&kept.image_name).await.unwrap();
    let dropped = request("dropped");
    node.docker.build(&dropped).await.unwrap();
    node.docker.remove_image(&dropped.image_name).await.unwrap();
    assert_eq!(node.docker.images(&kept.image_name).await.unwrap(), [(name, id)].into());
    assert!(node.ledger.get(kept.labels.object).is_some(), "the image is still ours to sweep");
    assert_eq!(node.ledger.get(dropped.labels.object), None);
    node.remove_images(kept.labels.object).await;
}

/// The janitor has the lock alone while it removes images.
#[tokio::test]
async fn no_build_begins_while_images_go_and_none_goes_while_one_runs() {
    let node = Node::connect().await;
    let dir = tempfile::tempdir().unwrap();
    let request = build_request(&node, dir.path(), &format!("FROM {BASE_IMAGE}\nRUN sleep 3 && echo done\n"));
    let object = request.labels.object;
    let gate = node.ledger.builds().unwrap();
    let alone = gate.no_builds(Duration::ZERO).unwrap().expect("nobody builds");
    let mut build = std::pin::pin!(node.docker.build(&request));
    // One that did not wait would have noted itself at once.
    let waited = tokio::time::timeout(Duration::from_secs(1), &mut build).await;
    assert!(waited.is_err() && node.ledger.get(object).is_none(), "{waited:?}");
    drop(alone);
    let begun = async {
        while node.ledger.get(object).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        gate.no_builds(Duration::ZERO).unwrap().is_none()
    };
    let built = tokio::select! {
        built = &mut build => panic!("its step takes a while: {built:?}"),
        is_kept_out = begun => {
            assert!(is_kept_out, "images could go");
            build.await.unwrap()
        }
    };
    assert!(matches!(built.end, BuildEnd::Built(_)), "{built:?}");
    assert!(gate.no_builds(Duration::ZERO).unwrap().is_some());
    node.remove_images(object).await;
}

#[tokio::test]
async fn a_failed_build_tells_why() {
    let node = Node::connect().await;
    let step = if node.docker.facts().is_podman { "exit status 3" } else { "returned a non-zero code: 3" };
    let dir = tempfile::tempdir().unwrap();
    for (dockerfile, expected) in [
        (format!("FROM {BASE_IMAGE}\nRUN echo telling && exit 3\n"), step),
        (format!("FROM {BASE_IMAGE}\nENV x\n"), "ENV"),
        (format!("FROM {BASE_IMAGE}\nCOPY missing /x\n"), "missing"),
        (
            "FROM nobody/has-this\n".to_owned(),
            "line 1: FROM nobody/has-this: nobody/has-this is no base image",
        ),
        (format!("FROM {BASE_IMAGE}\nLABEL x=y\n"), "line 2: LABEL x=y: labels tell whose an image is"),
        (String::new(), "there is no FROM"),
    ] {
        let request = build_request(&node, dir.path(), &dockerfile);
        let outcome = node.docker.build(&request).await.unwrap();
        let sentence = match &outcome.end {
            BuildEnd::Failed(sentence) => sentence.clone(),
            BuildEnd::Refused(refused) => refused.to_string(),
            _ => panic!("{outcome:?}"),
        };
        assert!(sentence.contains(expected), "{sentence}");
        assert!(outcome.log.contains(expected), "{}", outcome.log);
        assert!(!node.has_containers(request.labels.object).await);
        node.remove_images(request.labels.object).await;
    }
    let request = build_request(&node, dir.path(), "FROM openswe-python-0.0\n");
    let error = node.docker.build(&request).await.unwrap_err();
    assert!(matches!(&error, EngineError::NoImage(name) if name == "openswe-python-0.0"), "{error}");
}

#[tokio::test]
async fn a_step_that_somebody_kills_fails_no_build() {
    let node = Node::connect().await;
    if node.docker.facts().is_podman {
        return; // It lists no step, so that nobody can.
    }
    let dir = tempfile::tempdir().unwrap();
    let request = build_request(&node, dir.path(), &format!("FROM {BASE_IMAGE}\nRUN sleep 600\n"));
    let object = request.labels.object;
    let kill = async {
        node.until_running(object).await;
        let options = ListContainersOptionsBuilder::new().filters(&by_object(object)).build();
        for step in node.raw.list_containers(Some(options)).await.unwrap() {
            node.raw.kill_container(&step.id.unwrap(), None).await.unwrap();
        }
    };
    let (built, ()) = tokio::join!(node.docker.build(&request), kill);
    assert!(matches!(&built, Err(EngineError::Disturbed { detail }) if detail.contains("kill")), "{built:?}");
    let request = build_request(&node, dir.path(), &format!("FROM {BASE_IMAGE}\nRUN exit 137\n"));
    let built = node.docker.build(&request).await.unwrap();
    assert!(
        matches!(&built.end, BuildEnd::Failed(why) if why.ends_with("code: 137")),
        "its own doing: {built:?}"
    );
    assert!(node.docker.settle(patient(Duration::from_secs(20)), |_| true).await);
    for object in [object, request.labels.object] {
        node.remove_images(object).await;
    }
}

#[tokio::test]
async fn the_processes_of_a_build_are_bounded() {
    let node = Node::connect().await;
    if !node.docker.facts().limits_build_processes {
        assert!(
            node.docker
                .facts()
                .warnings
                .iter()
                .any(|warning| warning.contains("processes cannot be limited"))
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dockerfile =
        format!("FROM {BASE_IMAGE}\nRUN bash -c 'for i in $(seq 300); do sleep 600 & done'; exit 1\n");
    let mut request = build_request(&node, dir.path(), &dockerfile);
    request.limits.pids_max = 64;
    // No CPU of this machine: no other worker's group.
    let group = 9_000 + std::process::id() % 1_000_000;
    node.confine(group, &mut request.limits).unwrap();
    let outcome = node.docker.build(&request).await.unwrap();
    assert!(outcome.log.contains("Resource temporarily unavailable"), "{}", outcome.log);
    // The same group holds a run, which has its own limits below.
    let mut run = run_request(&node, "nproc; sleep 3");
    run.limits = Limits { cpuset_cpus: "1".to_owned(), pids_max: 32, ..request.limits.clone() };
    let (outcome, groups) = tokio::join!(node.docker.run(&run), node.groups_of(run.labels.object));
    let outcome = outcome.unwrap();
    let slot = [format!("/bottega-slot{group}/"), format!("/bottega-slot{group}.slice/")];
    assert!(slot.iter().any(|slot| groups.contains(slot)), "{groups}");
    assert_eq!(outcome.log, "1\n");
    assert_eq!(node.unheld(outcome.warnings), [""; 0]);
    let held = outcome.node.unwrap();
    assert_eq!((held.cpuset_cpus.as_deref(), held.pids_max), (Some("1"), Some(32)));
    assert_eq!(
        (held.cpuset_mems.as_deref(), held.memory_bytes),
        (Some("0"), Some(request.limits.memory_bytes))
    );
    // It is fitted anew to what it is given next, larger or smaller.
    for cpus in ["1", "0-1"] {
        // What Podman watched the run with ends a moment after it.
        until_idle(&node, group).await;
        run.limits.cpuset_cpus = cpus.to_owned();
        node.confine(group, &mut run.limits).unwrap();
    }
    node.docker.remove_groups();
    let name = format!("bottega-slot{group}");
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpuset"] {
        assert!(!Path::new(root).join(&name).exists(), "{root}");
    }
    node.remove_images(request.labels.object).await;
}

#[tokio::test]
async fn a_build_that_is_late_or_dropped_leaves_nothing_running() {
    let node = Node::connect().await;
    let dir = tempfile::tempdir().unwrap();
    // Known by its time among all that the host runs: Podman lists no builds.
    let step = format!("sleep 600{:07}", std::process::id());
    let dockerfile = format!("FROM {BASE_IMAGE}\nRUN {step}\n");
    let request =
        || BuildRequest { limits: node.slot_limits(), ..build_request(&node, dir.path(), &dockerfile) };
    let mut late = request();
    // A busy host comes to the step only after a while, and it is the step that must be cut off.
    for seconds in [3, 9, 27, 81] {
        late.timeout = Duration::from_secs(seconds);
        let outcome = node.docker.build(&late).await.unwrap();
        assert_eq!(outcome.end, BuildEnd::TimedOut);
        assert!(!node.has_containers(late.labels.object).await);
        assert!(!is_running(&step));
        if outcome.log.contains(&step) {
            break;
        }
        assert!(seconds < 81, "the step never began: {}", outcome.log);
    }

    let dropped = request();
    {
        let mut build = std::pin::pin!(node.docker.build(&dropped));
        tokio::select! {
            outcome = &mut build => panic!("{outcome:?}"),
            () = until_running(&step) => {}
        }
    }
    assert!(node.docker.settle(patient(Duration::from_secs(20)), |_| true).await);
    assert!(!node.has_containers(dropped.labels.object).await);
    assert!(!is_running(&step));
    node.docker.remove_groups();
    for request in [late, dropped] {
        assert!(node.ledger.get(request.labels.object).is_some());
        node.remove_images(request.labels.object).await;
    }
}

/// What a worker that died left of a build is ended before the slot is given out again, and before the build that it was
/// is begun anew.
#[tokio::test]
async fn what_an_engine_lists_nowhere_is_ended_before_its_slot_is_used() {
    let node = Node::connect().await;
    if !node.docker.facts().is_podman {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let group = 8_000 + std::process::id() % 1_000_000;
    for is_begun_anew in [false, true] {
        let step = format!("sleep 60{}{:07}", u8::from(is_begun_anew), std::process::id());
        let mut request = build_request(&node, dir.path(), &format!("FROM {BASE_IMAGE}\nRUN {step}\n"));
        node.confine(group, &mut request.limits).unwrap();
        // A connection that is cut without a word, as by kill -9: nothing of the worker's own ends the build.
        let builder = std::thread::spawn({
            let (request, step) = (request.clone(), step.clone());
            move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    let node = Node::connect().await;
                    let mut build = Box::pin(node.docker.build(&request));
                    tokio::select! { _ = &mut build => panic!("it ended"), () = until_running(&step) => {} }
                    std::mem::forget(build);
                });
                runtime.shutdown_background();
            }
        });
        builder.join().unwrap();
        assert!(is_running(&step), "Podman goes on with it");
        if is_begun_anew {
            std::fs::write(dir.path().join("Dockerfile"), format!("FROM {BASE_IMAGE}\nRUN true\n")).unwrap();
            let outcome = node.docker.build(&request).await.unwrap();
            assert!(matches!(outcome.end, BuildEnd::Built(_)), "{outcome:?}");
        } else {
            node.docker.clear(&[group]).await.unwrap();
        }
        assert!(!is_running(&step));
        node.remove_images(request.labels.object).await;
    }
    node.docker.remove_groups();
}

async fn until_idle(node: &Node, group: u32) {
    let groups = SlotGroups::new(node.docker.facts());
    for _ in 0..300 {
        if !groups.is_in_use(group) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("something still runs in the group of slot {group}");
}

fn is_running(command: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line == [command.replace(' ', "\0").as_bytes(), b"\0"].concat())
}

async fn until_running(command: &str) {
    for _ in 0..300 {
        if is_running(command) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{command} never ran");
}

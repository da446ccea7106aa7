//! The engine, for real: what it promises of builds and runs, and what hostile code gets out of it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod builds;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/git.rs"]
mod git;
mod provisioned;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base_images::list_images;
use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptions, ListContainersOptionsBuilder,
    ListImagesOptionsBuilder, RemoveContainerOptions, RemoveImageOptions, RemoveImageOptionsBuilder,
};
use common::{BASE_IMAGE, Node, host, patient};
use queue_format::LABEL_OBJECT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use uuid::Uuid;
use worker::engine::{
    BuildEnd, BuildRequest, ContainerEnd, Content, Engine, EngineError, FileIn, Limits, Network, Output,
    RunRequest, SlotGroups,
};

const MIB: u64 = 1 << 20;

fn run_request(node: &Node, script: &str) -> RunRequest {
    let labels = node.labels();
    let command = ["bash", "-c", script].map(str::to_owned).into();
    let request = RunRequest::new(BASE_IMAGE, command, labels, &node.limits());
    RunRequest { log_bytes_max: 1 << 16, timeout: patient(request.timeout), ..request }
}

fn build_request(node: &Node, dir: &Path, dockerfile: &str) -> BuildRequest {
    std::fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    let labels = node.labels();
    BuildRequest {
        context_dir: dir.to_owned(),
        tree: None,
        bases: [BASE_IMAGE, "openswe-python-0.0"].map(str::to_owned).into(),
        image_name: format!("bottega-test-{}", labels.object.simple()),
        labels,
        limits: node.limits(),
        network: Network::None,
        timeout: patient(Duration::from_mins(2)),
        log_bytes_max: 1 << 16,
        round: 1,
    }
}

/// Looks that do not go through the code under test.
impl Node {
    async fn has_containers(&self, object: Uuid) -> bool {
        self.containers(object, true).await > 0
    }

    /// What a slot gives to builds: limits below a control group of its own, for CPUs that no machine has.
    fn slot_limits(&self) -> Limits {
        static GROUPS: AtomicU32 = AtomicU32::new(0);
        let mut limits = self.limits();
        let group = 9_000 + std::process::id() % 1_000_000 + GROUPS.fetch_add(1_000_000, Ordering::Relaxed);
        self.confine(group, &mut limits).unwrap();
        limits
    }

    /// Waits until a container of the object runs; bounded.
    async fn until_running(&self, object: Uuid) {
        for _ in 0..patient(Duration::from_secs(30)).as_millis() / 100 {
            if self.containers(object, false).await > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no container of {object} ran");
    }

    /// What the janitor would do with a failed build's layers.
    async fn remove_images(&self, object: Uuid) {
        let options = ListImagesOptionsBuilder::new().filters(&by_object(object)).build();
        for image in list_images(&self.raw, options).await.unwrap() {
            let options = RemoveImageOptionsBuilder::new().build();
            let mut removed = self.raw.remove_image(&image.id, Some(options.clone()), None).await;
            // Podman takes a moment to remove what the processes that it ran for a build had left.
            for _ in 0..100 {
                if removed.is_ok() || !self.docker.facts().is_podman {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                removed = self.raw.remove_image(&image.id, Some(options.clone()), None).await;
            }
            // It removes a parent with its last child.
            if !removed.as_ref().is_err_and(|error| error.to_string().contains("image not known")) {
                removed.unwrap();
            }
        }
    }

    /// The control groups of a container's process, as the host sees them: v2 shows it none.
    async fn groups_of(&self, object: Uuid) -> String {
        self.until_running(object).await;
        let options = ListContainersOptionsBuilder::new().filters(&by_object(object)).build();
        let listed = self.raw.list_containers(Some(options)).await.unwrap();
        let found = self.raw.inspect_container(listed[0].id.as_ref().unwrap(), None).await.unwrap();
        std::fs::read_to_string(format!("/proc/{}/cgroup", found.state.unwrap().pid.unwrap())).unwrap()
    }

    async fn containers(&self, object: Uuid, all: bool) -> usize {
        let options = ListContainersOptionsBuilder::new().all(all).filters(&by_object(object)).build();
        self.raw.list_containers(Some(options)).await.unwrap().len()
    }
}

fn by_object(object: Uuid) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{LABEL_OBJECT}={object}")])])
}

#[tokio::test]
async fn a_run_carries_files_in_and_out_and_leaves_nothing() {
    let node = Node::connect().await;
    let mut request = run_request(
        &node,
        "cat /in/a/b; id -u; stat -c %u:%a /in /in/a /in/a/b /tmp; echo err >&2; cp /in/a/b /in/out; exit 7",
    );
    request.files_in = vec![
        FileIn { path: "/in/a/b".to_owned(), mode: 0o640, content: Content::Bytes(b"hello\n".to_vec()) },
        FileIn { path: "/tmp/c".to_owned(), mode: 0o600, content: Content::Bytes(Vec::new()) },
    ];
    request.files_out =
        [("/in/out", 6), ("/in/a/b", 5), ("/in", 99), ("/none", 99)].map(|(p, n)| (p.to_owned(), n)).into();
    let outcome = node.docker.run(&request).await.unwrap();
    assert_eq!(outcome.end, ContainerEnd::Exited(7));
    let mut lines: Vec<&str> = outcome.log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0:1777", "1000", "1000:640", "1000:755", "1000:755", "err", "hello"]);
    assert_eq!(
        outcome.files_out.into_iter().collect::<Vec<_>>(),
        [("/in/out".to_owned(), b"hello\n".to_vec())]
    );
    assert_eq!(node.unheld(outcome.warnings), [""; 0]);
    assert!(!node.has_containers(request.labels.object).await);
    assert_eq!(node.ledger.get(request.labels.object), None);
}

/// Podman unmounts what a container wrote at about the moment at which its files are read.
#[tokio::test]
async fn what_a_container_wrote_is_there_as_soon_as_it_has_ended() {
    let node = Node::connect().await;
    for _ in 0..20 {
        let mut request = run_request(&node, "head -c 3000000 /dev/zero >/out/file");
        request.dirs_in = vec!["/out".to_owned()];
        request.files_out = [("/out/file".to_owned(), 3_000_000)].into();
        let outcome = node.docker.run(&request).await.unwrap();
        assert_eq!(outcome.files_out.get("/out/file").map(Vec::len), Some(3_000_000));
    }
}

/// The engine behind a socket that hangs up on every request with a certain text in it.
async fn listen_without(path: &Path, refused: &'static str) {
    let listener = UnixListener::bind(path).unwrap();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut engine = UnixStream::connect(host().strip_prefix("unix://").unwrap()).await.unwrap();
        tokio::spawn(async move {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_engine, mut to_engine) = engine.split();
            let ask = async {
                let mut piece = vec![0; 1 << 16];
                while let Ok(read @ 1..) = from_client.read(&mut piece).await {
                    let is_refused = String::from_utf8_lossy(&piece[..read]).contains(refused);
                    if is_refused || to_engine.write_all(&piece[..read]).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = ask => {}
                _ = tokio::io::copy(&mut from_engine, &mut to_client) => {}
            }
        });
    }
}

#[tokio::test]
async fn an_engine_that_hangs_up_tells_nothing_of_what_a_container_left() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("engine.sock");
    let listening = socket.clone();
    tokio::spawn(async move { listen_without(&listening, "/archive?path=%2Fout%2Ffile").await });
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    let node = Node::connect_to(&format!("unix://{}", socket.display())).await.unwrap();
    let mut request = run_request(&node, "echo x >/out/file; exit 3");
    request.dirs_in = vec!["/out".to_owned()];
    request.files_out = [("/out/file".to_owned(), 10)].into();
    let ended = node.docker.run(&request).await;
    assert!(matches!(ended, Err(EngineError::Failed { .. })), "{ended:?}");
    request.labels = node.labels();
    request.container_name.push_str("-2");
    request.files_out.clear();
    request.outputs = vec!["/out/file".to_owned()];
    request.output_bytes_max = 10;
    let ended = node.docker.run(&request).await;
    assert!(matches!(ended, Err(EngineError::Failed { .. })), "{ended:?}");
    assert!(!node.has_containers(request.labels.object).await);
}

#[tokio::test]
async fn a_run_leaves_files_and_directories_as_outputs() {
    let node = Node::connect().await;
    let script = "echo $COLOUR >/out/file; mkdir /out/dir; echo x >/out/dir/x; ln -s /etc/passwd /out/link";
    let mut request = run_request(&node, script);
    request.env = vec!["COLOUR=blue".to_owned()];
    request.dirs_in = vec!["/out".to_owned()];
    request.outputs =
        ["/out/file", "/out/dir", "/out/link", "/none", "/out/file/x"].map(str::to_owned).into();
    request.output_bytes_max = 1 << 20;
    let outcome = node.docker.run(&request).await.unwrap();
    assert_eq!(outcome.end, ContainerEnd::Exited(0), "{}", outcome.log);
    assert_eq!(outcome.outputs["/out/file"], Output::File(b"blue\n".to_vec()));
    assert!(matches!(&outcome.outputs["/out/dir"], Output::Directory(tar) if tar.starts_with(b"dir")));
    assert_eq!(outcome.outputs["/out/link"], Output::None("it is neither a file nor a directory".to_owned()));
    assert_eq!(outcome.outputs["/none"], Output::None("it is not there".to_owned()));
    let no_dir = match node.docker.facts().is_podman {
        true => "it is not there",
        false => "a part of its path is no directory",
    };
    let no_dir = Output::None(no_dir.to_owned());
    assert_eq!(outcome.outputs["/out/file/x"], no_dir, "the task's mistake, not the engine's");
    request.output_bytes_max = 3;
    request.labels.object = Uuid::now_v7();
    let outcome = node.docker.run(&request).await.unwrap();
    assert!(matches!(&outcome.outputs["/out/file"], Output::None(why) if why.contains("output_bytes_max")));
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_named_with_the_remedy() {
    let node = Node::connect().await;
    let error = node.docker.pull_image("localhost:1/nothing").await.unwrap_err().to_string();
    assert!(
        error.contains("image localhost:1/nothing is not on this node") && error.contains("docker load"),
        "{error}"
    );
}

#[tokio::test]
async fn what_only_the_task_has_wrong_is_refused_not_failed() {
    let node = Node::connect().await;
    let refusal = async |change: &dyn Fn(&mut RunRequest)| {
        let mut request = run_request(&node, "true");
        change(&mut request);
        let error = node.docker.run(&request).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error}");
        assert!(!node.has_containers(request.labels.object).await);
        error.to_string()
    };
    let below_a_file =
        |path: &str| FileIn { path: path.to_owned(), mode: 0o644, content: Content::Bytes(Vec::new()) };
    for path in ["/etc/passwd/x", "/etc/passwd/x/y"] {
        let said = refusal(&|request| request.files_in = vec![below_a_file(path)]).await;
        assert!(said.contains("/etc/passwd is no directory"), "{said}");
    }
    refusal(&|request| request.image = "Debian:12".to_owned()).await;
    // What the node has wrong is its own fault.
    let mut request = run_request(&node, "true");
    request.limits.cpuset_cpus = "4000".to_owned();
    let error = node.docker.run(&request).await.unwrap_err();
    assert!(matches!(error, EngineError::Failed { .. }), "{error}");
}

/// What somebody else's image may say beside its files.
#[tokio::test]
async fn an_image_brings_no_volumes_and_no_health_check() {
    let node = Node::connect().await;
    let name = format!("bottega-test-declares-{}", Uuid::now_v7().simple());
    let run = async |change: &str, script: &str| {
        let body =
            ContainerCreateBody { image: Some(BASE_IMAGE.to_owned()), ..ContainerCreateBody::default() };
        let made = node.raw.create_container(None::<CreateContainerOptions>, body).await.unwrap();
        let options = CommitContainerOptionsBuilder::new().container(&made.id).repo(&name).changes(change);
        node.raw.commit_container(options.build(), ContainerConfig::default()).await.unwrap();
        node.raw.remove_container(&made.id, None::<RemoveContainerOptions>).await.unwrap();
        let mut request = run_request(&node, script);
        request.image = name.clone();
        let outcome = node.docker.run(&request).await;
        assert!(!node.has_containers(request.labels.object).await);
        node.raw.remove_image(&name, None::<RemoveImageOptions>, None).await.unwrap();
        outcome
    };
    let error = run("VOLUME /kept", "true").await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("volumes (/kept)"), "{error}");
    if !node.docker.facts().is_podman {
        let check = "HEALTHCHECK --interval=1s CMD touch /tmp/checked";
        assert_eq!(run(check, "sleep 3; ls /tmp").await.unwrap().log, "");
    }
}

#[tokio::test]
async fn limits_hold() {
    let node = Node::connect().await;
    let script = "ulimit -n; ulimit -c; nproc; echo $(df -k --output=size /dev/shm | tail -1); grep -E 'CapEff|NoNewPrivs' /proc/self/status; \
                  cat /proc/net/route | wc -l; sleep 1";
    let mut request = run_request(&node, script);
    request.limits.cpuset_cpus = "1".to_owned();
    request.limits.nofile_max = 333;
    let outcome = node.docker.run(&request).await.unwrap();
    let (files, rest) = outcome.log.split_once('\n').unwrap();
    assert_eq!(rest, "0\n1\n65536\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n1\n");
    assert!(outcome.peak_memory_bytes.unwrap() > 0);
    match files {
        "333" => assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings),
        // Podman without root takes no notice of it before 5.5; that is said.
        held => {
            assert!(node.docker.facts().is_podman && node.docker.facts().rootless_uid.is_some());
            let said = format!("limit of open files does not hold: asked for 333, the kernel holds {held}");
            assert_eq!(outcome.warnings, [said]);
        }
    }
}

#[tokio::test]
async fn a_deadline_ends_what_ignores_signals() {
    let node = Node::connect().await;
    let mut request =
        run_request(&node, "trap '' TERM INT HUP; (setsid sleep 600 &) ; echo begun; sleep 600; sleep 600");
    request.timeout = Duration::from_secs(2);
    let outcome = node.docker.run(&request).await.unwrap();
    assert_eq!((outcome.end, outcome.log.as_str()), (ContainerEnd::TimedOut, "begun\n"));
    assert!(!node.has_containers(request.labels.object).await);
}

/// A group above the container's that is full stands for a node that is.
#[tokio::test]
async fn a_node_without_memory_fails_no_task() {
    let node = Node::connect().await;
    let group = format!("bottega-test-{}", std::process::id());
    let dir = Path::new("/sys/fs/cgroup/memory").join(&group);
    if node.docker.facts().is_podman || std::fs::create_dir(&dir).is_err() {
        return; // Groups of version 2 are systemd's.
    }
    std::fs::write(dir.join("memory.limit_in_bytes"), (100 * MIB).to_string()).unwrap();
    let mut bomb =
        run_request(&node, "python3 -c 'x = bytearray(300 << 20)'; status=$?; sleep 2; exit $status");
    bomb.limits.memory_bytes = 512 * MIB;
    bomb.limits.cgroup_parent = Some(format!("/{group}"));
    let outcome = node.docker.run(&bomb).await;
    assert!(matches!(outcome, Err(EngineError::ShortOfMemory)), "{outcome:?}");
    assert!(node.docker.settle(patient(Duration::from_secs(20)), |_| true).await);
    // The engine made one of each controller.
    for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(controller.path().join(&group));
    }
    assert!(!dir.exists());
}

#[tokio::test]
async fn memory_processes_and_output_are_bounded() {
    let node = Node::connect().await;
    let mut bomb = run_request(
        &node,
        "python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 20))'; echo survived; sleep 1",
    );
    bomb.limits.memory_bytes = 64 * MIB;
    bomb.limits.shm_bytes = MIB;
    let mut forks = run_request(
        &node,
        "for i in $(seq 300); do sleep 60 & done 2>&1 | grep -m1 -o 'Resource temporarily'; echo over",
    );
    forks.limits.pids_max = 64;
    let mut flood = run_request(&node, "echo first; head -c 20000000 /dev/zero; echo; echo last");
    flood.log_bytes_max = 1 << 10;
    // Files fill what memory there is, and harm nobody.
    let mut files = run_request(&node, "head -c 200000000 /dev/zero >/tmp/x; exit 137");
    files.limits.memory_bytes = 64 * MIB;
    let (bomb, forks, flood, files) = tokio::join!(
        node.docker.run(&bomb),
        node.docker.run(&forks),
        node.docker.run(&flood),
        node.docker.run(&files)
    );
    assert_eq!(bomb.unwrap().end, ContainerEnd::OutOfMemory);
    assert_eq!(files.unwrap().end, ContainerEnd::Exited(137));
    assert!(forks.unwrap().log.contains("Resource temporarily"));
    let log = flood.unwrap().log;
    assert!(log.starts_with("first\n\0") && log.ends_with("\0\nlast\n") && log.len() < 1100, "{}", log.len());
}

#[tokio::test]
async fn a_full_writable_layer_ends_the_run() {
    let node = Node::connect().await;
    let mut request = run_request(
        &node,
        "head -c 300000000 /dev/zero > /tmp/fill; sync /tmp/fill; sleep 50; echo survived",
    );
    request.limits.disk_bytes = 64 * MIB;
    let outcome = node.docker.run(&request).await.unwrap();
    assert_eq!(outcome.end, ContainerEnd::DiskFull);
}

#[tokio::test]
async fn what_is_copied_out_cannot_trick_the_host() {
    let node = Node::connect().await;
    let script = "cd /tmp; ln -s /etc/passwd link; mkfifo pipe; truncate -s 100G sparse; mkdir dir; ln -s /proc/1/environ env; \
                  head -c 2000000 /dev/zero > large; ln /tmp/large hard";
    let mut request = run_request(&node, script);
    let names = ["link", "pipe", "sparse", "dir", "env", "large", "hard", "../etc/passwd-not"];
    request.files_out = names.map(|name| (format!("/tmp/{name}"), 1000)).into();
    let outcome = node.docker.run(&request).await.unwrap();
    assert_eq!(outcome.end, ContainerEnd::Exited(0));
    assert!(outcome.files_out.is_empty(), "{:?}", outcome.files_out.keys());
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing() {
    let node = Node::connect().await;
    let request = run_request(&node, "sleep 600");
    {
        let mut run = std::pin::pin!(node.docker.run(&request));
        tokio::select! {
            outcome = &mut run => panic!("{outcome:?}"),
            () = node.until_running(request.labels.object) => {}
        }
        assert!(node.ledger.get(request.labels.object).is_some());
    }
    assert!(node.docker.settle(patient(Duration::from_secs(20)), |_| true).await);
    assert!(!node.has_containers(request.labels.object).await);
    assert_eq!(node.ledger.get(request.labels.object), None);
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let node = Node::connect().await;
    let mut request = run_request(&node, "true");
    request.image = "openswe-python-0.0".to_owned();
    let error = node.docker.run(&request).await.unwrap_err();
    assert!(matches!(&error, EngineError::NoImage(name) if name == "openswe-python-0.0"), "{error}");
    assert_eq!(node.ledger.get(request.labels.object), None);
    let mut request = run_request(&node, "true");
    request.command = vec!["no-such-program".to_owned()];
    let outcome = node.docker.run(&request).await.unwrap();
    assert_eq!(outcome.end, ContainerEnd::Exited(127), "{}", outcome.log);
    request.labels.object = Uuid::now_v7();
    request.command = vec!["/etc/passwd".to_owned()];
    let outcome = node.docker.run(&request).await.unwrap();
    assert_eq!(outcome.end, ContainerEnd::Exited(126), "{}", outcome.log);
    assert!(!node.has_containers(request.labels.object).await);
}

#[tokio::test]
async fn what_runs_is_known_by_its_owner_and_cpus() {
    let node = Node::connect().await;
    let mut request = run_request(&node, "sleep 600");
    request.limits.cpuset_cpus = "1".to_owned();
    let of_ours = async || {
        let running = node.docker.running().await.unwrap();
        running.into_iter().find(|container| container.object == request.labels.object)
    };
    {
        let mut run = std::pin::pin!(node.docker.run(&request));
        tokio::select! {
            outcome = &mut run => panic!("{outcome:?}"),
            () = node.until_running(request.labels.object) => {}
        }
        let found = of_ours().await.unwrap();
        assert_eq!((found.owner, found.cpuset_cpus.as_str()), (request.labels.owner.clone(), "1"));
    }
    node.docker.clear(&[1]).await.unwrap();
    assert_eq!(of_ours().await, None, "what was cut off is gone before its cores are given out");
}

#[tokio::test]
async fn the_network_of_builds_is_found_or_refused_with_reasons() {
    let node = Node::connect().await;
    let labels = node.labels();
    match node.docker.probe_build_network(BASE_IMAGE, &labels, &node.limits()).await {
        Ok(network) => assert_ne!(network, Network::None),
        Err(error) => {
            let error = error.to_string();
            // Where there is no index a slow machine does not even fail in time.
            assert!(error.contains("Bridge: ") && error.contains("Host: "), "{error}");
        }
    }
    assert_eq!(node.ledger.get(labels.object), None);
}

#[tokio::test]
async fn no_engine_is_an_error_that_says_what_to_do() {
    let error = Node::connect_to("unix:///nonexistent/engine.sock").await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable(_)));
    assert!(
        error.to_string().contains("/nonexistent/engine.sock") && error.to_string().contains("DOCKER_HOST")
    );
}

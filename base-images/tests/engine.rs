//! The images of the engine on this host: their face, their reuse, and what an interrupted build leaves.
//!
//! A missing engine is a failure, as nothing of Bottega works without one.

use std::collections::HashMap;

use base_images::{AvailableImage, HostSettings, ImageBuilder, Installer, Progress, available};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, TagImageOptionsBuilder,
};
use futures_util::StreamExt as _;

const CHECK: &str = include_str!("../templates/check.sh");
const SCRATCH: &str = "bottega-base-image-scratch";
const ASKED: &str = "the engine does as asked";

/// What needs the package index, as a build of an environment does.
const INSTALL_BY_UV: &str = "uv pip install 'iniconfig<2' && python -m pip install 'pluggy<1' && python -c 'import iniconfig, pluggy'";
const INSTALL_BY_PIP: &str = "echo 'pluggy<1' >/tmp/in && uv pip compile --python /usr/bin/python3 --python-version 2.7 \
     --exclude-newer 2019-06-01 /tmp/in -o /tmp/lock && python -m pip install --no-deps -r /tmp/lock && python -c 'import pluggy'";

async fn engine() -> Docker {
    let remedy = "no container engine answers; start one with systemd/set-up.sh";
    let docker = Docker::connect_with_defaults().expect(remedy).negotiate_version().await.expect(remedy);
    docker.ping().await.expect(remedy);
    docker
}

async fn images(docker: &Docker) -> Vec<AvailableImage> {
    let images = available(docker).await.expect("the engine lists its images");
    assert!(!images.is_empty(), "no base image is there; make one with: bottega images build 3.11");
    images
}

fn builder(docker: Docker, directory: &std::path::Path) -> ImageBuilder {
    ImageBuilder::new(docker, HostSettings::read(&std::env::vars().collect()), directory)
}

/// Exit status and output of a command in a new container.
async fn run(docker: &Docker, image: &str, network: &str, command: &[&str]) -> (i64, String) {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        host_config: Some(HostConfig { network_mode: Some(network.to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().build();
    let id = docker.create_container(Some(options), body).await.expect(ASKED).id;
    docker.start_container(&id, None).await.expect(ASKED);
    let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
    let output: Vec<String> = docker
        .logs(&id, Some(options))
        .map(|chunk| chunk.map_or_else(|e| e.to_string(), |c| c.to_string()))
        .collect()
        .await;
    let state = docker.inspect_container(&id, None).await.expect(ASKED).state.expect(ASKED);
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    docker.remove_container(&id, Some(options)).await.expect(ASKED);
    (state.exit_code.unwrap_or(-1), output.concat())
}

#[tokio::test]
async fn every_image_has_the_same_face() {
    let docker = engine().await;
    for image in images(&docker).await {
        let (python, name) = (image.python.to_string(), image.python.image());
        let (exit, output) = run(&docker, &name, "none", &["bash", "-c", CHECK, "check.sh", &python]).await;
        assert_eq!(
            exit, 0,
            "{name}: {output}\nif it was made by an older recipe: bottega images build {python}"
        );
    }
}

#[tokio::test]
async fn every_image_installs_from_the_package_index() {
    let docker = engine().await;
    for image in images(&docker).await {
        let install = match image.python.installer() {
            Installer::Uv | Installer::UvWithoutEditable => INSTALL_BY_UV,
            Installer::PipFromLock => INSTALL_BY_PIP,
        };
        let name = image.python.image();
        let (exit, output) = run(&docker, &name, "host", &["bash", "-lc", install]).await;
        assert_eq!(exit, 0, "{name}: {output}");
    }
}

#[tokio::test]
async fn a_system_package_installs() {
    let docker = engine().await;
    let image = images(&docker).await.pop().expect("checked by images()").python.image();
    let install = "apt-get update -qq && apt-get install -qqy --no-install-recommends file && file --version";
    let (exit, output) = run(&docker, &image, "host", &["bash", "-lc", install]).await;
    assert_eq!(exit, 0, "{image}: {output}");
}

#[tokio::test]
async fn a_second_build_reuses_and_an_interrupted_one_leaves_nothing() {
    let docker = engine().await;
    let directory = tempfile::tempdir().unwrap();
    let builder = builder(docker.clone(), directory.path());
    let python = images(&docker).await.last().expect("checked by images()").python;

    let first = builder.build(python, &mut |_| {}).await.unwrap();
    let second = builder
        .build(python, &mut |progress| panic!("nothing is to be done, yet: {progress}"))
        .await
        .unwrap();
    assert!(second.reused);
    assert_eq!((first.image, first.size_bytes), (second.image, second.size_bytes));

    let builder = builder.rebuild(true);
    let of_python = |images: Vec<AvailableImage>| images.into_iter().find(|image| image.python == python);
    let before = of_python(available(&docker).await.unwrap());
    let (said, mut saying) = tokio::sync::mpsc::unbounded_channel();
    let mut tell = |progress: Progress| drop(said.send(progress));
    tokio::select! {
        built = builder.build(python, &mut tell) => panic!("it was to be interrupted: {built:?}"),
        () = async { while !said_to_install(&saying.recv().await) {} } => {}
    }
    builder.clean_up().await.unwrap();
    assert_eq!(of_python(available(&docker).await.unwrap()), before);
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["base-images.lock"]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*directory.path().to_string_lossy()), "{mounts}");
    assert_eq!(scratch_names(&docker).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_image_that_was_replaced_stays_while_others_build() {
    let docker = engine().await;
    let directory = tempfile::tempdir().unwrap();
    let image = images(&docker).await.pop().expect("checked by images()").image_id;
    // A process of this machine before it was started, if ever.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let tag = format!("{host}_never_{}_gone_0", std::process::id());
    let options = TagImageOptionsBuilder::default().repo(SCRATCH).tag(&tag).build();
    docker.tag_image(&image, Some(options)).await.expect(ASKED);
    for (moment, expected) in [(false, true), (true, false)] {
        let gate = move || moment.then(|| Box::new(()) as Box<dyn Send>);
        builder(docker.clone(), directory.path()).removing_in(gate).clean_up().await.unwrap();
        let is_there = docker.inspect_image(&format!("{SCRATCH}:{tag}")).await.is_ok();
        assert_eq!(is_there, expected, "{moment}");
    }
    assert!(docker.inspect_image(&image).await.is_ok(), "it has another name");
}

/// mmdebstrap's own line when the root is half there, with the host's directories mounted in it.
fn said_to_install(progress: &Option<Progress>) -> bool {
    matches!(progress, Some(Progress::Line(line)) if line.contains("installing essential packages"))
}

/// Containers and images of unfinished builds of this process.
async fn scratch_names(docker: &Docker) -> Vec<String> {
    let own = format!("_{}_", std::process::id());
    let filters = HashMap::from([("name".to_owned(), vec![SCRATCH.to_owned()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = docker.list_containers(Some(options)).await.expect(ASKED);
    let filters = HashMap::from([("reference".to_owned(), vec![SCRATCH.to_owned()])]);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    let images = docker.list_images(Some(options)).await.expect(ASKED);
    let names = containers.into_iter().flat_map(|container| container.names.unwrap_or_default());
    names
        .chain(images.into_iter().flat_map(|image| image.repo_tags))
        .filter(|name| name.contains(&own))
        .collect()
}

//! The same on Podman, which speaks Docker's API in its own way: names in full, ids without their kind, other states.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    BuildImageOptions, InspectNetworkOptions, ListImagesOptionsBuilder, RemoveVolumeOptions,
    StopContainerOptionsBuilder,
};
use futures_util::StreamExt;
use queue_format::{ObjectKind, image_name};

use crate::node::{Node, Shape, archive, base_image};

/// An image with one layer more than `base`; its id.
async fn build(node: &Node, base: &str, labels: &HashMap<String, String>, tag: &str) -> String {
    let pairs: String = labels.iter().map(|(key, value)| format!(" {key}=\"{value}\"")).collect();
    let label = if pairs.is_empty() { String::new() } else { format!("LABEL{pairs}\n") };
    let dockerfile = format!("FROM {base}\n{label}COPY file /file\n");
    let context = archive(&[("Dockerfile", dockerfile.as_bytes()), ("file", tag.as_bytes())]);
    let options = BuildImageOptions {
        t: Some(tag.to_owned()),
        dockerfile: "Dockerfile".to_owned(),
        rm: true,
        ..BuildImageOptions::default()
    };
    let mut output = node.docker.build_image(options, None, Some(bollard::body_full(context.into())));
    while let Some(line) = output.next().await {
        let line = line.expect("a build");
        assert!(line.error_detail.is_none(), "{line:?}");
    }
    node.docker.inspect_image(tag).await.expect("an image").id.expect("its id")
}

async fn images(node: &Node) -> BTreeSet<String> {
    let options = ListImagesOptionsBuilder::new().all(true).build();
    let listed = node.docker.list_images(Some(options)).await.expect("images");
    listed.into_iter().map(|image| image.id.trim_start_matches("sha256:").to_owned()).collect()
}

#[tokio::test]
#[ignore = "needs Podman at DOCKER_HOST; make test-podman"]
async fn leftovers_go_and_nothing_else_on_podman() {
    let node = Node::new().await;
    let (owner, _alive) = node.living_owner();
    let base = base_image(&node.docker).await;

    let accepted = format!("accepted-{}", node.hostname);
    node.accept(&owner, &accepted, 1);
    let labels = |task: &str| node.labels(&owner, task, 1);
    let kept_image = labels(&accepted);
    node.record(&kept_image, ObjectKind::Build { image: image_name(&kept_image.task) });
    let mut kept = BTreeSet::from([
        build(&node, &base, &kept_image.to_map(), &image_name(&kept_image.task)).await,
        build(&node, &base, &HashMap::new(), &format!("mine-{}", node.hostname)).await,
        build(&node, &base, &labels("forged").to_map(), &format!("forged-{}", node.hostname)).await,
    ]);
    let ended = labels(&format!("ended-{}", node.hostname));
    node.record(&ended, ObjectKind::Build { image: image_name(&ended.task) });
    let gone = build(&node, &base, &ended.to_map(), &image_name(&ended.task)).await;
    node.ledger().end(ended.object, jiff::Timestamp::now()).expect("noted");
    kept.insert(base.clone());
    // Somebody's without a name, and a leftover of ours on it: Podman removes it along with that.
    let nameless = format!("nameless-{}", node.hostname);
    let theirs = build(&node, &base, &HashMap::new(), &nameless).await;
    let ours = labels(&format!("on-nameless-{}", node.hostname));
    node.record(&ours, ObjectKind::Build { image: image_name(&ours.task) });
    build(&node, &theirs, &ours.to_map(), &image_name(&ours.task)).await;
    node.ledger().end(ours.object, jiff::Timestamp::now()).expect("noted");
    build(&node, &base, &HashMap::from([("x".to_owned(), "y".to_owned())]), &nameless).await;
    kept.insert(theirs);

    let foreign = [
        node.raw_container(&base, HashMap::new(), Shape::default()).await,
        node.raw_container(&base, labels("forged").to_map(), Shape::default()).await,
    ];
    node.docker.start_container(&foreign[0], None).await.expect("started");
    let stopped = node.container(&base, &labels("ended")).await;
    let running = node.container(&base, &labels("ended")).await;
    node.container(&base, &labels("ended")).await;
    for id in [&stopped, &running] {
        node.docker.start_container(id, None).await.expect("started");
    }
    let now = StopContainerOptionsBuilder::new().t(0).build();
    node.docker.stop_container(&stopped, Some(now)).await.expect("stopped");
    let name = format!("canary-{}", node.hostname);
    let volume = VolumeCreateRequest { name: Some(name.clone()), ..VolumeCreateRequest::default() };
    node.docker.create_volume(volume).await.expect("a volume");
    let network = NetworkCreateRequest { name: name.clone(), ..NetworkCreateRequest::default() };
    let has_network = node.docker.create_network(network).await.is_ok();

    let mut janitor = node.janitor();
    for _ in 0..2 {
        let report = janitor.once().await.expect("a pass");
        assert!(janitor.engine_answers(), "{report:?}");
        assert_eq!(report.failed, 0, "{:#?}", node.audit());
    }
    let left = images(&node).await;
    let plain = |id: &String| id.trim_start_matches("sha256:").to_owned();
    assert!(!left.contains(&plain(&gone)), "{:#?}", node.audit());
    assert!(kept.iter().all(|id| left.contains(&plain(id))), "{:#?}", node.audit());
    let containers = node.left_of_containers().await;
    assert_eq!(containers, foreign.into_iter().collect(), "{:#?}", node.audit());
    node.docker.inspect_volume(&name).await.expect("a volume stays");
    node.docker.remove_volume(&name, None::<RemoveVolumeOptions>).await.expect("removed");
    if has_network {
        node.docker.inspect_network(&name, None::<InspectNetworkOptions>).await.expect("a network stays");
        node.docker.remove_network(&name).await.expect("removed");
    }
}

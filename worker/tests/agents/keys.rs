//! A key that a worker uses is in nothing that it starts or builds meanwhile.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
};
use futures_util::StreamExt as _;
use queue_format::{LABEL_SPOOL, Spool, State};

use super::calc::{DOCKERFILE, TASK, dockerfile, success};
use super::house::House;
use super::model::{Model, Say};

/// Far longer than it takes.
const WATCH_MAX: Duration = Duration::from_mins(8);
const KEY: &str = "sk-of-the-test";
/// What the image has of the repository.
const CONTROL: &str = "self.assertTrue(callable(calc.add))";

fn has_ended(spool: &Spool) -> bool {
    let found = spool.find(&TASK.parse().expect("an id")).expect("listed");
    found.iter().any(|task| matches!(task.state, State::Done(_) | State::Failed(_)))
}

/// What the engine tells of every container of a spool, until its task has ended.
async fn watch(docker: &Docker, spool: &Spool) -> Vec<String> {
    let filters = [("label".to_owned(), vec![format!("{LABEL_SPOOL}={}", spool.id())])].into();
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let mut told = Vec::new();
    while !has_ended(spool) {
        for listed in docker.list_containers(Some(options.clone())).await.expect("listed") {
            let id = listed.id.unwrap_or_default();
            if let Ok(found) = docker.inspect_container(&id, None::<InspectContainerOptions>).await {
                told.push(format!("{found:?}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    told
}

/// What the engine tells of every image of a spool; their layers go into a file.
async fn look_into_images(docker: &Docker, spool: &Spool, file: &Path) -> Vec<String> {
    let filters = [("label".to_owned(), vec![format!("{LABEL_SPOOL}={}", spool.id())])].into();
    let options = ListImagesOptionsBuilder::new().all(true).filters(&filters).build();
    let images = docker.list_images(Some(options)).await.expect("listed");
    let mut told = Vec::new();
    for image in &images {
        let found = docker.inspect_image(&image.id).await.expect("it is there");
        let history = docker.image_history(&image.id).await.expect("it is there");
        told.push(format!("{found:?} {history:?}"));
    }
    let names: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
    let mut pieces = std::pin::pin!(docker.export_images(&names));
    let mut file = File::create(file).expect("made");
    while let Some(piece) = pieces.next().await {
        file.write_all(&piece.expect("exported")).expect("written");
    }
    told
}

fn is_in(text: &str, file: &Path) -> bool {
    let found = Command::new("grep").args(["-arqF", text]).arg(file).status().expect("grep runs");
    found.code().expect("it ends") == 0
}

#[test]
fn a_key_that_is_used_is_in_no_container_and_no_image() {
    let mut answers = success();
    // It repeats the key, in escapes that are gone once the JSON in its answer is read.
    let escaped: String = KEY.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let Say::Text(said) = dockerfile(&format!("{DOCKERFILE}\nENV REPEATED={KEY}")) else { panic!("a text") };
    answers[2] = ("dockerfile", Say::Text(said.replace(KEY, &escaped)));
    let (house, model) = (House::new(), Model::scripted(&answers).expect("a port"));
    let spool = house.spool();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let docker = Docker::connect_with_defaults().expect("an engine");
    let worker = house.worker(&model, "agents", "");
    let watched = async { tokio::time::timeout(WATCH_MAX, watch(&docker, &spool)).await };
    let containers = runtime.block_on(watched).expect("it ends");
    let (state, manifest, _) = house.outcome(&spool);
    drop(worker);
    assert!(matches!(state, State::Done(_)), "{manifest:#}\n{}", house.said());
    assert!(model.asked().iter().all(|asked| asked.authorization == Some(format!("Bearer {KEY}"))));
    let layers = house.path("images.tar");
    let images = runtime.block_on(look_into_images(&docker, &spool, &layers));
    assert!(!containers.is_empty() && !images.is_empty(), "this shows nothing");
    for told in containers.iter().chain(&images) {
        assert!(!told.contains(KEY), "{told}");
    }
    assert!(images.iter().any(|told| told.contains("REPEATED=[key]")), "{images:?}");
    assert!(is_in(CONTROL, &layers), "what is in a layer is found");
    for place in [layers, house.path("spool"), house.path("state"), house.path("worker.log")] {
        assert!(!is_in(KEY, &place), "{}", place.display());
    }
}

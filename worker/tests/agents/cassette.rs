//! An attempt that was recorded once, by scripted answers on a real engine, is made again without either: its journal is read
//! as every later version must read it, and leads to the same bytes. Where a change of prompts or rules is meant to lead
//! elsewhere, it is recorded anew: `cargo test -p worker --test agents -- --ignored records_the_cassette`.

use std::fs;
use std::path::{Path, PathBuf};

use queue_format::Manifest;
use worker::attempt::replay::replay;
use worker::config::WorkerConfig;
use worker::repository::RepositoryCache;

use super::attempts::Run;
use super::house::House;
use super::resume::answers;

pub(crate) fn cassette() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents/cassette")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for file in fs::read_dir(from).expect("listed").flatten() {
        fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

#[tokio::test]
async fn what_was_recorded_comes_out_the_same() {
    let (house, dir) = (House::new(), tempfile::tempdir().expect("a directory"));
    let (spool, spec) = (house.spool(), house.spec());
    let text = fs::read_to_string(cassette().join("manifest.json")).expect("a manifest");
    let manifest: Manifest = serde_json::from_str(&text).expect("of this version");
    copy(&cassette(), &spool.layout().attempt(&spec.id, manifest.token));
    let repositories =
        RepositoryCache::new(&dir.path().join("repositories"), WorkerConfig::default().git_timeouts());
    let context = dir.path().join("context");
    fs::create_dir(&context).expect("made");
    let replayed =
        replay(&spool, &spec, manifest.token, repositories, &context).await.expect("it leads to an end");
    assert!(replayed.is_same(), "{replayed:#?}");
    assert_eq!((replayed.answers, replayed.files.len()), (answers().len(), manifest.files.len() - 2));
}

#[test]
#[ignore = "records anew what the other test makes again; needs the engine"]
fn records_the_cassette() {
    let run = Run::with(&answers(), "");
    run.accepted_after(3);
    let _ = fs::remove_dir_all(cassette());
    copy(&run.dir, &cassette());
    // The same conversation is what people are shown.
    let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join("../master/src/show/fixtures/conversation.json");
    fs::copy(run.dir.join("conversation.json"), shown).expect("copied");
}

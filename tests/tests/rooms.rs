//! The boundaries of the rooms: who may use whom, and who alone may rename.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROOMS: [&str; 7] = ["queue-format", "systemd", "base-images", "master", "worker", "janitor", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn manifest(room: &str) -> toml::Table {
    let path = root().join(room).join("Cargo.toml");
    fs::read_to_string(&path).expect("every room is a crate").parse().expect("a manifest")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn arrows_point_only_from_daemons_to_libraries() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("queue-format", &[][..]),
        ("systemd", &[]),
        ("base-images", &[]),
        ("master", &["queue-format", "systemd", "base-images"]),
        ("worker", &["queue-format", "systemd", "base-images"]),
        ("janitor", &["queue-format", "systemd", "base-images"]),
    ]);
    for (room, may_use) in allowed {
        let manifest = manifest(room);
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let used =
                manifest.get(table).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
            for other in used.filter(|name| ROOMS.contains(&name.as_str())) {
                assert!(may_use.contains(&other.as_str()), "{room} must not use {other} ({table})");
            }
        }
    }
}

#[test]
fn the_spools_library_stays_synchronous_and_alone() {
    let manifest = manifest("queue-format");
    let used = manifest["dependencies"].as_table().expect("a table");
    for banned in ["tokio", "bollard", "reqwest", "tracing", "anyhow", "clap"] {
        assert!(!used.contains_key(banned), "queue-format must not use {banned}");
    }
}

#[test]
fn only_the_spools_file_system_renames() {
    let mut all = Vec::new();
    for room in ["queue-format", "systemd", "base-images", "master", "worker", "janitor"] {
        sources(&root().join(room).join("src"), &mut all);
    }
    assert!(all.len() > 30, "the sources were found");
    let renaming: Vec<_> = all
        .iter()
        .filter(|path| fs::read_to_string(path).expect("text").contains("fs::rename"))
        .map(|path| path.strip_prefix(root()).expect("inside").display().to_string())
        .collect();
    assert_eq!(renaming, ["queue-format/src/filesystem.rs"]);
}

#[test]
fn every_room_says_what_lives_there() {
    for room in ROOMS {
        let readme = fs::read_to_string(root().join(room).join("README.md")).unwrap_or_default();
        let lines = readme.lines().count();
        assert!((5..=60).contains(&lines), "{room}/README.md has {lines} lines, expected at most a screen");
    }
}

#[test]
fn no_other_top_level_folder_holds_code() {
    let known = ["docs", "target"];
    for entry in fs::read_dir(root()).expect("the workspace").flatten().filter(|e| e.path().is_dir()) {
        let name = entry.file_name().into_string().expect("UTF-8");
        let legal = name.starts_with('.') || ROOMS.contains(&name.as_str()) || known.contains(&name.as_str());
        assert!(legal, "{name}/ is none of the rooms");
    }
}

#[test]
fn files_stay_short_enough_to_read() {
    let mut all = Vec::new();
    for room in ROOMS {
        sources(&root().join(room), &mut all);
    }
    for path in all {
        let lines = fs::read_to_string(&path).expect("text").lines().count();
        assert!(lines <= 600, "{} has {lines} lines; give it a second room", path.display());
    }
}

#[test]
fn every_promise_is_guarded_by_a_test_that_there_is() {
    let specification =
        fs::read_to_string(root().join("queue-format/SPECIFICATION.md")).expect("the specification");
    let mut files = Vec::new();
    ROOMS.iter().for_each(|room| sources(&root().join(room), &mut files));
    let code: Vec<String> = files.iter().map(|file| fs::read_to_string(file).expect("text")).collect();
    let mut checked = 0;
    for row in specification.lines().filter(|line| line.starts_with("| ")) {
        let guards = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        for name in guards.split('`').skip(1).step_by(2).filter(|name| !name.contains('/')) {
            let is_there = code.iter().any(|text| text.contains(&format!("fn {name}(")));
            assert!(is_there, "SPECIFICATION.md names {name}, which is no test");
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} tests are named");
}

//! What `make deb` and `make rpm` pack, against what is to be installed: nothing is left out of either, and everything
//! has the mode that it needs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::harness::{printed, program};

/// Where `make` lays out what packages hold, as the lists of assets name it.
const STAGED: &str = "../target/package/root/";

/// A list's line: what it takes, where it goes, and the mode that it gets.
type Asset = (String, String, String);

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The files below a directory, with their modes.
fn files(dir: &Path, below: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = format!("{below}{}", entry.file_name().display());
        let metadata = entry.metadata().expect("its mode");
        if metadata.is_dir() {
            files(&entry.path(), &format!("{path}/"), found);
        } else {
            found.insert(path, format!("{:o}", metadata.permissions().mode() & 0o7777));
        }
    }
}

/// Where a list takes a file to; of several lines the last.
fn installed(file: &str, mode: &str, assets: &[Asset]) -> Option<String> {
    let taken = assets.iter().rev().find_map(|(source, target, given)| {
        let source = source.strip_prefix(STAGED).expect("a staged file");
        let (dir, is_deep) = match source.strip_suffix("**/*") {
            Some(dir) => (dir, true),
            None => (source.strip_suffix('*').unwrap_or(source), false),
        };
        let rest = file.strip_prefix(dir)?;
        let is_taken = if source.ends_with('*') { is_deep || !rest.contains('/') } else { rest.is_empty() };
        let target = target.trim_start_matches('/');
        let target = if target.ends_with('/') { format!("{target}{rest}") } else { target.to_owned() };
        is_taken.then(|| (target, given == mode))
    });
    taken.filter(|(_, has_mode)| *has_mode).map(|(target, _)| target)
}

#[test]
fn packages_hold_what_is_staged() {
    let tree = tempfile::tempdir().expect("a directory");
    let root = tree.path().join("root");
    let programs = program("bottega");
    let staged = Command::new(workspace().join("systemd/package/stage.sh"))
        .arg(&root)
        .arg(programs.parent().expect("a directory"))
        .output()
        .expect("staged");
    assert!(staged.status.success(), "{}", printed(&staged));
    let mut found = BTreeMap::new();
    files(&root, "", &mut found);
    for needed in [
        "usr/bin/bottega-worker",
        "usr/lib/systemd/system/bottega-worker@.service",
        "usr/lib/systemd/system/bottega-.slice.d/50-shutdown.conf",
        "usr/lib/systemd/system-generators/bottega-generator",
        "usr/lib/sysusers.d/bottega.conf",
        "usr/share/man/man1/bottega.1.gz",
        "usr/share/bash-completion/completions/bottega",
        "usr/share/doc/bottega/install.md",
        "etc/bottega/bottega.toml",
    ] {
        assert!(found.contains_key(needed), "{needed} is not staged: {found:#?}");
    }

    let manifest = fs::read_to_string(workspace().join("master/Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let metadata = &manifest["package"]["metadata"];
    let text = |value: &toml::Value| value.as_str().expect("a string").to_owned();
    let deb = metadata["deb"]["assets"].as_array().expect("a list").iter();
    let deb: Vec<Asset> = deb.map(|row| (text(&row[0]), text(&row[1]), text(&row[2]))).collect();
    let rpm = metadata["generate-rpm"]["assets"].as_array().expect("a list").iter();
    let rpm: Vec<Asset> =
        rpm.map(|row| (text(&row["source"]), text(&row["dest"]), text(&row["mode"]))).collect();
    for (name, assets) in [("deb", deb), ("rpm", rpm)] {
        for (file, mode) in &found {
            assert_eq!(
                installed(file, mode, &assets).as_deref(),
                Some(file.as_str()),
                "in the {name}, as {mode}"
            );
        }
    }
    let scripts = |key: &str| text(&metadata["generate-rpm"][key]);
    for key in ["post_install_script", "pre_uninstall_script", "post_uninstall_script"] {
        assert!(workspace().join("master").join(scripts(key)).is_file(), "{key}");
    }
}

#[test]
fn every_command_of_a_unit_is_one_that_its_program_takes() {
    let mut tried = 0;
    for unit in fs::read_dir(workspace().join("systemd/units")).expect("the units").flatten() {
        let Ok(text) = fs::read_to_string(unit.path()) else { continue };
        for line in text.lines().filter(|line| line.starts_with("Exec") && line.contains("/usr/bin/bottega"))
        {
            let command =
                line.split_once("/usr/bin/").expect("a program").1.replace("%S", "/state").replace("%i", "x");
            let mut words = command.split(' ');
            // What comes before --help is looked at, and nothing is done.
            let mut program = Command::new(program(words.next().expect("a program")));
            let asked = program.args(words).arg("--help").output().expect("it runs");
            assert!(asked.status.success(), "{}: {line}\n{}", unit.path().display(), printed(&asked));
            tried += 1;
        }
    }
    assert!(tried >= 7, "{tried}");
}

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::examine::Symptom;
use crate::files::Moved;
use crate::{PathError, Severity, Spool};

/// Whether the spool's directories lie on one file system, by their device numbers.
pub(super) fn devices(spool: &Spool) -> Vec<Symptom> {
    let mut by_device: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let root = spool.layout().root().to_owned();
    let device = |dir: &Path| fs::metadata(dir).ok().map(|found| found.dev());
    let home = device(&root).unwrap_or_default();
    for dir in spool.layout().directories() {
        // What lies within a directory that lies elsewhere needs no word of its own.
        if let Some(here) = device(&dir)
            && dir.parent().and_then(device) != Some(here)
        {
            by_device.entry(here).or_default().push(dir);
        }
    }
    let strange = by_device.into_iter().filter(|(device, _)| *device != home);
    let say = |dirs: Vec<PathBuf>| {
        let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let what = format!(
            "{} lie on another file system than the spool: nothing can be renamed there",
            names.join(", ")
        );
        Symptom::new(
            Severity::Error,
            what,
            "one spool is one mount: unmount what lies within it, or replace the link",
        )
    };
    strange.map(|(_, dirs)| say(dirs)).collect()
}

/// Sends a file, and then a directory, through every state as a task goes through them.
pub(super) fn journeys(spool: &Spool, dir: &Path) -> Result<Vec<Symptom>, PathError> {
    let layout = spool.layout();
    let files = spool.files();
    let name = format!(".doctor-{}", files.unique().simple());
    let stations = [
        layout.ledger(),
        layout.pending(),
        layout.delayed(),
        layout.hold(),
        layout.claimed(),
        layout.done(),
        layout.failed(),
        layout.results(),
        layout.incoming(),
        layout.nodes(),
        layout.control(),
        layout.logs(),
        layout.status(),
        layout.inputs(),
    ];
    let (file, shard) = (dir.join("traveller"), dir.join("shard"));
    files.write_new(&file, b"")?;
    files.make_dirs(&shard)?;
    files.write_new(&shard.join("task"), b"")?;
    let mut found = Vec::new();
    for station in &stations {
        there_and_back(spool, &file, &station.join(&name), &mut found)?;
    }
    for station in [layout.ledger(), layout.pending()] {
        there_and_back(spool, &shard, &station.join(&name), &mut found)?;
    }
    if !files.is_file(&shard.join("task")) {
        let what = "a renamed directory came back without its file";
        found.push(Symptom::new(Severity::Error, what, "this file system cannot hold a spool"));
    }
    Ok(found)
}

fn there_and_back(
    spool: &Spool,
    here: &Path,
    there: &Path,
    found: &mut Vec<Symptom>,
) -> Result<(), PathError> {
    let station = there.parent().unwrap_or(there);
    let what = match spool.files().rename(here, there) {
        Ok(Moved::Yes) => {
            spool.files().rename(there, here)?;
            return Ok(());
        }
        Ok(Moved::Gone) => format!("a file could not be found that was to be moved to {}", station.display()),
        Err(error) => {
            let remedy = match error.source.kind() {
                ErrorKind::CrossesDevices => "one spool is one mount: nothing else may be mounted within it",
                ErrorKind::PermissionDenied => {
                    "chgrp it to the spool's group, and chmod 2770; or run as its user"
                }
                _ => "mend that first: no daemon can work so",
            };
            let what = format!("nothing can be moved to {}: {}", station.display(), error.source);
            found.push(Symptom::new(Severity::Error, what, remedy));
            return Ok(());
        }
    };
    found.push(Symptom::new(Severity::Error, what, "look whether somebody cleans up in the spool"));
    Ok(())
}

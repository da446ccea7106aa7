use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use queue_format::TaskSpec;

/// Threads that write at once, as many as a publisher has.
const WRITERS: usize = 16;

/// Seconds to write and sync every task and show them with one rename; and to rename, read, write a synced result with a
/// directory of its own, and rename again, one after the other. The same calls as the queue's, and no logic: nothing is
/// listed, parsed, checked, hashed or looked at, and names are known beforehand.
pub(crate) fn publish_and_complete(root: &Path, tasks: &[TaskSpec]) -> [f64; 2] {
    let [staged, pending, claimed, results, done] =
        ["staged", "pending", "claimed", "results", "done"].map(|name| root.join(name));
    for dir in [&staged, &claimed, &results, &done] {
        fs::create_dir_all(dir).expect("made");
    }
    let bytes: Vec<Vec<u8>> =
        tasks.iter().map(|task| serde_json::to_vec_pretty(task).expect("JSON")).collect();
    let started = Instant::now();
    let numbered: Vec<(usize, &Vec<u8>)> = bytes.iter().enumerate().collect();
    std::thread::scope(|scope| {
        for part in numbered.chunks(numbered.len().div_ceil(WRITERS)) {
            scope.spawn(|| part.iter().for_each(|(n, bytes)| write(&staged.join(n.to_string()), bytes)));
        }
    });
    sync(&staged);
    fs::rename(&staged, &pending).expect("renamed");
    sync(root);
    let publish = started.elapsed().as_secs_f64();
    let manifest = vec![b'x'; 800];
    let started = Instant::now();
    for n in (0..tasks.len()).map(|n| n.to_string()) {
        fs::rename(pending.join(&n), claimed.join(&n)).expect("renamed");
        fs::read(claimed.join(&n)).expect("read");
        let result: PathBuf = results.join(&n).join("a001");
        fs::create_dir(results.join(&n)).and_then(|()| fs::create_dir(&result)).expect("made");
        write(&result.join("new"), &manifest);
        fs::rename(result.join("new"), result.join("manifest.json")).expect("renamed");
        sync(&result);
        fs::rename(claimed.join(&n), done.join(&n)).expect("renamed");
    }
    [publish, started.elapsed().as_secs_f64()]
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create_new(path).expect("created");
    file.write_all(bytes).and_then(|()| file.sync_all()).expect("written");
}

fn sync(dir: &Path) {
    File::open(dir).and_then(|dir| dir.sync_all()).expect("synced");
}

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::unistd::AccessFlags;

use super::finding::{Check, Severity};
use super::items::look;
use super::run::Run;
use crate::PathError;
use crate::incoming::is_rows;

/// The set-group-id bit of a directory: what is made in it belongs to its group.
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_WRITE: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

impl Run<'_> {
    /// The spool's own directories: that all are there, that daemons may write them, that nothing else is beside
    /// them.
    pub(super) fn surroundings(&mut self) -> Result<(), PathError> {
        let layout = self.spool.layout().clone();
        let dirs: BTreeSet<PathBuf> = layout.directories().into_iter().collect();
        self.each_in(layout.root(), &mut |run, item| {
            let is_ours = item.path == layout.identity() || dirs.contains(&item.path);
            if !is_ours {
                let what = "this is no directory of a spool";
                run.say(Severity::Warning, Check::UnknownName, &item.path, what, "move it elsewhere");
            }
            Ok(())
        })?;
        self.each_in(&layout.incoming(), &mut |run, item| {
            let is_read = item.is_file && is_rows(&item.name);
            if !is_read && !dirs.contains(&item.path) {
                let what = "a master reads files only that are called *.jsonl or *.json";
                let remedy = "if it has rows, put a file of such a name there; else move it elsewhere";
                run.say(Severity::Note, Check::UnknownName, &item.path, what, remedy);
            }
            Ok(())
        })?;
        self.permissions(dirs.into_iter().chain([layout.root().to_owned()]).collect());
        Ok(())
    }

    fn permissions(&mut self, dirs: BTreeSet<PathBuf>) {
        let modes: Vec<(PathBuf, u32)> =
            dirs.into_iter().filter_map(|dir| look(&dir).map(|found| (dir, found.mode() & 0o7777))).collect();
        let is_shared = |mode: u32| mode & SET_GROUP_ID != 0 && mode & GROUP_WRITE != 0;
        let shared = modes.iter().filter(|(_, mode)| is_shared(*mode)).count();
        for (dir, mode) in &modes {
            if nix::unistd::access(dir, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
                let what = format!("we may not write here (mode {mode:04o})");
                let remedy =
                    "run this as the spool's user or in its group; chown or chgrp it, and chmod 2770";
                self.say(Severity::Error, Check::Permissions, dir, what, remedy);
            }
            if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
                let what =
                    format!("anybody on the machine may write here (mode {mode:04o}), and so forge results");
                self.say(Severity::Warning, Check::Permissions, dir, what, "chmod 2770");
            }
            if shared > 0 && !is_shared(*mode) {
                let what = format!(
                    "others of the group cannot write here (mode {mode:04o}), though they can elsewhere"
                );
                self.say(Severity::Warning, Check::Permissions, dir, what, "chmod 2770");
            }
        }
        let root = self.spool.layout().root().to_owned();
        if let (0, Some(mode)) = (shared, modes.iter().find(|(dir, _)| *dir == root).map(|(_, mode)| *mode)) {
            let what = format!("only its own user can work with this spool (mode {mode:04o})");
            let remedy = "fine where all daemons run as one user; else: chgrp -R GROUP, find -type d -exec chmod 2770 {} +";
            self.say(Severity::Note, Check::Permissions, &root, what, remedy);
        }
    }
}

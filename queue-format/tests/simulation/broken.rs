use std::io::Write as _;
use std::path::{Path, PathBuf};

use queue_format::{
    Claim, ClaimError, Filesystem, MANIFEST_FILE, Manifest, Owner, PathError, Spool, SpoolError, TaskName,
    TaskSpec,
};

use crate::check::done_path;
use crate::mount::{MOUNT, Mount};
use crate::world::with;

/// The protocol, or one with a flaw that the checker must find: a checker that finds nothing proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// As it is.
    Sound,
    /// A client that is asked again believes its cache: no change of its own goes before.
    BelievesItsCache,
    /// A worker takes an error of its last rename for a proof that nothing was done.
    TrustsErrno,
    /// A worker makes its result official before it has written it.
    ResultsLast,
    /// A worker copies the task to done/, then removes its claim.
    CopiesInsteadOfRenaming,
    /// A producer writes its tasks where workers look.
    PublishesInPlace,
    /// A producer publishes again without looking what is there.
    PublishesBlindly,
    /// A master removes a file once it has read it, whoever still writes it.
    RemovesWhatItHasRead,
}

/// Whether a flawed client does nothing about a path.
pub(crate) fn leaves_out(path: &Path) -> bool {
    with(|world| world.variant == Variant::BelievesItsCache)
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".look-"))
}

/// Ends a claim as the flawed `variant` would.
pub(crate) fn conclude(
    variant: Variant,
    claim: &Claim,
    spool: &Spool,
    manifest: &Manifest,
    attempt: &[(String, Vec<u8>)],
) -> Result<(), ClaimError> {
    let to = PathBuf::from(MOUNT).join(done_path(claim.name(), &manifest.owner));
    let lease = spool.layout().lease(&manifest.owner).join(claim.spec().class().to_string());
    let from = lease.join(claim.name().to_string());
    let lost = |_| ClaimError::Lost(claim.name().clone());
    let is_accepted = matches!(manifest.verdict, queue_format::Verdict::Accepted { .. });
    match variant {
        Variant::TrustsErrno if is_accepted => {
            results(spool, manifest, attempt)?;
            let _ = to.parent().map(|dir| Mount.make_dir(dir));
            Mount.rename(&from, &to).map_err(lost)
        }
        Variant::ResultsLast if is_accepted => {
            let _ = to.parent().map(|dir| Mount.make_dir(dir));
            Mount.rename(&from, &to).map_err(lost)?;
            results(spool, manifest, attempt).map_err(ClaimError::from)
        }
        Variant::CopiesInsteadOfRenaming if is_accepted => {
            results(spool, manifest, attempt)?;
            let _ = to.parent().map(|dir| Mount.make_dir(dir));
            write(to, b"{}")?;
            Mount.remove_file(&from).map_err(lost)
        }
        _ => claim.conclude(manifest, attempt).map(drop),
    }
}

/// Publishes as the flawed `variant` would; false where it has no flaw there.
pub(crate) fn publish(
    variant: Variant,
    spool: &Spool,
    specs: &[TaskSpec],
    me: &Owner,
) -> Result<bool, SpoolError> {
    let dir = match variant {
        Variant::PublishesInPlace => spool.layout().pending().join("5-build"),
        Variant::PublishesBlindly => spool.layout().staging(me).join("shard"),
        _ => return Ok(false),
    };
    let _ = Mount.make_dir(&dir);
    for spec in specs {
        let path = dir.join(TaskName::fresh(spec.id.clone()).to_string());
        let bytes = serde_json::to_vec(spec).expect("JSON");
        write(path, &bytes)?;
    }
    if variant == Variant::PublishesBlindly {
        let unique = with(|world| world.rng.uuid()).simple().to_string();
        let to = spool.layout().pending().join("5-build").join(unique);
        Mount.rename(&dir, &to).map_err(|source| PathError { action: "publish", path: dir, source })?;
    }
    Ok(true)
}

fn results(spool: &Spool, manifest: &Manifest, attempt: &[(String, Vec<u8>)]) -> Result<(), SpoolError> {
    let dir = spool.layout().attempt(&manifest.id, manifest.token);
    let _ = dir.parent().and_then(|above| above.parent()).map(|bucket| Mount.make_dir(bucket));
    let _ = dir.parent().map(|above| Mount.make_dir(above));
    let _ = Mount.make_dir(&dir);
    let mut manifest = manifest.clone();
    for (name, bytes) in attempt {
        let _ = Mount.remove_file(&dir.join(name));
        write(dir.join(name), bytes)?;
        manifest.files.insert(name.clone(), blake3::hash(bytes).to_hex().to_string());
    }
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    let _ = Mount.remove_file(&dir.join(MANIFEST_FILE));
    write(dir.join(MANIFEST_FILE), &bytes)
}

fn write(path: PathBuf, bytes: &[u8]) -> Result<(), SpoolError> {
    let written = Mount.create(&path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.finish()
    });
    Ok(written.map_err(|source| PathError { action: "write", path, source })?)
}

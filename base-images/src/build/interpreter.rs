//! The archive that turns a root into the image of one Python.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::build::process::Running;
use crate::build::recipe::Recipe;
use crate::build::{conda, libraries};
use crate::error::BuildError;
use crate::pack::{self, Keep, PREFIX, Relocation};
use crate::providers::{Interpreter, Offer};
use crate::settings::HostSettings;

/// The digest of everything that defines the image: the root's, and what is put into it.
pub(super) fn recipe(offer: &Offer, root_recipe: &str) -> Result<String, BuildError> {
    let recipe = Recipe::default()
        .part("root", root_recipe)
        .part("python", &offer.version.to_string())
        .part("provider", offer.provider.name())
        .files(&pack::interpreter_files());
    let recipe = match &offer.interpreter {
        Interpreter::Debian | Interpreter::Conda { .. } => recipe,
        Interpreter::Tree(tree) => {
            let files = pack::list_tree(&tree.prefix, Keep::Interpreter(offer.version));
            let files = files.map_err(BuildError::io(&tree.prefix))?;
            // Names and sizes: to read every byte for every look would be slow, and trees are never edited in place.
            files
                .iter()
                .fold(recipe, |recipe, (path, size)| recipe.part(&path.to_string_lossy(), &size.to_string()))
        }
    };
    Ok(recipe.digest())
}

/// Writes the archive into `scratch`.
pub(super) async fn archive(
    offer: &Offer,
    settings: &HostSettings,
    scratch: &Path,
    running: &Running,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<PathBuf, BuildError> {
    let path = scratch.join("interpreter.tar");
    let content = match &offer.interpreter {
        Interpreter::Debian => None,
        Interpreter::Tree(tree) => {
            let keep = Keep::Interpreter(offer.version);
            Some(Content {
                source: tree.prefix.clone(),
                keep,
                relocation: Relocation::of_texts(tree.names(), PREFIX),
                libraries: libraries::of_tree(tree, keep, settings).await?,
            })
        }
        Interpreter::Conda { executable } => {
            let source =
                conda::create(executable, offer.version, settings, scratch, running, on_line).await?;
            Some(Content {
                keep: Keep::Everything(offer.version),
                relocation: Relocation::of_everything(&source, PREFIX),
                libraries: BTreeMap::new(),
                source,
            })
        }
    };
    let written = path.clone();
    let write = tokio::task::spawn_blocking(move || write(&written, content.as_ref()));
    write.await.map_err(io::Error::other).flatten().map_err(BuildError::io(&path))?;
    Ok(path)
}

/// What is copied from the host.
struct Content {
    source: PathBuf,
    keep: Keep,
    relocation: Relocation,
    libraries: BTreeMap<String, PathBuf>,
}

fn write(path: &Path, content: Option<&Content>) -> io::Result<()> {
    let mut archive = pack::create(path)?;
    pack::write_files(&mut archive, &pack::interpreter_files())?;
    if let Some(content) = content {
        let destination = Path::new(PREFIX.trim_start_matches('/'));
        pack::write_tree(&mut archive, &content.source, destination, content.keep, &content.relocation)?;
        for (soname, library) in &content.libraries {
            archive.append_path_with_name(library, Path::new("opt/host-libraries").join(soname))?;
        }
    }
    archive.into_inner().map(drop)
}

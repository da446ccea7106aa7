//! One image from its offer to its tag.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::build::process::Running;
use crate::build::progress::Progress;
use crate::build::work::{self, WorkDirectory};
use crate::build::{interpreter, root};
use crate::catalogue::{CATALOGUE, nearest, release_of};
use crate::engine::{
    Engine, Finished, Found, Job, LABEL_BASE_IMAGE, LABEL_PROVIDER, LABEL_PYTHON, LABEL_RECIPE, LABEL_SUITE,
};
use crate::error::BuildError;
use crate::pack;
use crate::providers::{Offer, ProviderKind, Source, Suite, offers};
use crate::settings::HostSettings;
use crate::version::PythonVersion;

const SCRIPT_LIMIT: Duration = Duration::from_secs(20 * 60);
const CHECK_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The last line of the interpreter's script tells the version with its patch number.
const VERSION_LINE: &str = "python=";

type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// An image that is there now.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// Its name, `openswe-python-3.11`.
    pub image: String,
    /// Who brought the interpreter; `None` if the image was there and is not one of ours.
    pub provider: Option<ProviderKind>,
    /// Whether it was there already.
    pub reused: bool,
    /// Its size with every layer.
    pub size_bytes: u64,
    /// What of it lies in the root that images share; 0 if that is not known.
    pub shared_bytes: u64,
    /// How long this build took.
    pub seconds: f64,
}

/// Makes images in an engine.
///
/// A build may be dropped at any time: call [`ImageBuilder::clean_up`] then, to leave nothing behind. What a build
/// left that was killed is removed by the next one.
pub struct ImageBuilder {
    engine: Engine,
    settings: HostSettings,
    work_directory: PathBuf,
    rebuild: bool,
    rebuilt_roots: Mutex<Vec<Suite>>,
    running: Running,
}

impl ImageBuilder {
    /// A builder that keeps its temporary files (up to 1 GB) in `work_directory`.
    pub fn new(docker: Docker, settings: HostSettings, work_directory: impl Into<PathBuf>) -> Self {
        Self {
            engine: Engine::new(docker),
            settings,
            work_directory: work_directory.into(),
            rebuild: false,
            rebuilt_roots: Mutex::default(),
            running: Running::default(),
        }
    }

    /// Whether an image is made again though it is there, say for newer Debian packages; a root once for all.
    #[must_use]
    pub fn rebuild(mut self, rebuild: bool) -> Self {
        self.rebuild = rebuild;
        self
    }

    /// Where other processes build in the same engine: asks for a moment in which none does, and may block. What it gives is held
    /// while images are removed; where it gives nothing, they stay until the next build.
    #[must_use]
    pub fn removing_in(mut self, gate: impl Fn() -> Option<Box<dyn Send>> + Send + Sync + 'static) -> Self {
        self.engine.gate = Arc::new(gate);
        self
    }

    /// The Pythons that some provider offers on this host, oldest first.
    pub fn buildable(&self) -> Vec<PythonVersion> {
        let offered = |version: &PythonVersion| {
            offers(*version, &self.settings).iter().any(|source| source.offer.is_ok())
        };
        CATALOGUE.iter().map(|release| release.version).filter(offered).collect()
    }

    /// Makes the image of a Python unless it is there, from the first provider that can.
    ///
    /// An image of that name that was not made here is used as it is.
    pub async fn build(&self, version: PythonVersion, progress: OnProgress<'_>) -> Result<Built, BuildError> {
        let work = WorkDirectory::lock(&self.work_directory, progress).await?;
        self.running.wait().await;
        self.engine.sweep().await?;
        let built = self.build_from_first(version, &work, progress).await;
        self.engine.sweep().await?;
        built
    }

    /// Ends what a dropped build still runs; removes its files, and containers and half images of this process and
    /// of processes that are gone.
    pub async fn clean_up(&self) -> Result<(), BuildError> {
        self.running.wait().await;
        work::remove_stale(&self.work_directory);
        self.engine.sweep().await
    }

    async fn build_from_first(
        &self,
        version: PythonVersion,
        work: &WorkDirectory,
        progress: OnProgress<'_>,
    ) -> Result<Built, BuildError> {
        let started = Instant::now();
        if let (None, [first, .., last]) = (release_of(version), &CATALOGUE) {
            return Err(BuildError::NotInCatalogue { version, oldest: first.version, newest: last.version });
        }
        let present = self.engine.find(&version.image()).await?;
        if let Some(foreign) = present.as_ref().filter(|present| !present.is_ours() && !self.rebuild) {
            return Ok(built(version, foreign, true, 0, started));
        }
        let mut sources = offers(version, &self.settings);
        let mut failure = None;
        for source in &mut sources {
            let Ok(offer) = &source.offer else { continue };
            match self.build_offer(offer, present.as_ref(), work, progress).await {
                Ok((found, reused, shared_bytes)) => {
                    return Ok(built(version, &found, reused, shared_bytes, started));
                }
                Err(error) if error.is_about_the_offer() => {
                    let reason = error.to_string();
                    progress(Progress::NextProvider {
                        python: version,
                        failed: source.provider,
                        reason: reason.clone(),
                    });
                    source.offer = Err(reason);
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let tried = failure.is_some() && sources.len() == 1;
        match (failure, present) {
            (Some(error), _) if tried => Err(error),
            // No provider any more, but the image from one: it stays in use.
            (None, Some(present)) => Ok(built(version, &present, true, 0, started)),
            _ => Err(self.no_provider(version, sources)),
        }
    }

    fn no_provider(&self, version: PythonVersion, sources: Vec<Source>) -> BuildError {
        let others: Vec<PythonVersion> =
            self.buildable().into_iter().filter(|other| *other != version).collect();
        let mut nearest = nearest(version, &others);
        nearest.truncate(3);
        BuildError::NoProvider { version, sources, nearest }
    }

    /// The image, whether it was there, and the bytes of its shared root.
    async fn build_offer(
        &self,
        offer: &Offer,
        present: Option<&Found>,
        work: &WorkDirectory,
        progress: OnProgress<'_>,
    ) -> Result<(Found, bool, u64), BuildError> {
        let recipe = interpreter::recipe(offer, &root::recipe(offer.suite, &self.settings))?;
        if let Some(present) = present.filter(|present| present.recipe() == Some(&recipe) && !self.rebuild) {
            let root = self.engine.find(&root::image_name(offer.suite)).await?;
            return Ok((present.clone(), true, root.map_or(0, |root| root.size_bytes)));
        }
        let root = self.root(offer.suite, work, progress).await?;
        let image = self.interpreter(offer, &root, recipe, work, progress).await?;
        progress(Progress::Check { python: offer.version });
        self.check(offer.version, &image, progress).await?;
        self.engine.tag(&image, &offer.version.image()).await?;
        let found = self.engine.find(&image).await?.ok_or(BuildError::NoImage { step: "tag an image" })?;
        Ok((found, false, root.size_bytes))
    }

    /// The root of a Debian release, made if its recipe is not there.
    async fn root(
        &self,
        suite: Suite,
        work: &WorkDirectory,
        progress: OnProgress<'_>,
    ) -> Result<Found, BuildError> {
        let name = root::image_name(suite);
        let recipe = root::recipe(suite, &self.settings);
        if let Some(present) =
            self.engine.find(&name).await?.filter(|present| present.recipe() == Some(&recipe))
            && (!self.rebuild || self.rebuilt_roots.lock().await.contains(&suite))
        {
            return Ok(present);
        }
        progress(Progress::Root { suite: suite.name() });
        let scratch = work.scratch()?;
        let mut on_line = |line: &str| progress(Progress::Line(line.to_owned()));
        let image =
            root::make(&self.engine, suite, &self.settings, scratch.path(), &self.running, &mut on_line)
                .await?;
        self.engine.tag(&image, &name).await?;
        self.rebuilt_roots.lock().await.push(suite);
        self.engine.find(&image).await?.ok_or(BuildError::NoImage { step: "tag a root" })
    }

    /// Puts the interpreter into the root; gives the id of a scratch image.
    async fn interpreter(
        &self,
        offer: &Offer,
        root: &Found,
        recipe: String,
        work: &WorkDirectory,
        progress: OnProgress<'_>,
    ) -> Result<String, BuildError> {
        let python = offer.version;
        progress(Progress::Interpreter { python, provider: offer.provider, origin: offer.origin.clone() });
        let mut on_line = |line: &str| progress(Progress::Line(line.to_owned()));
        let scratch = work.scratch()?;
        let archive =
            interpreter::archive(offer, &self.settings, scratch.path(), &self.running, &mut on_line).await?;
        let version = python.to_string();
        let job = Job {
            image: &root.id,
            label: &version,
            command: ["/bin/sh", "/tmp/interpreter.sh", offer.provider.name(), &version]
                .map(ToOwned::to_owned)
                .into(),
            environment: self
                .settings
                .proxies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            network: "host",
        };
        let container = self.engine.create(&job).await?;
        self.engine.upload(&container, &archive).await?;
        let finished = self.engine.run(&container, SCRIPT_LIMIT, &mut on_line).await?;
        let full_version = full_version(&finished);
        succeeded("putting the interpreter in", finished)?;
        let labels = [
            (LABEL_BASE_IMAGE, version.clone()),
            (LABEL_PROVIDER, offer.provider.name().to_owned()),
            (LABEL_PYTHON, full_version.unwrap_or_else(|| version.clone())),
            (LABEL_RECIPE, recipe),
            (LABEL_SUITE, offer.suite.name().to_owned()),
        ];
        let labels: HashMap<String, String> = labels.map(|(name, value)| (name.to_owned(), value)).into();
        let image = self.engine.commit(&container, labels, environment(python, root)).await?;
        self.engine.remove_container(&container).await?;
        Ok(image)
    }

    /// Runs the check inside of the image, without a network.
    async fn check(
        &self,
        version: PythonVersion,
        image: &str,
        progress: OnProgress<'_>,
    ) -> Result<(), BuildError> {
        let version = version.to_string();
        let command = ["bash", "-c", pack::check_script(), "check.sh", &version];
        let job = Job {
            image,
            label: &version,
            command: command.map(ToOwned::to_owned).into(),
            environment: Vec::new(),
            network: "none",
        };
        let container = self.engine.create(&job).await?;
        let mut on_line = |line: &str| progress(Progress::Line(line.to_owned()));
        let finished = self.engine.run(&container, CHECK_LIMIT, &mut on_line).await?;
        self.engine.remove_container(&container).await?;
        succeeded("checking the image", finished)
    }
}

/// The root's variables; byte code is not compiled by uv where it cannot (Python 3.6 and older).
fn environment(python: PythonVersion, root: &Found) -> Vec<String> {
    let old = python <= PythonVersion::new(3, 6);
    let adapt = |line: &String| match line.split_once('=') {
        Some((name @ "UV_COMPILE_BYTECODE", _)) if old => format!("{name}=0"),
        _ => line.clone(),
    };
    root.environment.iter().map(adapt).collect()
}

fn full_version(finished: &Finished) -> Option<String> {
    let line = finished.last_lines.iter().rev().find_map(|line| line.strip_prefix(VERSION_LINE))?;
    Some(line.trim().to_owned())
}

fn succeeded(step: &'static str, finished: Finished) -> Result<(), BuildError> {
    let Finished { exit_code, last_lines } = finished;
    if exit_code == 0 { Ok(()) } else { Err(BuildError::Script { step, exit_code, last_lines }) }
}

fn built(version: PythonVersion, found: &Found, reused: bool, shared_bytes: u64, started: Instant) -> Built {
    Built {
        image: version.image(),
        provider: found.labels.get(LABEL_PROVIDER).and_then(|provider| provider.parse().ok()),
        reused,
        size_bytes: found.size_bytes,
        shared_bytes,
        seconds: started.elapsed().as_secs_f64(),
    }
}

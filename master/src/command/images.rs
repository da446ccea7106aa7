use std::io::Write;
use std::time::Duration;

use base_images::{
    AvailableImage, BuildError, Built, CATALOGUE, DEFAULT_ADDRESS, HostSettings, ImageBuilder, Progress,
    ProviderKind, PythonVersion, Source, Unreachable, available, offers,
};
use bollard::Docker;
use comfy_table::CellAlignment;
use queue_format::BuildGate;
use systemd::{Shutdown, chain, state_file};
use tokio::runtime::Builder;

use super::cli::{ImagesAction, ImagesArguments};
use super::{CommandError, Host, Success};
use crate::text::{bytes, clean_line, duration, plural, table};
use crate::up::Screen;

/// How long a moment without builds of a worker is waited for before an image that was replaced is removed; then the next call does it.
const BUILDS_WAIT: Duration = Duration::from_secs(10);

/// Builds or lists base images.
pub(super) fn run(
    arguments: ImagesArguments,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    let mut settings = HostSettings::read(&host.variables);
    for warning in &settings.warnings {
        writeln!(out, "note: {}", clean_line(warning))?;
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.action {
        ImagesAction::List => runtime.block_on(list(&settings, host, out)),
        ImagesAction::Build { versions, provider, rebuild, state } => {
            let usage = |e: &dyn std::fmt::Display| CommandError::usage(e.to_string());
            if let Some(provider) = provider {
                settings.providers = vec![provider.parse::<ProviderKind>().map_err(|e| usage(&e))?];
            }
            let versions = versions.iter().map(|text| text.parse::<PythonVersion>());
            let versions: Vec<PythonVersion> = versions.collect::<Result<_, _>>().map_err(|e| usage(&e))?;
            let state_dir = host.state_dir(state.as_ref())?;
            let docker = runtime.block_on(connect(host))?;
            let builder = ImageBuilder::new(docker, settings, state_dir.join("base-images")).rebuild(rebuild);
            // An engine may fail the builds of a worker that look into its cache just then.
            let gate = state_file::making_dirs(&state_dir, &["builds"], || BuildGate::prepare(&state_dir));
            let builder = builder.removing_in(move || {
                let alone = gate.as_ref().ok()?.no_builds_by_chance(BUILDS_WAIT).ok().flatten();
                alone.map(|alone| Box::new(alone) as Box<dyn Send>)
            });
            runtime.block_on(build(&builder, versions, host, out))
        }
    }
}

async fn connect(host: &Host) -> Result<Docker, CommandError> {
    let address = host.environment.get("DOCKER_HOST").unwrap_or(DEFAULT_ADDRESS);
    let unreachable = |source: bollard::errors::Error| {
        CommandError::Program(Unreachable { address: address.to_owned(), source }.to_string())
    };
    let docker = Docker::connect_with_host(address).map_err(unreachable)?;
    docker.negotiate_version().await.map_err(unreachable)
}

async fn build(
    builder: &ImageBuilder,
    mut versions: Vec<PythonVersion>,
    host: &Host,
    out: &mut dyn Write,
) -> Result<Success, CommandError> {
    if versions.is_empty() {
        versions = builder.buildable();
        let text: Vec<String> = versions.iter().map(ToString::to_string).collect();
        if versions.is_empty() {
            let why = "no provider has any Python here; bottega images list tells why";
            return Err(CommandError::Program(why.to_owned()));
        }
        writeln!(out, "building {}: {}", plural(versions.len(), "base image"), text.join(", "))?;
    }
    let shutdown = Shutdown::on_signals()?;
    let mut screen = Screen::new(out, host.terminal);
    let (mut built, mut failed) = (0, 0);
    for version in versions {
        let result = tokio::select! {
            result = build_one(builder, version, &mut screen) => result,
            () = shutdown.requested() => {
                screen.say("interrupted: removing what the build has begun")?;
                builder.clean_up().await.map_err(|e| CommandError::Program(chain(&e)))?;
                return Ok(Success::Interrupted);
            }
        };
        screen.wipe()?;
        match result {
            Ok(image) => {
                built += 1;
                screen.say(&line_of(&image))?;
            }
            // Without an engine the others fail in the same way.
            Err(error @ BuildError::Engine { .. }) => return Err(CommandError::Program(chain(&error))),
            Err(error) => {
                failed += 1;
                screen.say(&format!("Python {version}: {}", chain(&error)))?;
            }
        }
    }
    screen.say(&format!("{} ready, {failed} failed", plural(built, "base image")))?;
    Ok((failed == 0).into())
}

async fn build_one(
    builder: &ImageBuilder,
    version: PythonVersion,
    screen: &mut Screen<'_>,
) -> Result<Built, BuildError> {
    let (sender, mut news) = tokio::sync::mpsc::unbounded_channel();
    let mut tell = move |progress: Progress| {
        let _ = sender.send(progress);
    };
    let building = async {
        let result = builder.build(version, &mut tell).await;
        drop(tell);
        result
    };
    let showing = async {
        while let Some(progress) = news.recv().await {
            // A screen that is gone is found out by the caller, whose next line fails too.
            let _ = match progress {
                Progress::Line(line) => screen.draw(&[format!("  {}", clean_line(&line))]),
                progress => screen.say(&clean_line(&progress.to_string())),
            };
        }
    };
    tokio::join!(building, showing).0
}

fn line_of(image: &Built) -> String {
    let by = image.provider.map_or_else(|| "not made here".to_owned(), |provider| format!("from {provider}"));
    let shared = if image.shared_bytes > 0 {
        format!(", {} of it shared with the others", bytes(image.shared_bytes))
    } else {
        String::new()
    };
    let how = if image.reused {
        "there already".to_owned()
    } else {
        format!("built in {}", duration(image.seconds))
    };
    format!("{}: {how}, {by}, {}{shared}", image.image, bytes(image.size_bytes))
}

async fn list(settings: &HostSettings, host: &Host, out: &mut dyn Write) -> Result<Success, CommandError> {
    let found = match connect(host).await {
        Ok(docker) => available(&docker).await.map_err(|e| CommandError::Program(chain(&e))),
        Err(error) => Err(error),
    };
    let (images, missing) = match found {
        Ok(images) => (images, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut table = table(host.columns());
    table.set_header(["python", "image", "from", "size", "can be built here"]);
    for release in CATALOGUE {
        let image = images.iter().find(|image| image.python == release.version);
        table.add_row(row(release.version, image, &offers(release.version, settings)));
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    match missing {
        Some(error) => Err(error),
        None => Ok(Success::Yes),
    }
}

fn row(python: PythonVersion, image: Option<&AvailableImage>, sources: &[Source]) -> [String; 5] {
    let none = || "–".to_owned();
    let offered = sources.iter().filter_map(|source| source.offer.as_ref().ok());
    let offered: Vec<String> =
        offered.map(|offer| format!("{}: {}", offer.provider, clean_line(&offer.origin))).collect();
    let refused = || {
        let whys = sources.iter().filter_map(|source| Some((source.provider, source.offer.as_ref().err()?)));
        format!(
            "no; {}",
            whys.map(|(provider, why)| format!("{provider}: {}", clean_line(why)))
                .collect::<Vec<_>>()
                .join("; ")
        )
    };
    [
        image
            .and_then(|image| image.full_version.clone())
            .map_or_else(|| python.to_string(), |full| clean_line(&full)),
        image.map_or_else(none, |image| image.python.image()),
        image.map_or_else(none, |image| {
            image.provider.map_or_else(|| "elsewhere".to_owned(), |p| p.to_string())
        }),
        image.map_or_else(none, |image| bytes(image.size_bytes)),
        if offered.is_empty() { refused() } else { offered.join("; ") },
    ]
}

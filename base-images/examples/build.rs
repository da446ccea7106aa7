//! Builds the named Pythons, or every one that can be built here: `cargo run -p base-images --example build 3.11`.

use base_images::{HostSettings, ImageBuilder, PythonVersion, sources};
use bollard::Docker;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = HostSettings::read(&std::env::vars().collect());
    for warning in &settings.warnings {
        eprintln!("warning: {warning}");
    }
    for source in sources(&settings) {
        let told = source.offer.map_or_else(|why| format!("no: {why}"), |offer| offer.origin);
        println!("{:>5} {:<7} {told}", source.version.to_string(), source.provider);
    }
    let docker = Docker::connect_with_defaults()?.negotiate_version().await?;
    let builder = ImageBuilder::new(docker, settings, std::env::temp_dir().join("base-images"));
    let mut versions = Vec::new();
    for argument in std::env::args().skip(1) {
        versions.push(argument.parse::<PythonVersion>()?);
    }
    if versions.is_empty() {
        versions = builder.buildable();
    }
    for version in versions {
        let mut print = |progress| println!("{progress}");
        let built = tokio::select! {
            built = builder.build(version, &mut print) => built,
            _ = tokio::signal::ctrl_c() => {
                builder.clean_up().await?;
                return Err("interrupted; nothing was left behind".into());
            }
        };
        match built {
            Ok(built) => println!("{built:?}"),
            Err(error) => println!("{version}: {error}"),
        }
    }
    Ok(())
}

//! The project's own package, as `make deb` packs it, of the programs that cargo has built.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{printed, program};

/// Where the configuration lies that the package brings.
pub const CONFIG: &str = "/etc/bottega/bottega.toml";

/// Makes the package in two versions, the same but for the number: `DIR/bottega_1.deb` and `DIR/bottega_2.deb`.
///
/// # Errors
/// A tool is missing, or fails.
pub fn make(dir: &Path) -> io::Result<[PathBuf; 2]> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/package");
    let tree = dir.join("tree");
    let programs = program("bottega");
    let programs = programs.parent().unwrap_or(Path::new("/"));
    run(Command::new(scripts.join("stage.sh")).arg(&tree).arg(programs))?;
    fs::create_dir(tree.join("DEBIAN"))?;
    fs::write(tree.join("DEBIAN/conffiles"), format!("{CONFIG}\n"))?;
    for script in ["postinst", "prerm", "postrm"] {
        run(Command::new("install").arg(scripts.join(script)).arg(tree.join("DEBIAN")))?;
    }
    let packages = [1, 2].map(|version| dir.join(format!("bottega_{version}.deb")));
    for (version, package) in (1..).zip(&packages) {
        let control = format!(
            "Package: bottega\nVersion: {version}\nArchitecture: amd64\nMaintainer: Nobody <nobody@bottega.invalid>\n\
             Depends: ca-certificates, git, systemd (>= 247)\nDescription: of a test\n"
        );
        fs::write(tree.join("DEBIAN/control"), control)?;
        run(Command::new("dpkg-deb")
            .args(["-Zgzip", "-z1", "--root-owner-group", "-b"])
            .arg(&tree)
            .arg(package))?;
    }
    fs::remove_dir_all(&tree)?;
    Ok(packages)
}

fn run(command: &mut Command) -> io::Result<()> {
    let ran = command.output()?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{command:?}: {}", printed(&ran)))),
    }
}

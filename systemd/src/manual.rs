//! Manual pages and shell completions, written by each program itself: they say what its command line does.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

/// The first argument that asks a program for its manual; a directory follows. For those who make packages.
pub const MANUAL: &str = "__manual";

/// What every program's manual ends with.
pub const FILES: &str = "\
Files:
  /etc/bottega/bottega.toml  the configuration
  /var/lib/bottega           root's state on this node; that of others
                             lies in ~/.local/state/bottega";

/// Writes the manual of `C` where the arguments of the process ask for it; `None`: they do not.
pub fn asked<C: CommandFactory>(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    arguments.next().filter(|first| first == MANUAL)?;
    let Some(dir) = arguments.next().map(PathBuf::from) else {
        eprintln!("{MANUAL} needs a directory");
        return Some(ExitCode::FAILURE);
    };
    Some(match write(&C::command(), &dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the manual below {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    })
}

/// Writes `man/NAME.1`, also of every subcommand, and `completions/{bash,fish,zsh}/`, named as each shell looks for them.
///
/// # Errors
/// The directory cannot be written.
pub fn write(command: &Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let man = dir.join("man");
    fs::create_dir_all(&man)?;
    // Without the subcommand help: it has a page of its own otherwise, which says nothing.
    clap_mangen::generate_to(command.clone().disable_help_subcommand(true), &man)?;
    for (shell, file) in [
        (Shell::Bash, format!("bash/{name}")),
        (Shell::Fish, format!("fish/{name}.fish")),
        (Shell::Zsh, format!("zsh/_{name}")),
    ] {
        let path = dir.join("completions").join(file);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), &name, &mut text);
        fs::write(path, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Paints.
    #[derive(Parser)]
    #[command(name = "painter", version)]
    struct Cli {
        /// How many colours
        #[arg(long)]
        colours: u32,
    }

    #[test]
    fn a_program_writes_its_own_manual() {
        let dir = tempfile::tempdir().expect("a directory");
        let arguments = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(asked::<Cli>(arguments(&["painter", "--colours", "3"])).is_none());
        assert!(asked::<Cli>(arguments(&["painter"])).is_none());
        let path = dir.path().to_str().expect("text");
        assert_eq!(asked::<Cli>(arguments(&["painter", MANUAL, path])), Some(ExitCode::SUCCESS));
        let check = |file: &str, expected: &str| {
            let text = fs::read_to_string(dir.path().join(file)).expect(file);
            assert!(text.contains(expected), "{file}: {text}");
        };
        check("man/painter.1", "How many colours");
        check("completions/bash/painter", "--colours");
        check("completions/fish/painter.fish", "How many colours");
        check("completions/zsh/_painter", "#compdef painter");
    }
}

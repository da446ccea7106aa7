use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::reference::is_reference;
use crate::{Digest, OUTPUT_FILE};

/// Commands of one task.
pub const COMMANDS_MAX: usize = 1000;
/// Inputs of one task.
const INPUTS_MAX: usize = 1000;
/// Outputs of one task.
const OUTPUTS_MAX: usize = 100;
/// Variables of one task.
const VARIABLES_MAX: usize = 256;
/// One argument or variable; the kernel's own limit (`MAX_ARG_STRLEN`, execve(2)).
const ARGUMENT_BYTES_MAX: usize = (128 << 10) - 1;
/// All arguments of one command, and all variables; far below what execve takes on any machine with an 8 MiB stack.
const COMMAND_BYTES_MAX: usize = 1 << 20;
/// All commands of one task; in JSON each byte may take six, and a task file must be readable.
const COMMANDS_BYTES_MAX: usize = 8 << 20;
/// A path inside the task; short enough for the name of a file among the results.
const PATH_BYTES_MAX: usize = 200;
/// Where a container has the worker's own files.
const WORKERS_DIR: &str = "/bottega";
/// Names that the worker sets itself.
const RESERVED_PREFIX: &str = "BOTTEGA_";

/// Any command: in a container of any image, or on the node itself.
///
/// Several commands make a *bundle*: they run one after another in the same container or directory, under one claim and
/// with one result, which saves short ones most of what a task costs. Each runs whatever became of those before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTask {
    /// Where the commands run; without one they run on the node itself (`native`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Each a program and its arguments; no shell is between.
    pub commands: Vec<Vec<String>>,
    /// Variables of every command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `BOTTEGA_ARRAY_INDEX` of the first command; the next has the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_index: Option<u64>,
    /// `uid:gid` inside the container, in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the container has a network; a native command has the node's in any case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
    /// Files that are there when it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFile>,
    /// Files and directories that are kept from it: absolute in a container, else relative to its directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
}

/// A file of the spool's `inputs/` that a task begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Where the task sees it; absolute in a container, else relative to its directory.
    pub path: String,
    /// Its content.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Its permission bits.
    pub mode: u32,
}

/// Why a run task is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field \"{field}\": {why}")]
pub struct InvalidRun {
    /// The field, such as `outputs[2]`.
    pub field: String,
    /// What is wrong with it, and what is expected.
    pub why: String,
}

impl RunTask {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), InvalidRun> {
        self.check_image()?;
        self.check_commands()?;
        at_most("env", self.env.len(), VARIABLES_MAX, "variables")?;
        for (name, value) in &self.env {
            check_variable(name, value).map_err(|why| invalid(format!("env.{}", shown(name)), why))?;
        }
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        if bytes > COMMAND_BYTES_MAX {
            let why = format!(
                "all together have {bytes} bytes, at most {COMMAND_BYTES_MAX} fit; put them into an input"
            );
            return Err(invalid("env", why));
        }
        at_most("inputs", self.inputs.len(), INPUTS_MAX, "files; put them into one archive")?;
        at_most("outputs", self.outputs.len(), OUTPUTS_MAX, "paths; name a directory above them")?;
        // As paths, which are equal whatever the slashes.
        let mut seen = BTreeSet::new();
        for (n, input) in self.inputs.iter().enumerate() {
            self.check_path(&input.path).map_err(|why| invalid(format!("inputs[{n}].path"), why))?;
            if input.mode > 0o777 {
                let why = format!("it is {:o}, expected at most 777 (octal)", input.mode);
                return Err(invalid(format!("inputs[{n}].mode"), why));
            }
            if !seen.insert(Path::new(&input.path)) {
                return Err(invalid(
                    format!("inputs[{n}].path"),
                    "an input before it has the same path; give one of them another",
                ));
            }
            if self.image.is_some() && Path::new(&input.path).starts_with(WORKERS_DIR) {
                let why = format!("{WORKERS_DIR} in a container is the worker's; choose another directory");
                return Err(invalid(format!("inputs[{n}].path"), why));
            }
        }
        let is_below_a_file = |path: &str| Path::new(path).ancestors().skip(1).any(|dir| seen.contains(dir));
        let below = "an input is at a path above it, and a file holds no others; give one of them another";
        if let Some(n) = self.inputs.iter().position(|input| is_below_a_file(&input.path)) {
            return Err(invalid(format!("inputs[{n}].path"), below));
        }
        let mut names = BTreeSet::from([OUTPUT_FILE.to_owned()]);
        for (n, path) in self.outputs.iter().enumerate() {
            self.check_path(path).map_err(|why| invalid(format!("outputs[{n}]"), why))?;
            if is_below_a_file(path) {
                return Err(invalid(format!("outputs[{n}]"), below));
            }
            // A directory is kept as an archive; which it is shows only at the end.
            let archive = format!("{}.tar", output_name(path));
            if !names.insert(output_name(path)) || !names.insert(archive) {
                let why = format!(
                    "among the results it would be called {0} or {0}.tar, as something else there is; give it \
                     another name, or name a directory above it",
                    output_name(path)
                );
                return Err(invalid(format!("outputs[{n}]"), why));
            }
        }
        Ok(())
    }

    /// `run`, or `native` where it needs no container: the kind of work in the name of its class.
    #[must_use]
    pub fn work(&self) -> &'static str {
        if self.image.is_some() { "run" } else { "native" }
    }

    fn check_image(&self) -> Result<(), InvalidRun> {
        let Some(image) = &self.image else {
            if self.user.is_some() {
                return Err(invalid("user", "a native command runs as the worker's user; leave it out"));
            }
            if self.network {
                return Err(invalid("network", "a native command has the node's network; leave it out"));
            }
            return Ok(());
        };
        if !is_reference(image) {
            let why = format!(
                "{} is no name of an image, expected one such as debian:12, in lower case",
                shown(image)
            );
            return Err(invalid("image", why));
        }
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok();
        match &self.user {
            Some(user) if !user.split_once(':').is_some_and(|(u, g)| is_number(u) && is_number(g)) => {
                let why =
                    format!("it is {}, expected <uid>:<gid> in numbers, such as 1000:1000", shown(user));
                Err(invalid("user", why))
            }
            _ => Ok(()),
        }
    }

    fn check_commands(&self) -> Result<(), InvalidRun> {
        if self.commands.is_empty() {
            return Err(invalid("commands", "there is none; give at least one"));
        }
        at_most("commands", self.commands.len(), COMMANDS_MAX, "in one bundle; make more tasks")?;
        let mut all_bytes = 0;
        for (n, command) in self.commands.iter().enumerate() {
            let wrong = |why: String| Err(invalid(format!("commands[{n}]"), why));
            if command.first().is_none_or(String::is_empty) {
                return wrong("it names no program".to_owned());
            }
            if command.iter().any(|argument| argument.contains('\0')) {
                return wrong("an argument holds a NUL character; remove it".to_owned());
            }
            if let Some(long) = command.iter().find(|argument| argument.len() > ARGUMENT_BYTES_MAX) {
                let bytes = long.len();
                return wrong(format!(
                    "an argument has {bytes} bytes, at most {ARGUMENT_BYTES_MAX} fit; put it into an input"
                ));
            }
            let bytes: usize = command.iter().map(|argument| argument.len() + 1).sum();
            if bytes > COMMAND_BYTES_MAX {
                return wrong(format!(
                    "it has {bytes} bytes, at most {COMMAND_BYTES_MAX} fit; put arguments into an input"
                ));
            }
            all_bytes += bytes;
        }
        if all_bytes > COMMANDS_BYTES_MAX {
            let why = format!(
                "all together have {all_bytes} bytes, at most {COMMANDS_BYTES_MAX} fit; make more tasks"
            );
            return Err(invalid("commands", why));
        }
        Ok(())
    }

    fn check_path(&self, path: &str) -> Result<(), String> {
        let is_in_container = self.image.is_some();
        let wanted =
            if is_in_container { "absolute, such as /outputs/x" } else { "relative, such as outputs/x" };
        if path.len() > PATH_BYTES_MAX {
            return Err(format!("it has {} bytes, expected at most {PATH_BYTES_MAX}", path.len()));
        }
        if path.chars().any(char::is_control) {
            return Err(format!("{} holds a control character; rename it", shown(path)));
        }
        let mut parts = Path::new(path).components().peekable();
        let is_absolute = parts.next_if_eq(&Component::RootDir).is_some();
        let is_plain = parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
        if is_absolute != is_in_container || !is_plain || path.ends_with('/') {
            return Err(format!("it is {}, expected a path that is {wanted}, without ..", shown(path)));
        }
        Ok(())
    }
}

/// What an output is called among the results: its path, each character that is awkward there replaced. A directory's
/// archive has `.tar` in addition.
#[must_use]
pub fn output_name(path: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    format!("output.{}", path.trim_start_matches('/').chars().map(plain).collect::<String>())
}

fn check_variable(name: &str, value: &str) -> Result<(), String> {
    let is_legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || !is_legal || name.as_bytes()[0].is_ascii_digit() {
        return Err("it is no name of a variable, expected [A-Za-z_][A-Za-z0-9_]*".to_owned());
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(format!("names that begin with {RESERVED_PREFIX} are the worker's; choose another"));
    }
    if value.contains('\0') {
        return Err("its value holds a NUL character; remove it".to_owned());
    }
    if name.len() + value.len() + 1 > ARGUMENT_BYTES_MAX {
        return Err(format!("it has more than {ARGUMENT_BYTES_MAX} bytes; put it into an input"));
    }
    Ok(())
}

fn at_most(field: &str, count: usize, most: usize, what: &str) -> Result<(), InvalidRun> {
    if count > most {
        return Err(invalid(field, format!("there are {count}, expected at most {most} {what}")));
    }
    Ok(())
}

fn invalid(field: impl Into<String>, why: impl Into<String>) -> InvalidRun {
    InvalidRun { field: field.into(), why: why.into() }
}

/// The beginning of a hostile string, control characters escaped.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(change: impl FnOnce(&mut RunTask)) -> RunTask {
        let mut task = RunTask {
            image: Some("debian:12".to_owned()),
            commands: vec![vec!["true".to_owned()]],
            ..RunTask::default()
        };
        change(&mut task);
        task
    }

    fn input(path: &str) -> InputFile {
        InputFile { path: path.to_owned(), digest: Digest::of(b""), bytes: 0, mode: 0o644 }
    }

    #[test]
    fn refuses_what_cannot_run_and_names_field_and_remedy() {
        let check = |expected: &str, change: &dyn Fn(&mut RunTask)| {
            let checked = task(|task| change(task)).check();
            match checked {
                Ok(()) => assert_eq!(expected, ""),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!expected.is_empty() && error.contains(expected), "{expected:?}: {error}");
                    assert!(!error.contains(char::is_control), "{error:?}");
                }
            }
        };
        check("", &|_| ());
        check("in lower case", &|t| t.image = Some("Debian:12".to_owned()));
        check("\"user\"", &|t| t.user = Some("root".to_owned()));
        check("", &|t| t.user = Some("0:0".to_owned()));
        check("\"user\"", &|t| t.user = Some("+1:0".to_owned()));
        check("\"commands\": there is none", &|t| t.commands.clear());
        check("commands[0]", &|t| t.commands[0].clear());
        check("commands[0]", &|t| t.commands[0][0].clear());
        check("NUL", &|t| t.commands[0].push("a\0b".to_owned()));
        check("put it into an input", &|t| t.commands[0].push("x".repeat(1 << 17)));
        check("put arguments into an input", &|t| t.commands[0] = vec!["x".repeat(100_000); 11]);
        check("make more tasks", &|t| t.commands = vec![vec!["x".repeat(100_000)]; 90]);
        check("at most 1000", &|t| t.commands = vec![vec!["true".to_owned()]; 1001]);
        check("env.\"1A\"", &|t| drop(t.env.insert("1A".to_owned(), String::new())));
        check("env.\"A=\\n\"", &|t| drop(t.env.insert("A=\n".to_owned(), String::new())));
        check("the worker's", &|t| drop(t.env.insert("BOTTEGA_SPOOL".to_owned(), String::new())));
        check("\"env\": all together", &|t| {
            t.env = (0..12).map(|n| (format!("A{n}"), "x".repeat(100_000))).collect();
        });
        check("", &|t| t.outputs = vec!["/a".to_owned(), "/b/c".to_owned()]);
        check("outputs[1]", &|t| t.outputs = vec!["/a/b".to_owned(), "/a_b".to_owned()]);
        for bad in ["", "/", "a", "/a/../b", "/..", "/a/", "/a\nb", &format!("/{}", "x".repeat(200))] {
            check("outputs[0]", &|t| t.outputs = vec![bad.to_owned()]);
            check("inputs[0].path", &|t| t.inputs = vec![input(bad)]);
        }
        check("outputs[0]", &|t| t.outputs = vec!["/log".to_owned()]);
        check("outputs[1]", &|t| t.outputs = vec!["/a".to_owned(), "/a.tar".to_owned()]);
        check("outputs[1]", &|t| t.outputs = vec!["/a.tar".to_owned(), "/a".to_owned()]);
        check("same path", &|t| t.inputs = vec![input("/a"), input("/a")]);
        check("same path", &|t| t.inputs = vec![input("/a/b"), input("/a//b")]);
        check("inputs[0].path\": an input is at a path above", &|t| {
            t.inputs = vec![input("/a/b/c"), input("/a")];
        });
        check("inputs[1].path\": an input is at a path above", &|t| {
            t.inputs = vec![input("/a"), input("/a/b")];
        });
        check("", &|t| t.inputs = vec![input("/a/b"), input("/a/c"), input("/ab")]);
        check("the worker's", &|t| t.inputs = vec![input("/bottega")]);
        check("outputs[0]\": an input is at a path above", &|t| {
            (t.inputs, t.outputs) = (vec![input("/a")], vec!["/a/b".to_owned()]);
        });
        check("", &|t| (t.inputs, t.outputs) = (vec![input("/a")], vec!["/a".to_owned()]));
        check("inputs[0].mode", &|t| t.inputs = vec![InputFile { mode: 0o4755, ..input("/a") }]);
        let native = |t: &mut RunTask| t.image = None;
        check("", &native);
        check("\"user\"", &|t| (native(t), t.user = Some("1:1".to_owned())).0);
        check("\"network\"", &|t| (native(t), t.network = true).0);
        check("relative", &|t| (native(t), t.outputs = vec!["/a".to_owned()]).0);
        check("relative", &|t| (native(t), t.outputs = vec!["../a".to_owned()]).0);
        check("", &|t| (native(t), t.outputs = vec!["a/b".to_owned()]).0);
    }

    #[test]
    fn outputs_have_plain_names() {
        let check = |path: &str, expected: &str| assert_eq!(output_name(path), expected);
        check("/outputs/a.txt", "output.outputs_a.txt");
        check("out/ü x", "output.out___x");
    }
}

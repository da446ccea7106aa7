use std::str::FromStr;

use base_images::PythonVersion;
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, VersionOrUrl};

/// A requirement that holds for the chosen Python: its marker is decided and gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::synthesis) struct Requirement {
    /// The normalised name.
    pub(in crate::synthesis) name: String,
    /// Extras of it.
    pub(in crate::synthesis) extras: Vec<String>,
    /// `>=1,<2`; empty for any version.
    pub(in crate::synthesis) versions: String,
}

/// A line of a requirement file, or an entry of a list of requirements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::synthesis) enum RequirementLine {
    /// A requirement that applies.
    Requirement(Requirement),
    /// One whose marker excludes this Python or this platform.
    NotHere,
    /// The project itself with these extras: `.`, `-e .[test]`.
    Project(Vec<String>),
    /// `-r other.txt`.
    Include(String),
    /// `-c other.txt`.
    Constraints(String),
    /// Something that cannot be installed as of a date: a URL, a path.
    Foreign(String),
    /// Blank, a comment, an option.
    Nothing,
}

/// The name as indexes compare it.
pub(in crate::synthesis) fn normalise(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.trim().chars() {
        match c {
            '-' | '_' | '.' => {
                if !normal.ends_with('-') {
                    normal.push('-');
                }
            }
            c => normal.extend(c.to_lowercase()),
        }
    }
    normal
}

/// What markers are decided by: CPython of this version on Linux.
fn marker_environment(python: PythonVersion) -> Option<MarkerEnvironment> {
    let short = python.to_string();
    let full = format!("{short}.0");
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: "x86_64",
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &short,
        sys_platform: if python.major() == 2 { "linux2" } else { "linux" },
    })
    .ok()
}

impl RequirementLine {
    /// Reads one line for this Python.
    pub(in crate::synthesis) fn parse(line: &str, python: PythonVersion) -> Self {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let quoted = ['"', '\''].into_iter().find_map(|q| line.strip_prefix(q)?.strip_suffix(q));
        let line = quoted.unwrap_or(line);
        let line = line.split(" --").next().unwrap_or_default().trim_end_matches('\\').trim();
        if line.is_empty() || line.starts_with('#') {
            return Self::Nothing;
        }
        for (options, make) in [
            (["-r", "--requirement"], Self::Include as fn(String) -> Self),
            (["-c", "--constraint"], Self::Constraints as fn(String) -> Self),
        ] {
            if let Some(path) = options.iter().find_map(|option| option_value(line, option)) {
                return make(path.to_owned());
            }
        }
        let path = ["-e", "--editable"].iter().find_map(|option| option_value(line, option)).unwrap_or(line);
        if path.starts_with('.') || path.starts_with("{toxinidir}") {
            let own = path.trim_start_matches("{toxinidir}").trim_start_matches(['.', '/']);
            let extras = own.strip_prefix('[').and_then(|e| e.strip_suffix(']'));
            let extras = extras.map(|e| e.split(',').map(normalise).collect());
            return match (own, extras) {
                ("", _) => Self::Project(Vec::new()),
                (_, Some(extras)) => Self::Project(extras),
                _ => Self::Foreign(path.to_owned()),
            };
        }
        if line.starts_with('-') {
            return Self::Nothing;
        }
        if path.contains("://") && !path.contains('@') || path.starts_with("git+") || path.starts_with('/') {
            return Self::Foreign(path.to_owned());
        }
        Self::requirement(path, python)
    }

    fn requirement(text: &str, python: PythonVersion) -> Self {
        match pep508_rs::Requirement::<pep508_rs::VerbatimUrl>::from_str(text) {
            Ok(found) => {
                let applies = marker_environment(python).is_none_or(|env| found.evaluate_markers(&env, &[]));
                let versions = match &found.version_or_url {
                    None => String::new(),
                    Some(VersionOrUrl::VersionSpecifier(versions)) => {
                        versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
                    }
                    Some(VersionOrUrl::Url(_)) => return Self::Foreign(text.to_owned()),
                };
                if !applies {
                    return Self::NotHere;
                }
                let extras = found.extras.iter().map(ToString::to_string).collect();
                Self::Requirement(Requirement { name: found.name.to_string(), extras, versions })
            }
            // Old files hold versions that no standard allows any more: the name is still worth having.
            Err(_) => match leading_name(text) {
                Some(name) => Self::Requirement(Requirement::any(&name)),
                None => Self::Nothing,
            },
        }
    }
}

impl Requirement {
    /// Any version of a distribution.
    pub(in crate::synthesis) fn any(name: &str) -> Self {
        Self { name: normalise(name), extras: Vec::new(), versions: String::new() }
    }

    /// As pip writes it; holds no blank, quote or shell character but `<>*!~`.
    pub(in crate::synthesis) fn text(&self) -> String {
        let extras =
            if self.extras.is_empty() { String::new() } else { format!("[{}]", self.extras.join(",")) };
        let versions: String = self.versions.chars().filter(|c| !c.is_whitespace()).collect();
        format!("{}{extras}{versions}", self.name)
    }
}

fn option_value<'a>(line: &'a str, option: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(option)?;
    let value = rest.trim_start_matches(['=', ' ', '\t']);
    (!value.is_empty() && (value.len() < rest.len() || !option.starts_with("--"))).then_some(value)
}

fn leading_name(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(text.len());
    let name = text[..end].trim_end_matches(['.', '-', '_']);
    let rest = text[end..].trim_start();
    let looks_like_one = rest.is_empty() || rest.starts_with(['<', '>', '=', '!', '~', '[', ';', '(']);
    (looks_like_one && name.starts_with(|c: char| c.is_ascii_alphanumeric())).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_line() {
        let check = |line: &str, expected: &str| {
            let found = match RequirementLine::parse(line, PythonVersion::new(3, 8)) {
                RequirementLine::Requirement(requirement) => requirement.text(),
                other => format!("{other:?}"),
            };
            assert_eq!(found, expected, "{line:?}");
        };
        check("pytest", "pytest");
        check("PyTest_Mock >= 1.0, <2  # why", "pytest-mock>=1.0,<2");
        check("'requests[socks]==2.*'", "requests[socks]==2.*");
        check("mock; python_version < '3'", "NotHere");
        check("tomli>=1; python_version < '3.11'", "tomli>=1");
        check("pywin32; sys_platform == 'win32'", "NotHere");
        check("pytest==7.0.0 --hash=sha256:abc \\", "pytest==7.0.0");
        check("pytest (>=3)", "pytest>=3");
        check("pytest>=3.0.*x", "pytest");
        check("-r base.txt", "Include(\"base.txt\")");
        check("-rbase.txt", "Include(\"base.txt\")");
        check("--requirement=base.txt", "Include(\"base.txt\")");
        check("-c constraints.txt", "Constraints(\"constraints.txt\")");
        check("-e .", "Project([])");
        check("-e .[Test,dev_x]", "Project([\"test\", \"dev-x\"])");
        check(".[tests]", "Project([\"tests\"])");
        check("-e ./sub", "Foreign(\"./sub\")");
        check("git+https://host/x.git#egg=x", "Foreign(\"git+https://host/x.git#egg=x\")");
        check("x @ https://host/x.zip", "Foreign(\"x @ https://host/x.zip\")");
        check("--index-url https://host", "Nothing");
        check("# note", "Nothing");
        check("coverage run -m pytest", "Nothing");
        check("$(rm -rf /)", "Nothing");
    }

    #[test]
    fn normalises_names_as_indexes_do() {
        assert_eq!(normalise("Foo._-Bar"), "foo-bar");
    }
}

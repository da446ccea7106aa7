use serde::{Deserialize, Serialize};

use crate::{Class, Instance, InvalidInstance, InvalidRun, RunTask, TaskId};

/// The largest task file that is read, in bytes; patches of thousands of lines fit.
pub const TASK_FILE_BYTES_MAX: u64 = 64 << 20;

/// The version of task files that this crate writes. 1: first.
const FORMAT: u32 = 1;

/// One task: the content of a task file, immutable after publishing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The version of this file's format.
    pub format: u32,
    /// Which task; equals the id in the file's name.
    pub id: TaskId,
    /// 0 (first) … 9.
    #[serde(default = "middle")]
    pub priority: u8,
    /// What it may use; unset values are the slot's.
    #[serde(default)]
    pub resources: Resources,
    /// What is to be done.
    #[serde(flatten)]
    pub work: Work,
}

/// What a task asks for. `rollout` and `grade` join here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// Build and verify the environment of a pull request.
    Build(Box<BuildTask>),
    /// Run commands, whatever they are.
    Run(RunTask),
}

/// A pull request and where its repository is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildTask {
    /// Path or URL of the bare repository, any template already filled in.
    pub repository: String,
    /// The row.
    pub instance: Instance,
}

/// Limits of one task; `None` means the slot's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPUs, as nproc counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Memory without swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Wall time: of one run of the tests, or of all commands of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// Why a task file is not valid.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSpec {
    /// Not the JSON of a task.
    #[error("not a task: {0}; mend the file")]
    Json(#[from] serde_json::Error),
    /// Written by a newer Bottega.
    #[error("field \"format\": it is {0}, expected {FORMAT}; a higher one asks for a newer Bottega")]
    Format(u32),
    /// The name and the content disagree.
    #[error("field \"id\": it is {inside}, but the file is called {outside}; rename one of them")]
    Name {
        /// In the file.
        inside: TaskId,
        /// In its name.
        outside: TaskId,
    },
    /// A field of the instance.
    #[error("instance, {0}")]
    Instance(#[from] InvalidInstance),
    /// Not a priority.
    #[error("field \"priority\": it is {0}, expected 0 to 9")]
    Priority(u8),
    /// A limit that no node can keep.
    #[error("field \"resources.{field}\": it is {value}, expected {from} to {to}")]
    Resources {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The least.
        from: u64,
        /// The most.
        to: u64,
    },
    /// The repository is missing.
    #[error("field \"repository\": it is empty; name a path or a URL")]
    Repository,
    /// A field of a run.
    #[error(transparent)]
    Run(#[from] InvalidRun),
}

impl TaskSpec {
    /// A build task with the middle priority and the slot's resources.
    ///
    /// # Errors
    /// The first field of the instance that is not valid.
    pub fn build(instance: Instance, repository: String) -> Result<Self, InvalidInstance> {
        let id = instance.validate()?;
        let work = Work::Build(Box::new(BuildTask { repository, instance }));
        Ok(Self { format: FORMAT, id, priority: middle(), resources: Resources::default(), work })
    }

    /// A task that runs commands.
    ///
    /// # Errors
    /// The first field that is not valid.
    pub fn run(id: TaskId, priority: u8, resources: Resources, task: RunTask) -> Result<Self, InvalidSpec> {
        let spec = Self { format: FORMAT, id, priority, resources, work: Work::Run(task) };
        spec.check()?;
        Ok(spec)
    }

    /// Reads and checks a task file's content; `id` is the one in its name.
    ///
    /// # Errors
    /// What is wrong with the first field that is.
    pub fn parse(bytes: &[u8], id: &TaskId) -> Result<Self, InvalidSpec> {
        let spec: Self = serde_json::from_slice(bytes)?;
        if spec.format > FORMAT {
            return Err(InvalidSpec::Format(spec.format));
        }
        if spec.id != *id {
            return Err(InvalidSpec::Name { inside: spec.id, outside: id.clone() });
        }
        spec.check()?;
        Ok(spec)
    }

    /// The directory it belongs to.
    #[must_use]
    pub fn class(&self) -> Class {
        match &self.work {
            Work::Build(_) => Class { priority: self.priority, kind: "build".to_owned() },
            Work::Run(run) => Class::shaped(self.priority, run.work(), &self.resources),
        }
    }

    fn check(&self) -> Result<(), InvalidSpec> {
        if self.priority > 9 {
            return Err(InvalidSpec::Priority(self.priority));
        }
        self.resources.check()?;
        match &self.work {
            Work::Build(build) => {
                build.instance.validate()?;
                if build.repository.trim().is_empty() {
                    return Err(InvalidSpec::Repository);
                }
            }
            Work::Run(run) => run.check()?,
        }
        Ok(())
    }
}

impl Resources {
    /// A week, a petabyte, 4096 cores: more is a mistake, and less than the least is no container.
    fn check(&self) -> Result<(), InvalidSpec> {
        let within = |field, value: Option<u64>, from, to| match value {
            Some(value) if !(from..=to).contains(&value) => {
                Err(InvalidSpec::Resources { field, value, from, to })
            }
            _ => Ok(()),
        };
        within("cores", self.cores.map(u64::from), 1, 4096)?;
        within("memory_bytes", self.memory_bytes, 64 << 20, 1 << 50)?;
        within("timeout_seconds", self.timeout_seconds, 1, 7 * 24 * 3600)
    }
}

fn middle() -> u8 {
    5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_limits_that_no_node_can_keep() {
        let check = |field: &str, value: u64, is_legal: bool| {
            let task = serde_json::json!({
                "format": 1, "id": "x", "kind": "build", "repository": "/m", "resources": { field: value },
                "instance": {
                    "instance_id": "x", "repo": "a/b", "base_commit": "0".repeat(40), "problem_statement": "broken",
                    "patch": "diff", "test_patch": "diff",
                },
            });
            let bytes = serde_json::to_vec(&task).expect("JSON");
            let parsed = TaskSpec::parse(&bytes, &"x".parse().expect("an id"));
            assert_eq!(parsed.is_ok(), is_legal, "{field} {value}: {parsed:?}");
            if let Err(error) = parsed {
                assert!(error.to_string().contains(field), "{error}");
            }
        };
        check("timeout_seconds", 600, true);
        check("timeout_seconds", 0, false);
        check("timeout_seconds", u64::MAX, false);
        check("memory_bytes", 8 << 30, true);
        check("memory_bytes", 0, false);
        check("memory_bytes", 1, false);
        check("cores", 64, true);
        check("cores", 0, false);
    }

    #[test]
    fn reads_runs_and_names_what_it_does_not_know() {
        let check = |more: &str, expected: Result<&str, &str>| {
            let text = format!(r#"{{"format": 1, "id": "x", "kind": "run", "commands": [["true"]]{more}}}"#);
            match (TaskSpec::parse(text.as_bytes(), &"x".parse().expect("an id")), expected) {
                (Ok(spec), Ok(class)) => {
                    assert_eq!(spec.class().to_string(), class);
                    let bytes = serde_json::to_vec(&spec).expect("JSON");
                    assert_eq!(TaskSpec::parse(&bytes, &spec.id).expect("as written"), spec);
                }
                (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{error}"),
                (got, _) => panic!("{more}: {got:?}"),
            }
        };
        check("", Ok("5-native"));
        check(r#", "image": "a""#, Ok("5-run"));
        check(
            r#", "image": "a", "resources": {"cores": 2, "memory_bytes": 4294967296}"#,
            Ok("5-run-2c-4096m"),
        );
        check(r#", "image": "a", "priority": 0, "outputs": ["/a"], "network": true"#, Ok("0-run"));
        check(r#", "imgae": "a""#, Err("imgae"));
        check(r#", "image": "a", "outputs": ["a"]"#, Err("outputs[0]"));
        check(r#", "inputs": [{"path": "a", "digest": "xy", "bytes": 1, "mode": 420}]"#, Err("BLAKE3"));
        check(r#", "priority": 10"#, Err("priority"));
    }
}

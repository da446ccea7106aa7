use std::io::Read;

use queue_format::{InvalidSpec, Resources, RunTask, TaskId, TaskSpec};

use super::{Items, LineError};

/// Stands for an item in a command.
const PLACEHOLDER: &str = "{}";

/// Digits of a number in an id; larger numbers have more.
const NUMBER_DIGITS: usize = 6;

/// What all tasks of one `bottega run` have in common.
#[derive(Clone, Debug)]
pub struct Template {
    /// The id of a single task; that of an array's is followed by a number.
    pub name: TaskId,
    /// 0 (first) … 9.
    pub priority: u8,
    /// What each may use.
    pub resources: Resources,
    /// The task; its one command is that of each item.
    pub task: RunTask,
}

/// The tasks of one `bottega run`, made one by one.
pub struct Plan<'a> {
    template: Template,
    items: Option<Items<Box<dyn Read + 'a>>>,
    bundle: usize,
    tasks: u64,
    commands: u64,
    is_over: bool,
}

/// Why a task cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The array.
    #[error("--array: {0}")]
    Array(#[from] LineError),
    /// A field of the task.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// An id is too long.
    #[error("--name: {0}")]
    Id(#[from] queue_format::InvalidId),
}

impl<'a> Plan<'a> {
    /// One task.
    #[must_use]
    pub fn single(template: Template) -> Self {
        Self { template, items: None, bundle: 1, tasks: 0, commands: 0, is_over: false }
    }

    /// A command for each line of `input`, `bundle` of them a task.
    pub fn array(template: Template, input: Box<dyn Read + 'a>, bundle: usize) -> Self {
        Self { items: Some(Items::of(input)), bundle: bundle.max(1), ..Self::single(template) }
    }

    /// Whether tasks have numbers.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.items.is_some()
    }

    /// The tasks' common name.
    #[must_use]
    pub fn name(&self) -> &TaskId {
        &self.template.name
    }

    fn next_task(&mut self) -> Result<Option<TaskSpec>, PlanError> {
        let Template { name, priority, resources, task } = &self.template;
        let (id, task) = match &mut self.items {
            None if self.tasks > 0 => return Ok(None),
            None => (name.clone(), task.clone()),
            Some(items) => {
                let items: Vec<String> = items.by_ref().take(self.bundle).collect::<Result<_, _>>()?;
                if items.is_empty() {
                    return Ok(None);
                }
                let id = numbered(name, self.tasks + 1)?;
                let command = task.commands.first().map(Vec::as_slice).unwrap_or_default();
                let commands = items.iter().map(|item| fill(command, item)).collect();
                (id, RunTask { commands, array_index: Some(self.commands + 1), ..task.clone() })
            }
        };
        self.tasks += 1;
        self.commands += task.commands.len() as u64;
        Ok(Some(TaskSpec::run(id, *priority, resources.clone(), task)?))
    }
}

impl Iterator for Plan<'_> {
    type Item = Result<TaskSpec, PlanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_task().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The id of an array's task; numbers begin with 1.
fn numbered(name: &TaskId, number: u64) -> Result<TaskId, queue_format::InvalidId> {
    format!("{name}-{number:0NUMBER_DIGITS$}").parse()
}

/// The number of a task of the array `name`.
pub(super) fn number_of(name: &TaskId, id: &TaskId) -> Option<u64> {
    let digits = id.as_str().strip_prefix(name.as_str())?.strip_prefix('-')?;
    let is_number = digits.len() >= NUMBER_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| is_number && *number > 0)
}

/// A command with an item in the place of each `{}`, else at its end.
fn fill(command: &[String], item: &str) -> Vec<String> {
    if command.iter().any(|word| word.contains(PLACEHOLDER)) {
        return command.iter().map(|word| word.replace(PLACEHOLDER, item)).collect();
    }
    command.iter().cloned().chain([item.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use queue_format::Work;

    use super::*;

    fn template(command: &[&str]) -> Template {
        let commands = vec![command.iter().map(|&word| word.to_owned()).collect()];
        Template {
            name: "x".parse().expect("an id"),
            priority: 5,
            resources: Resources::default(),
            task: RunTask { commands, ..RunTask::default() },
        }
    }

    #[test]
    fn items_become_commands_and_bundles_tasks() {
        let check = |command: &[&str], bundle: usize, expected: &[(&str, u64, &str)]| {
            let plan = Plan::array(template(command), Box::new(b"a\nb{}\nc\n".as_slice()), bundle);
            let tasks: Vec<TaskSpec> = plan.collect::<Result<_, _>>().expect("valid");
            let got: Vec<(String, u64, String)> = tasks
                .into_iter()
                .map(|task| {
                    let Work::Run(run) = task.work else { panic!("a run") };
                    let commands: Vec<String> = run.commands.iter().map(|words| words.join(" ")).collect();
                    (task.id.to_string(), run.array_index.expect("an index"), commands.join("; "))
                })
                .collect();
            let expected: Vec<_> =
                expected.iter().map(|&(id, n, text)| (id.to_owned(), n, text.to_owned())).collect();
            assert_eq!(got, expected);
        };
        check(
            &["echo"],
            1,
            &[("x-000001", 1, "echo a"), ("x-000002", 2, "echo b{}"), ("x-000003", 3, "echo c")],
        );
        check(
            &["cp", "/{}/x", "{}"],
            2,
            &[("x-000001", 1, "cp /a/x a; cp /b{}/x b{}"), ("x-000002", 3, "cp /c/x c")],
        );
        let single: Vec<_> = Plan::single(template(&["echo", "{}"])).collect();
        assert_eq!(single.len(), 1);
        assert_eq!(single[0].as_ref().expect("valid").id.as_str(), "x");
    }

    #[test]
    fn an_arrays_tasks_are_known_by_their_number() {
        let name: TaskId = "x-1".parse().expect("an id");
        for (id, expected) in [
            ("x-1-000001", Some(1)),
            ("x-1-1234567", Some(1_234_567)),
            ("x-1", None),
            ("x-1-1", None),
            ("x-1-000000", None),
            ("x-1-00000a", None),
            ("x-10-000001", None),
        ] {
            assert_eq!(number_of(&name, &id.parse().expect("an id")), expected, "{id}");
        }
    }
}

//! Whose fault a failed build is: the task's, or the node's. One that is taken for the task's by mistake is a wrong
//! verdict; one that is taken for the node's is only tried again.

use crate::engine::{EngineError, program_status};

/// What the engine says when a step of the Dockerfile, not the engine, has failed; lower case.
const TASKS_SENTENCES: [&str; 27] = [
    "copy failed",
    "checking on sources",
    "destination must be a directory",
    "forbidden path outside the build context",
    "parse error",
    "failed to parse dockerfile",
    "failed to process",
    "missing ':' in substitution",
    "unsupported modifier",
    "unknown instruction",
    "unknown flag",
    "must be of the form",
    "must have two arguments",
    "names can not be blank",
    "requires at least",
    "requires exactly",
    "requires the arguments to be in json form",
    "invalid from flag value",
    "max depth exceeded",
    "unable to find user",
    "unable to find group",
    "can't find uid",
    "can't find gid",
    "looking up uid/gid",
    "uids and gids must be in range",
    "not a directory",
    "chdir to cwd",
];

/// The same of a command that ran: the sentence repeats its text, in which anything may stand.
const ENDED_COMMANDS: [&str; 2] = ["returned a non-zero code", "running runtime: exit status"];

/// What only a node without disk or network prints; the newest lines are looked at.
const NODES_LINES: [&str; 8] = [
    "no space left on device",
    "disk quota exceeded",
    "temporary failure in name resolution",
    "temporary failure resolving",
    "network is unreachable",
    "no route to host",
    "dns error",
    "tcp connect error",
];

/// How far back from its end a log is looked at.
const LINES_MAX: usize = 40;

/// What shows that a build's failure tells nothing of its task: the engine's own sentence, or a line of the log, which
/// anybody may print; `None` where the task is at fault.
pub(super) fn beyond_the_task(sentence: &str, log: &str) -> Option<EngineError> {
    let has = |text: &str, marks: &[&str]| {
        let text = text.to_ascii_lowercase();
        marks.iter().any(|mark| text.contains(mark))
    };
    let is_commands = has(sentence, &ENDED_COMMANDS);
    let is_tasks = has(sentence, &TASKS_SENTENCES) || program_status(sentence).is_some();
    if !is_commands && (has(sentence, &NODES_LINES) || !is_tasks) {
        return Some(EngineError::Failed { action: "build", detail: sentence.to_owned() });
    }
    let line = log.lines().rev().take(LINES_MAX).find(|line| has(line, &NODES_LINES))?;
    Some(EngineError::Lacking { said: line.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_tasks_fault_from_the_nodes() {
        let step = "The command '/bin/sh -c pip install .' returned a non-zero code: 1";
        let check = |sentence: &str, log: &str, expected: &str| {
            let whose = match beyond_the_task(sentence, log) {
                None => "task",
                Some(EngineError::Lacking { .. }) => "log",
                Some(_) => "node",
            };
            assert_eq!(whose, expected, "{sentence:?} {log:?}");
        };
        check(step, "error: subprocess-exited-with-error", "task");
        check(step, "× No solution found when resolving dependencies:", "task");
        check(step, "OSError: [Errno 28] No space left on device\nerror: failed", "log");
        check(step, "  Caused by: dns error: failed to lookup address information\nhint: try again", "log");
        let started = "OCI runtime create failed: container_linux.go:367: starting container process caused";
        let shell =
            format!("{started}: exec: \"/bin/zsh\": stat /bin/zsh: no such file or directory: unknown");
        let program = format!("{started}: exec: \"pipx\": executable file not found in $PATH: unknown");
        for of_task in [
            "COPY failed: file not found in build context",
            "dockerfile parse error line 3: unknown instruction: RUNN",
            "The command '/bin/sh -c echo no route to host; false' returned a non-zero code: 1",
            "building at STEP \"RUN no route to host\": while running runtime: exit status 1",
            "building at STEP \"RUN false\": while running runtime: exit status 1",
            "unable to find user appuser: no matching entries in passwd file",
            "unable to convert uid/gid chown string to host mapping: can't find uid for user app",
            "Cannot mkdir: /etc/passwd is not a directory",
            "failed to process \"${B\": missing ':' in substitution",
            "failed to parse Dockerfile: ENV must have two arguments",
            "failed to parse Dockerfile: Syntax error - can't find = in \"B\". Must be of the form: name=value",
            "uids and gids must be in range 0-2147483647",
            "failed to copy files: lstat /var/lib/docker/overlay2/0/merged/etc/passwd/x: not a directory",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
            &shell,
            &program,
        ] {
            check(of_task, "", "task");
        }
        let group = format!("{started}: open /sys/fs/cgroup/x: no such file or directory: unknown");
        for of_node in [
            "failed to create endpoint x on network bridge: could not find bridge docker0",
            "failed to register layer: Error processing tar file: no space left on device",
            "OCI runtime create failed: exec: \"runc\": executable file not found in $PATH: unknown",
            "OCI runtime create failed: runc create failed",
            "OCI runtime create failed: runc did not terminate successfully: exit status 2: unknown",
            &group,
        ] {
            check(of_node, "", "node");
        }
    }
}

//! Whose fault a failed build is: the task's, or the node's. One that is taken for the task's by mistake is a wrong
//! verdict; one that is taken for the node's is only tried again.

use crate::engine::EngineError;

/// What the engine says when a step of the Dockerfile, not the engine, has failed; lower case.
const TASKS_SENTENCES: [&str; 6] = [
    "returned a non-zero code",
    "running runtime: exit status",
    "copy failed",
    "add failed",
    "parse error",
    "unknown instruction",
];

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
    if has(sentence, &NODES_LINES) || !has(sentence, &TASKS_SENTENCES) {
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
        check("COPY failed: file not found in build context", "", "task");
        check("dockerfile parse error line 3: unknown instruction: RUNN", "", "task");
        check(step, "OSError: [Errno 28] No space left on device\nerror: failed", "log");
        check(step, "  Caused by: dns error: failed to lookup address information\nhint: try again", "log");
        check("failed to create endpoint x on network bridge: could not find bridge docker0", "", "node");
        check("OCI runtime create failed: runc create failed", "", "node");
        check(
            "OCI runtime create failed: runc did not terminate successfully: exit status 2: unknown",
            "",
            "node",
        );
        check("building at STEP \"RUN false\": while running runtime: exit status 1", "", "task");
        check("failed to register layer: Error processing tar file: no space left on device", "", "node");
    }
}

//! Whose fault a failed build is: the task's, or the node's. One that is taken for the task's by mistake is a wrong
//! verdict; one that is taken for the node's is only tried again.

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

/// The line that shows the node to be at fault; `None` where the task is.
pub(super) fn of_node(sentence: &str, log: &str) -> Option<String> {
    let has = |text: &str, marks: &[&str]| {
        let text = text.to_ascii_lowercase();
        marks.iter().any(|mark| text.contains(mark))
    };
    if has(sentence, &NODES_LINES) || !has(sentence, &TASKS_SENTENCES) {
        return Some(sentence.to_owned());
    }
    log.lines().rev().take(LINES_MAX).find(|line| has(line, &NODES_LINES)).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_tasks_fault_from_the_nodes() {
        let step = "The command '/bin/sh -c pip install .' returned a non-zero code: 1";
        let check = |sentence: &str, log: &str, node: bool| {
            assert_eq!(of_node(sentence, log).is_some(), node, "{sentence:?} {log:?}");
        };
        check(step, "error: subprocess-exited-with-error", false);
        check(step, "× No solution found when resolving dependencies:", false);
        check("COPY failed: file not found in build context", "", false);
        check("dockerfile parse error line 3: unknown instruction: RUNN", "", false);
        check(step, "OSError: [Errno 28] No space left on device\nerror: failed", true);
        check(step, "  Caused by: dns error: failed to lookup address information\nhint: try again", true);
        check("failed to create endpoint x on network bridge: could not find bridge docker0", "", true);
        check("OCI runtime create failed: runc create failed", "", true);
        check(
            "OCI runtime create failed: runc did not terminate successfully: exit status 2: unknown",
            "",
            true,
        );
        check("building at STEP \"RUN false\": while running runtime: exit status 1", "", false);
        check("failed to register layer: Error processing tar file: no space left on device", "", true);
    }
}

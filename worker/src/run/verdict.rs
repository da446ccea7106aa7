use queue_format::{FailureReason, Verdict};

use super::job::Ran;
use crate::attempt::last_lines;
use crate::engine::{ContainerEnd, Output};

/// What a shell says of a program that is not there.
const STATUS_NOT_FOUND: i64 = 127;

/// Done is what ended with status 0, every command of it, and left its outputs.
pub(super) fn of(ran: &Ran, timeout_seconds: u64) -> Verdict {
    let log = last_lines(&ran.log);
    let which = running(ran);
    match ran.end {
        ContainerEnd::TimedOut => {
            let detail = format!("{which}did not end within {timeout_seconds} s");
            return Verdict::failed(FailureReason::Timeout, detail, log);
        }
        ContainerEnd::OutOfMemory => {
            let detail = "a process was killed at the memory limit".to_owned();
            return Verdict::failed(FailureReason::OutOfMemory, detail, log);
        }
        ContainerEnd::DiskFull => {
            let detail = "it was killed at its disk limit ([worker] slot_disk_gib)".to_owned();
            return Verdict::failed(FailureReason::Exit, detail, log);
        }
        ContainerEnd::Exited(_) => {}
    }
    if let Some(detail) = unsuccessful(ran) {
        return Verdict::failed(FailureReason::Exit, detail, log);
    }
    let missing = ran.outputs.iter().find_map(|(path, output)| match output {
        Output::None(why) => Some(format!("{path}: {why}")),
        Output::File(_) | Output::Directory(_) => None,
    });
    match missing {
        Some(detail) => Verdict::failed(FailureReason::Output, detail, log),
        None => Verdict::Completed,
    }
}

fn unsuccessful(ran: &Ran) -> Option<String> {
    let failed = ran.commands.iter().filter(|command| command.status != Some(0)).count();
    let (n, first) = ran.commands.iter().enumerate().find(|(_, command)| command.status != Some(0))?;
    let how = first.status.map_or_else(|| "it never ended".to_owned(), |status| format!("status {status}"));
    Some(match (ran.commands.len(), ran.end) {
        (1, _) => how,
        (_, ContainerEnd::Exited(STATUS_NOT_FOUND)) if n == 0 && first.status.is_none() => {
            "the image has no /bin/sh, which a bundle of commands needs: use --bundle 1".to_owned()
        }
        (count, _) => {
            format!("{failed} of {count} commands failed, first number {}: {how}; see commands.json", n + 1)
        }
    })
}

/// Of a bundle, which command was at work when it was ended.
fn running(ran: &Ran) -> String {
    let ended = ran.commands.iter().take_while(|command| command.status.is_some()).count();
    match ran.commands.len() {
        0 | 1 => "it ".to_owned(),
        count => format!("the bundle (at command {} of {count}) ", (ended + 1).min(count)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use queue_format::CommandRecord;

    use super::*;

    #[test]
    fn only_what_ended_well_and_left_its_outputs_is_done() {
        use ContainerEnd::{DiskFull, Exited, OutOfMemory, TimedOut};
        let check = |end, statuses: &[Option<i32>], output: Option<Output>, expected: &str| {
            let record = |&status| CommandRecord { status, seconds: None };
            let ran = Ran {
                end,
                commands: statuses.iter().map(record).collect(),
                log: "last\n\n".to_owned(),
                peak_memory_bytes: None,
                outputs: output
                    .map(|output| ("/out".to_owned(), output))
                    .into_iter()
                    .collect::<BTreeMap<_, _>>(),
                node: None,
                notes: Vec::new(),
            };
            let got = match of(&ran, 60) {
                Verdict::Failed { reason, detail, log, .. } => {
                    assert_eq!(log, ["last"]);
                    format!("{reason}: {detail}")
                }
                other => format!("{other:?}"),
            };
            assert_eq!(got, expected);
        };
        let none = || Some(Output::None("it is not there".to_owned()));
        check(Exited(0), &[Some(0)], None, "Completed");
        check(Exited(0), &[Some(0), Some(0)], Some(Output::File(Vec::new())), "Completed");
        check(Exited(0), &[Some(0)], none(), "output: /out: it is not there");
        check(Exited(3), &[Some(3)], none(), "exit: status 3");
        let bundle = "exit: 2 of 3 commands failed, first number 2: status 4; see commands.json";
        check(Exited(0), &[Some(0), Some(4), Some(5)], None, bundle);
        let cut = "exit: 1 of 2 commands failed, first number 2: it never ended; see commands.json";
        check(Exited(137), &[Some(0), None], None, cut);
        let shell = "exit: the image has no /bin/sh, which a bundle of commands needs: use --bundle 1";
        check(Exited(127), &[None, None], None, shell);
        check(TimedOut, &[None], None, "timeout: it did not end within 60 s");
        check(
            TimedOut,
            &[Some(0), None],
            None,
            "timeout: the bundle (at command 2 of 2) did not end within 60 s",
        );
        check(OutOfMemory, &[Some(137)], None, "out-of-memory: a process was killed at the memory limit");
        check(DiskFull, &[None], None, "exit: it was killed at its disk limit ([worker] slot_disk_gib)");
    }
}

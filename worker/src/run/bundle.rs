//! Several commands in one container: a script that runs one after another and writes down how each ended.

use std::fmt::Write;

use queue_format::{CommandRecord, RunTask};

use crate::engine::{Content, FileIn};

/// The script; its directory belongs to the container's user.
const SCRIPT_PATH: &str = "/bottega/bundle.sh";
/// Where it writes, a line for each command that has ended.
pub(super) const STATUS_PATH: &str = "/bottega/commands";
/// The most that is read of that.
pub(super) const STATUS_BYTES_MAX: usize = 1 << 20;

/// The variable that tells a command its place in an array.
pub(super) const INDEX_VARIABLE: &str = "BOTTEGA_ARRAY_INDEX";

/// The command of the container.
pub(super) fn command() -> Vec<String> {
    ["/bin/sh", SCRIPT_PATH].map(str::to_owned).into()
}

/// The file that it expects.
pub(super) fn file(task: &RunTask) -> FileIn {
    FileIn { path: SCRIPT_PATH.to_owned(), mode: 0o644, content: Content::Bytes(script(task).into_bytes()) }
}

fn script(task: &RunTask) -> String {
    let mut script = format!("exec 3>{STATUS_PATH} || exit 125\n");
    for (n, command) in task.commands.iter().enumerate() {
        let words: Vec<String> =
            command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        if let Some(index) = index_of(task, n) {
            let _ = writeln!(script, "{INDEX_VARIABLE}={index}; export {INDEX_VARIABLE}");
        }
        // In a shell of its own and by exec: nothing of it is a word of the shell's.
        let _ = writeln!(
            script,
            "read -r began rest </proc/uptime; (exec 3>&-; exec {}); status=$?\n\
             read -r ended rest </proc/uptime; echo \"$status $began $ended\" >&3",
            words.join(" ")
        );
    }
    script.push_str("exit 0\n");
    script
}

/// The place in its array of a task's command number `n`.
pub(super) fn index_of(task: &RunTask, n: usize) -> Option<u64> {
    task.array_index.map(|first| first.saturating_add(n as u64))
}

/// What became of each of `count` commands; the last one begun has no line where it was killed with its container.
pub(super) fn records(written: &[u8], count: usize) -> Vec<CommandRecord> {
    let text = String::from_utf8_lossy(written);
    let lines = text.split_inclusive('\n').map_while(|line| line.strip_suffix('\n'));
    let mut records: Vec<CommandRecord> = lines.map_while(record).take(count).collect();
    records.resize(count, CommandRecord { status: None, seconds: None });
    records
}

fn record(line: &str) -> Option<CommandRecord> {
    let mut words = line.split(' ');
    let status = words.next()?.parse().ok()?;
    let (began, ended): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(CommandRecord { status: Some(status), seconds: Some(((ended - began) * 100.0).round() / 100.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_each_command_ended() {
        let ended = |status, seconds| CommandRecord { status: Some(status), seconds: Some(seconds) };
        let never = CommandRecord { status: None, seconds: None };
        let check = |written: &str, expected: &[CommandRecord]| {
            assert_eq!(records(written.as_bytes(), expected.len()), expected, "{written:?}");
        };
        check("0 10.00 10.50\n3 10.50 12.00\n", &[ended(0, 0.5), ended(3, 1.5)]);
        check("0 10.00 10.50\n3 10.50 12", &[ended(0, 0.5), never.clone()]);
        check("", &[never.clone(), never.clone()]);
        check("x\n0 1.0 1.0", &[never.clone(), never]);
        check("0 1.0 2.0\n0 2.0 2.0\n0 2.0 2.0\n", &[ended(0, 1.0)]);
    }

    #[test]
    fn a_shell_runs_each_command_as_it_is_written() {
        let task = RunTask {
            commands: [
                vec!["printf", "%s|", "it's", "$HOME", "a b"],
                vec!["false"],
                vec!["nowhere"],
                vec!["sh", "-c", "exit 7"],
            ]
            .map(|command| command.into_iter().map(str::to_owned).collect())
            .into(),
            array_index: Some(41),
            ..RunTask::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("commands");
        let script = script(&task).replace(STATUS_PATH, &status.display().to_string());
        let ran = std::process::Command::new("/bin/sh").arg("-c").arg(script).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "it's|$HOME|a b|");
        let ended = records(&std::fs::read(status).unwrap(), 4);
        assert_eq!(ended.iter().map(|record| record.status).collect::<Vec<_>>(), [0, 1, 127, 7].map(Some));
        assert!(super::script(&task).contains("BOTTEGA_ARRAY_INDEX=44; export"));
    }
}

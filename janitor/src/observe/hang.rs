//! Processes that hang in the kernel: no signal ends them, and with them no container.

/// What `ps` is to tell of every thread of a container: a process that was killed may be gone but for one of them.
pub(super) const PS_ARGS: &str = "-eLo pid,stat,wchan:32,comm";

/// A sentence about the first that hangs, of the lines that `ps` tells with [`PS_ARGS`].
pub(super) fn of(lines: &[Vec<String>]) -> Option<String> {
    let columns = |line: &Vec<String>| <[String; 4]>::try_from(line.clone()).ok();
    let [pid, _, at, name] =
        lines.iter().filter_map(columns).find(|[_, state, ..]| state.starts_with('D'))?;
    let at = if at == "-" || at == "0" { String::new() } else { format!(", at {at}") };
    Some(format!("process {pid} ({name}) hangs in the kernel (state D{at})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_that_hangs_is_told() {
        let check = |lines: &[&[&str]], expected: Option<&str>| {
            let lines: Vec<Vec<String>> =
                lines.iter().map(|line| line.iter().map(|&word| word.to_owned()).collect()).collect();
            assert_eq!(of(&lines).as_deref(), expected, "{lines:?}");
        };
        check(&[], None);
        check(&[&["1", "Ss", "hrtimer_nanosleep", "sh"]], None);
        check(
            &[&["1", "Ss", "do_wait", "sh"], &["7", "Dl", "nfs_wait", "c) D (at"], &["8", "D", "x", "y"]],
            Some("process 7 (c) D (at) hangs in the kernel (state D, at nfs_wait)"),
        );
        check(&[&["7", "D", "-", "sh"]], Some("process 7 (sh) hangs in the kernel (state D)"));
        // Somebody else's ps.
        check(&[&["7", "D", "sh"]], None);
    }
}

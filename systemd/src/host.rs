use std::path::PathBuf;

use crate::Environment;

/// Where this node keeps what its daemons made (ledger, locks, work directories), if nobody says otherwise:
/// `/var/lib/bottega` for root, else `$XDG_STATE_HOME/bottega` or `~/.local/state/bottega`.
///
/// `None` where the user is not root and has no home directory: then it must be named.
#[must_use]
pub fn state_dir(is_root: bool, environment: &Environment) -> Option<PathBuf> {
    if is_root {
        return Some(PathBuf::from("/var/lib/bottega"));
    }
    // The XDG specification: a relative path there is invalid and to be ignored.
    let absolute = |key| environment.get(key).map(PathBuf::from).filter(|path| path.is_absolute());
    let state_home = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state_home?.join("bottega"))
}

/// The host's name, as the kernel knows it; `localhost` where it has none.
#[must_use]
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lies_where_the_user_may_write() {
        let check = |is_root, environment: &Environment, expected: Option<&str>| {
            assert_eq!(state_dir(is_root, environment), expected.map(PathBuf::from), "{environment:?}");
        };
        let home = Environment::from([("HOME", "/home/leo")]);
        check(true, &home, Some("/var/lib/bottega"));
        check(false, &home, Some("/home/leo/.local/state/bottega"));
        let both = Environment::from([("HOME", "/home/leo"), ("XDG_STATE_HOME", "/state")]);
        check(false, &both, Some("/state/bottega"));
        let relative = Environment::from([("HOME", "/home/leo"), ("XDG_STATE_HOME", "state")]);
        check(false, &relative, Some("/home/leo/.local/state/bottega"));
        check(false, &Environment::from([("HOME", "")]), None);
        check(false, &Environment::default(), None);
    }

    #[test]
    fn the_host_has_a_name() {
        assert!(!hostname().contains(char::is_whitespace));
        assert!(!hostname().is_empty());
    }
}

//! The file that packages install: every key of every section, commented, with its default.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use systemd::config;

const FILE: &str = include_str!("../../systemd/etc/bottega.toml");

/// `#key = value` says what holds, `# key = value` what could.
fn key_of(line: &str) -> Option<(&str, bool)> {
    let rest = line.strip_prefix('#')?;
    let (is_default, rest) = (!rest.starts_with(' '), rest.trim_start_matches(' '));
    let (key, _) = rest.split_once(" = ")?;
    let is_key = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then_some((key, is_default))
}

fn lines_of(section: &str) -> impl Iterator<Item = &str> {
    let header = format!("[{section}]");
    let begin = FILE.lines().skip_while(move |line| *line != header).skip(1);
    begin.take_while(|line| !line.starts_with('['))
}

fn check<T>(section: &str, check: impl Fn(&T) -> Result<(), String>)
where
    T: Serialize + DeserializeOwned + Default + PartialEq + Debug,
{
    let uncommented: Vec<&str> = FILE
        .lines()
        .map(|line| match key_of(line) {
            Some((_, true)) => &line[1..],
            _ => line,
        })
        .collect();
    let parsed: T =
        config::parse(Path::new("bottega.toml"), &uncommented.join("\n"), section).expect("valid");
    assert_eq!(parsed, T::default(), "[{section}] uncommented");
    check(&parsed).expect("defaults are fit");

    let defaults = serde_json::to_value(T::default()).expect("JSON");
    let defaults = defaults.as_object().expect("a table");
    let said: Vec<(&str, bool)> = lines_of(section).filter_map(key_of).collect();
    let keys: BTreeSet<&str> = said.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, defaults.keys().map(String::as_str).collect(), "[{section}]");
    assert_eq!(keys.len(), said.len(), "[{section}] says a key twice");
    for (key, is_default) in said {
        assert_eq!(
            is_default,
            !defaults[key].is_null(),
            "{section}.{key}: only what has no default is `# key`"
        );
    }
}

#[test]
fn every_key_stands_in_the_file_that_is_installed() {
    check::<master::daemon::MasterConfig>("master", master::daemon::MasterConfig::check);
    check::<worker::config::WorkerConfig>("worker", worker::config::WorkerConfig::check);
    check::<janitor::Config>("janitor", janitor::Config::validate);
    let sections: Vec<&str> = FILE.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(sections.len(), config::SECTIONS.len(), "{sections:?}");
    let above: Vec<_> = FILE.lines().take_while(|line| !line.starts_with('[')).filter_map(key_of).collect();
    assert_eq!(above, [(config::SPOOL, false)]);
}

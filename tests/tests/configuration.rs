//! The file that packages install: every key of every section, commented, with its default.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use systemd::config;

/// Begins the example of an endpoint, of which a file may have several.
const ENDPOINTS: &str = "# [[worker.agents.endpoints]]";

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

    check_keys(section, &serde_json::to_value(T::default()).expect("JSON"));
}

/// Every key of a table stands in its section; tables in it have sections of their own.
fn check_keys(section: &str, defaults: &serde_json::Value) {
    let defaults = defaults.as_object().expect("a table");
    let lines = lines_of(section).take_while(|line| !line.starts_with(ENDPOINTS));
    let said: Vec<(&str, bool)> = lines.filter_map(key_of).collect();
    let keys: BTreeSet<&str> = said.iter().map(|(key, _)| *key).collect();
    let plain = defaults.iter().filter(|(key, value)| !value.is_object() && *key != "endpoints");
    assert_eq!(keys, plain.map(|(key, _)| key.as_str()).collect(), "[{section}]");
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
    check::<master::filter::FilterConfig>("ingest", master::filter::FilterConfig::check);
    check::<master::daemon::MasterConfig>("master", master::daemon::MasterConfig::check);
    check::<worker::config::WorkerConfig>("worker", worker::config::WorkerConfig::check);
    check::<janitor::Config>("janitor", janitor::Config::validate);
    let agents = worker::agents::AgentsConfig::default();
    check_keys("worker.agents", &serde_json::to_value(&agents).expect("JSON"));
    let sections: Vec<&str> = FILE.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(sections.len(), config::SECTIONS.len() + 1, "{sections:?}");
    let above: Vec<_> = FILE.lines().take_while(|line| !line.starts_with('[')).filter_map(key_of).collect();
    assert_eq!(above, [(config::SPOOL, false)]);
}

#[test]
fn the_example_of_an_endpoint_has_every_key_and_is_valid() {
    let example: Vec<&str> = FILE
        .lines()
        .skip_while(|line| *line != ENDPOINTS)
        .take_while(|line| line.starts_with("# "))
        .collect();
    let text: Vec<&str> = example.iter().map(|line| &line[2..]).collect();
    let parsed: worker::config::WorkerConfig =
        config::parse(Path::new("bottega.toml"), &text.join("\n"), "worker").expect("valid");
    parsed.check().expect("fit");
    let said: BTreeSet<String> =
        example.iter().filter_map(|line| key_of(line)).map(|(key, _)| key.to_owned()).collect();
    let endpoint = serde_json::to_value(&parsed.agents.endpoints[0]).expect("JSON");
    assert_eq!(said, endpoint.as_object().expect("a table").keys().cloned().collect());
}

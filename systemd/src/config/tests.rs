use super::*;
use serde::Deserialize;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    grace_seconds: u64,
    engine: Option<String>,
    slot: Slot,
    images: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Slot {
    cores: u32,
    memory_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { grace_seconds: 30, engine: None, slot: Slot::default(), images: Vec::new() }
    }
}

fn parsed(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("b.toml"), text, "janitor")
}

#[test]
fn a_section_overrides_what_it_names() {
    let check = |text: &str, expected: Config| assert_eq!(parsed(text).expect(text), expected, "{text}");
    check("", Config::default());
    check("[worker]\nwhatever = 1\n", Config::default());
    check("[janitor]\ngrace_seconds = 5", Config { grace_seconds: 5, ..Config::default() });
    let slot = Slot { cores: 2, memory_bytes: Some(7) };
    check("[janitor.slot]\ncores = 2\nmemory_bytes = 7", Config { slot, ..Config::default() });
    check("[janitor]\nengine = 'x'", Config { engine: Some("x".to_owned()), ..Config::default() });
}

#[test]
fn an_error_names_file_line_key_and_remedy() {
    let check = |text: &str, expected: &str| {
        assert_eq!(parsed(text).expect_err(text).to_string(), expected, "{text}");
    };
    check(
        "[janitor]\n\ngrace = 1",
        r#"b.toml, line 3: there is no key "janitor.grace"; did you mean "janitor.grace_seconds"?"#,
    );
    check(
        "[janitor]\nengin = ''",
        r#"b.toml, line 2: there is no key "janitor.engin"; did you mean "janitor.engine"?"#,
    );
    check(
        "[janitor.slot]\ncores = 1\nmemory = 7",
        r#"b.toml, line 3: there is no key "janitor.slot.memory"; did you mean "janitor.slot.memory_bytes"?"#,
    );
    check(
        "[janitor]\nzzz = 1",
        r#"b.toml, line 2: there is no key "janitor.zzz"; bottega config prints all keys"#,
    );
    check("# x\n[janitors]\n", r#"b.toml, line 2: there is no key "janitors"; did you mean "janitor"?"#);
    check(
        "grace_seconds = 1",
        r#"b.toml, line 1: there is no key "grace_seconds"; bottega config prints all keys"#,
    );
    check(
        "[janitor]\ngrace_seconds = 'soon'",
        r#"b.toml, line 2: janitor.grace_seconds: invalid type: string "soon", expected a whole number, not below 0"#,
    );
    check(
        "[janitor]\n[janitor.slot]\ncores = -1",
        "b.toml, line 3: janitor.slot.cores: invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
    );
    check(
        "[janitor]\nimages = [\n'a',\n2]",
        "b.toml, line 4: janitor.images: invalid type: integer `2`, expected a string",
    );
    check("[janitor]\nslot = 3", "b.toml, line 2: janitor.slot: invalid type: integer `3`, expected a table");
    let syntax = parsed("[janitor]\ngrace_seconds == 1").expect_err("syntax").to_string();
    assert!(syntax.starts_with("b.toml, line 2: "), "{syntax}");
}

#[test]
fn a_struct_that_denies_unknown_fields_gets_the_same_answer() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Strict {
        slots: u32,
        reserve: Reserve,
        endpoints: Vec<Reserve>,
    }
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Reserve {
        memory_bytes: u64,
    }
    let check = |text: &str, expected: &str| {
        let refused = parse::<Strict>(Path::new("b.toml"), text, "worker").expect_err(text);
        assert_eq!(refused.to_string(), expected, "{text}");
    };
    check(
        "[worker]\nslot = 1",
        r#"b.toml, line 2: there is no key "worker.slot"; did you mean "worker.slots"?"#,
    );
    check(
        "[worker]\nslots = 1\n[worker.reserve]\nmemory = 1",
        r#"b.toml, line 4: there is no key "worker.reserve.memory"; did you mean "worker.reserve.memory_bytes"?"#,
    );
    let two = |second: &str| {
        format!("[worker]\n[[worker.endpoints]]\nmemory_bytes = 1\n[[worker.endpoints]]\n{second}\n")
    };
    check(
        &two("memory = 1"),
        r#"b.toml, line 5: there is no key "worker.endpoints.memory"; did you mean "worker.endpoints.memory_bytes"?"#,
    );
    check(
        &two("memory_bytes = 'a'"),
        "b.toml, line 5: worker.endpoints.memory_bytes: invalid type: string \"a\", expected a whole number, not below 0",
    );
}

#[test]
fn what_is_printed_is_read_back() {
    let slot = Slot { cores: 2, memory_bytes: None };
    let config = Config { grace_seconds: 9, slot, images: vec!["a".to_owned()], ..Config::default() };
    let text = print(&config, "janitor").expect("printable");
    assert!(text.starts_with("[janitor]\n"), "{text}");
    assert_eq!(parsed(&text).expect("readable"), config);
}

#[test]
fn only_a_file_that_was_asked_for_must_be_there() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("b.toml");
    let load = |source: Source| load::<Config>(&source, "janitor");
    assert_eq!(load(Source::Default(path.clone())).expect("defaults"), Config::default());
    let missing = load(Source::Named(path.clone())).expect_err("missing").to_string();
    assert!(missing.contains("b.toml"), "{missing}");
    std::fs::write(&path, "[janitor]\ngrace_seconds = 4").expect("write");
    assert_eq!(load(Source::Default(path.clone())).expect("read").grace_seconds, 4);
    std::fs::write(&path, "#".repeat(2 << 20)).expect("write");
    let large = load(Source::Named(path)).expect_err("too large").to_string();
    assert!(large.contains("larger than 1048576 bytes"), "{large}");
    assert!(load(Source::Default(dir.path().to_owned())).is_err(), "a directory is no file");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text =
        "spool = 3\nspol = ''\n[janitor]\ngrace = 1\nengine = 2\nimages = 'x'\n[janitor.slot]\ncore = 1\n";
    let said = parsed(text).expect_err("wrong").to_string();
    let expected = [
        r#"b.toml, line 1: spool: expected spool = "/a/path" in a line of its own, an absolute path of letters, digits and ._/-"#,
        r#"b.toml, line 2: there is no key "spol"; did you mean "spool"?"#,
        r#"b.toml, line 5: janitor.engine: invalid type: integer `2`, expected a string"#,
        r#"b.toml, line 4: there is no key "janitor.grace"; did you mean "janitor.grace_seconds"?"#,
        r#"b.toml, line 6: janitor.images: invalid type: string "x", expected an array"#,
        r#"b.toml, line 8: there is no key "janitor.slot.core"; did you mean "janitor.slot.cores"?"#,
    ];
    assert_eq!(said.lines().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}

#[test]
fn the_spool_stands_above_the_sections() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("b.toml");
    assert_eq!(spool(&Source::Default(path.clone())).expect("none"), None);
    spool(&Source::Named(path.clone())).expect_err("it was asked for");
    let check = |text: &str, expected: Option<&str>| {
        std::fs::write(&path, text).expect("write");
        let found = spool(&Source::Named(path.clone())).map_err(|error| error.to_string());
        assert_eq!(
            found.ok(),
            expected.map(|path| Some(path).filter(|path| !path.is_empty()).map(PathBuf::from)),
            "{text}"
        );
    };
    check("spool = '/srv/spool'\n[janitor]\nspool = 'x'\n", Some("/srv/spool"));
    check("[janitor]\nspool = '/srv/spool'\n", Some(""));
    check("spool = 'srv/spool'\n", None);
    check("spool = 7\n", None);
    parsed("spool = '/srv/spool'\n").expect("it is known to every section");
}

#[test]
fn a_pipe_is_not_waited_for_and_the_spool_has_its_place() {
    let dir = tempfile::tempdir().expect("dir");
    let pipe = dir.path().join("b.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let refused = load::<Config>(&Source::Named(pipe), "janitor").expect_err("it is none");
    assert!(refused.to_string().ends_with("b.toml: it is no regular file"), "{refused}");
    let misplaced = parsed("[janitor]\nspool = '/x'").expect_err("misplaced").to_string();
    assert_eq!(
        misplaced,
        r#"b.toml, line 2: there is no key "janitor.spool"; spool stands above all sections"#
    );
}

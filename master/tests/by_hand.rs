//! What the helps say can be done by hand: their commands are run in a shell, and do what Bottega's own do.

mod common;

use std::process::Command;

use common::{House, accepted, failed, owner, rows, said, work};
use queue_format::{Control, Event, EventLog, FailureReason, State, TaskId};

/// The task that the helps name.
const ID: &str = "pallets__click-12";

/// The commands that a help says are the same by hand: a line each.
fn by_hand(verb: &str) -> Vec<String> {
    let help = House::new().run(&[verb, "--help"]).out;
    let (_, text) = help.split_once("By hand").expect("by hand");
    let (_, text) = text.split_once(':').expect("a colon");
    let first = text.lines().next().unwrap_or_default().trim();
    let lines = text.lines().skip(1).take_while(|line| !line.is_empty());
    let lines = lines.filter_map(|line| line.strip_prefix("  ")).map(str::to_owned);
    [first.to_owned()].into_iter().filter(|line| !line.is_empty()).chain(lines).collect()
}

fn shell(house: &House, command: &str) -> String {
    let bottega = assert_cmd::cargo::cargo_bin!("bottega").display().to_string();
    let spool = house.spool_dir();
    let command = command.replace("SPOOL", &spool.display().to_string()).replace("bottega", &bottega);
    let mut shell = Command::new("sh");
    let ran = shell.args(["-ec", &command]).env("BOTTEGA_SPOOL", spool).output().expect("a shell");
    let said = said(&ran);
    assert_eq!(said.status, 0, "{command}: {}{}", said.out, said.err);
    said.out
}

/// Where everything is, once a master has done what is asked for in control/.
fn seen(house: &House) -> (Vec<(State, TaskId)>, Control) {
    let spool = house.spool();
    spool.carry_out(spool.control().expect("read").cancelled()).expect("carried out");
    let mut tasks: Vec<_> =
        spool.all().expect("listed").into_iter().map(|task| (task.state, task.name.id)).collect();
    tasks.sort();
    (tasks, spool.control().expect("read"))
}

/// Three tasks: one is pending, one has failed, one is done.
fn furnished() -> House {
    let house = House::new();
    assert_eq!(house.submit(&rows(&["broken-1", "other-1"])).status, 0);
    work(&house.spool(), |id| match id {
        "broken-1" => failed(FailureReason::Build, "no foo"),
        _ => accepted(),
    });
    assert_eq!(house.submit(&rows(&[ID])).status, 0);
    house
}

#[test]
fn what_the_helps_print_does_what_the_commands_do() {
    // Some lines of a help, after some preparation, and the command that does the same.
    let check = |verb: &str, lines: std::ops::Range<usize>, prepare: &str, own: &str| {
        let commands = by_hand(verb);
        let houses = [furnished(), furnished()];
        houses.iter().for_each(|house| drop(shell(house, prepare)));
        let before = seen(&houses[0]);
        for line in lines {
            shell(&houses[0], &commands[line]);
        }
        shell(&houses[1], &format!("bottega {verb} {own}"));
        assert_eq!(seen(&houses[0]), seen(&houses[1]), "{verb}: {commands:?}");
        assert_ne!(seen(&houses[0]), before, "{verb}: {commands:?}");
        commands.len()
    };
    assert_eq!(check("cancel", 0..1, "", ID), 2);
    check("cancel", 1..2, "", ID);
    assert_eq!(check("hold", 0..2, "", ID), 2);
    assert_eq!(check("pause", 0..1, "", "--reason 'moving the file server'"), 1);
    assert_eq!(check("resume", 0..1, "bottega pause", ""), 2);
    check("resume", 1..2, &format!("bottega hold {ID}"), ID);
    assert_eq!(check("drain", 0..1, "", "node07"), 2);
    check("drain", 1..2, "bottega drain node07", "--undo node07");
    assert_eq!(check("retry", 0..1, "", "--reason build"), 2);
    let many = "mkdir SPOOL/failed/build/7a && mv SPOOL/failed/build/*.json SPOOL/failed/build/7a/";
    check("retry", 1..2, many, "--reason build");
}

#[test]
fn what_the_helps_print_shows_what_the_commands_show() {
    let house = furnished();
    let spool = house.spool();
    let log = EventLog::new(&spool, &owner("node07"));
    let task: TaskId = ID.parse().expect("an id");
    log.note(jiff::Timestamp::UNIX_EPOCH, Event::Cancelled { task: task.clone(), token: None });
    log.flush(jiff::Timestamp::UNIX_EPOCH).expect("written");
    let [explain] = by_hand("explain").try_into().expect("a line");
    let out = shell(&house, &explain.replace("ID", ID));
    let path = spool.find(&task).expect("listed").remove(0).path;
    assert!(out.contains(&path.display().to_string()) && out.contains("\"cancelled\""), "{out}");
    let [doctor] = by_hand("doctor").try_into().expect("a line");
    shell(&house, &doctor);
    assert!(!house.spool_dir().join("tmp/x").exists(), "it leaves nothing behind");
}

#[test]
fn the_json_of_a_task_can_be_dropped() {
    let house = House::new();
    assert_eq!(house.run(&["run", "--name", "one", "a", "--", "true"]).status, 0);
    assert!(by_hand("run")[0].contains("drop the JSON of a task"), "{:?}", by_hand("run"));
    shell(&house, "sed 's/\"one\"/\"two\"/' SPOOL/pending/5-run/*/one.*.json > SPOOL/two.json");
    let submitted = shell(&house, "bottega submit SPOOL/two.json");
    assert!(submitted.contains("1 published"), "{submitted}");
    let [one, two] = ["one", "two"].map(|id| {
        let found = house.spool().find(&id.parse().expect("an id")).expect("listed").remove(0);
        (found.state.clone(), house.spool().read_task(&found).expect("valid").work)
    });
    assert_eq!(one, two);
}

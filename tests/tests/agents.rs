//! Agents by way of the programs that people use, on the real engine: `bottega up --brain`, `show --conversation` and `replay`.

#[path = "../../worker/tests/agents/calc.rs"]
mod calc;
#[path = "../../worker/tests/common/git.rs"]
mod git;
#[expect(dead_code, reason = "each user of these takes a part")]
#[path = "../../worker/tests/agents/model.rs"]
mod model;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use queue_format::{Incarnation, Instance, Owner, Spool, State, TaskSpec};
use tests::harness::{House, printed, wait_with_bound};
use uuid::Uuid;

use calc::{TASK, TESTS, repository, row, success};
use model::Model;

/// Longer than any run here takes on a slow machine.
const RUN_MAX: Duration = Duration::from_mins(15);

#[test]
fn an_environment_of_agents_is_made_shown_and_made_again() {
    let house = House::new().expect("a house");
    let base = repository(&house.path(""), TESTS);
    let spool = Spool::init(&house.spool_dir(), Uuid::now_v7()).expect("a spool");
    let instance: Instance = serde_json::from_value(row(TASK, &base)).expect("a row");
    let task = TaskSpec::build(instance, house.path("bare.git").display().to_string()).expect("a task");
    let producer = Owner::new("test", Incarnation::new(Uuid::now_v7()));
    spool.publish(&[task], &producer, Uuid::now_v7).expect("published");

    // The command line overrules the file, which leaves it to the rules.
    let model = Model::scripted(&success()).expect("a port");
    let config = format!(
        "[worker]\nbrain = \"rules\"\nslots = 1\nslot_memory_gib = 0.5\nreserved_memory_gib = 0.0\nreserved_disk_gib = 1.0\n\
         repeats = 1\n[[worker.agents.endpoints]]\nname = \"scripted\"\nurl = \"{}\"\nmodel = \"scripted-1\"\n",
        model.url()
    );
    fs::write(house.path("bottega.toml"), config).expect("written");
    let mut up = house.up(&["--brain", "agents", "--config"]);
    up.arg(house.path("bottega.toml")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = wait_with_bound(up.spawn().expect("it starts"), RUN_MAX).expect("it ends by itself");
    let found = spool.find(&TASK.parse().expect("an id")).expect("listed");
    assert!(found.iter().any(|task| matches!(task.state, State::Done(_))), "{}", printed(&ended));
    assert_eq!(model.agents(), ["explore", "explore", "dockerfile", "script", "analysis"]);

    let shown = house.bottega(&["show", TASK, "--conversation"]).output().expect("it runs");
    let text = printed(&shown);
    for part in [
        "made by agents",
        "── 5 of 5: analysis by scripted-1",
        "told issue:\n  │ add subtracts",
        "══ iteration 1: accepted",
    ] {
        assert!(shown.status.success() && text.contains(part), "{part}: {text}");
    }
    let replay = || {
        let mut command = house.bottega(&["replay", TASK]);
        command.env("DOCKER_HOST", "unix:///nowhere").output().expect("it runs")
    };
    let replayed = replay();
    let text = printed(&replayed);
    assert!(replayed.status.success() && text.contains("same      conversation.json"), "{text}");
    let dir = spool.layout().attempt(&found[0].name.id, found[0].name.token);
    fs::write(dir.join("eval.sh"), "exit 0\n").expect("written");
    let replayed = replay();
    assert!(
        !replayed.status.success() && printed(&replayed).contains("different eval.sh"),
        "{}",
        printed(&replayed)
    );
}

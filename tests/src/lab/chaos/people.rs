use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::cluster::{SPOOL, on};
use super::super::work::{Published, as_user, start};
use super::Chaos;

/// How long somebody moves tasks about.
const MOVES_FOR: Duration = Duration::from_secs(60);

pub(super) fn upgrade(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("upgrade", 80, 1.0)?;
    for version in [2, 1] {
        for n in 0..chaos.cluster.nodes.len() {
            chaos.until_busy(n)?;
            on(&chaos.cluster.nodes[n], &format!("dpkg -i /lab/bottega_{version}.deb"))?;
            on(&chaos.cluster.nodes[n], "systemctl is-active bottega-worker")?;
        }
    }
    Ok(())
}

pub(super) fn two_masters(chaos: &mut Chaos<'_>) -> Result<()> {
    let second = 1 % chaos.cluster.nodes.len();
    start(&chaos.cluster.nodes[second], "bottega-master")?;
    for part in ["one", "two", "three"] {
        drop_tasks(chaos, part, 15)?;
        let n = [0, second][chaos.below(2)];
        sleep(Duration::from_millis(u64::try_from(chaos.below(12_000))?));
        on(&chaos.cluster.nodes[n], "systemctl kill --signal=KILL bottega-master; true")?;
    }
    Ok(())
}

/// Puts tasks into `incoming/`, as a file that a master reads.
fn drop_tasks(chaos: &mut Chaos<'_>, name: &str, count: usize) -> Result<()> {
    let script = format!(
        "for n in $(seq {count}); do
            printf '{{\"format\":1,\"id\":\"{name}-%06d\",\"priority\":5,\"kind\":\"run\",\"commands\":[[\"echo\",\"{name}-%d\"]]}}\\n' $n $n
        done >/tmp/{name}.jsonl
        chown bottega: /tmp/{name}.jsonl
        {}",
        as_user(&format!("cp /tmp/{name}.jsonl {SPOOL}/incoming/"))
    );
    on(&chaos.cluster.nodes[0], &script)?;
    chaos.expect(Published { name: name.to_owned(), count });
    Ok(())
}

pub(super) fn two_janitors(chaos: &mut Chaos<'_>) -> Result<()> {
    let second = 1 % chaos.cluster.nodes.len();
    start(&chaos.cluster.nodes[second], "bottega-janitor")?;
    chaos.publish("janitor", 40, 0.5)?;
    for count in [5, 20] {
        chaos.until_some(count)?;
        let n = [0, second][chaos.below(2)];
        on(&chaos.cluster.nodes[n], "systemctl kill --signal=KILL bottega-janitor bottega-worker; true")?;
    }
    Ok(())
}

pub(super) fn operator(chaos: &mut Chaos<'_>) -> Result<()> {
    chaos.publish("operator", 80, 0.5)?;
    let seed = chaos.below(1 << 30);
    let last = chaos.cluster.nodes.len() - 1;
    // Every move that a person may make: into hold and out of it, out of pending, out of a lease; never into a lease, nor
    // out of done.
    let script = format!(
        "cd {SPOOL} || exit
        seed={seed}
        for move in $(seq 4); do
            seed=$((seed + 1))
            find pending hold claimed -name '*.json' 2>/dev/null |
                awk -v seed=$seed 'BEGIN {{ srand(seed) }} rand() < 0.2 {{ print }}' | while read -r task; do
                case $task in
                pending/*) to=hold ;;
                hold/*) to=pending ;;
                claimed/*) to=$(echo pending hold | cut -d' ' -f$((seed % 2 + 1))) ;;
                esac
                class=$(echo \"$task\" | grep -o '[0-9]-[^/]*' | head -1)
                mkdir -p $to/$class
                mv -n \"$task\" $to/$class/ 2>/dev/null
            done
        done; true"
    );
    let path = format!("/lab/operator-{seed}.txt");
    let node = &chaos.cluster.nodes[last];
    std::fs::write(node.share().join(format!("operator-{seed}.txt")), script)?;
    let began = Instant::now();
    while began.elapsed() < MOVES_FOR && chaos.cluster.settled()? < chaos.expected() {
        on(node, &format!("runuser -u bottega -- sh {path}"))?;
    }
    let all_back = format!(
        "cd {SPOOL} && for class in hold/*/; do mkdir -p pending/$(basename $class); find $class -name '*.json' -exec mv -n {{}} pending/$(basename $class)/ \\;; done"
    );
    on(node, &format!("runuser -u bottega -- sh -c '{all_back}'")).map(drop)
}

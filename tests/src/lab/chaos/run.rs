use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::cluster::{Cluster, SPOOL, on};
use super::super::oracle::{Judgement, judge};
use super::super::work::{Published, Timing};
use crate::harness::printed;

/// How long tasks may take to come to their end once all is well again; a lease that runs out comes on top.
const SETTLE_MAX: Duration = Duration::from_mins(6);
/// Between two looks at what is waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// One thing that can happen.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What happens.
    pub about: &'static str,
    pub(super) play: fn(&mut Chaos<'_>) -> Result<()>,
}

/// A scenario at work.
#[derive(Debug)]
pub struct Chaos<'a> {
    /// On what.
    pub cluster: &'a mut Cluster,
    /// When the silent are dead.
    pub timing: Timing,
    random: u64,
    published: Vec<Published>,
    notes: Vec<String>,
}

/// What came of one.
#[derive(Clone, Debug)]
pub struct Row {
    /// Of which.
    pub name: &'static str,
    /// What the spool held in the end; `None` where it never came so far.
    pub judgement: Option<Judgement>,
    /// Incarnations that others took for dead.
    pub given_up: usize,
    /// How long it took.
    pub seconds: u64,
    /// What was measured on the way, and what went wrong.
    pub notes: Vec<String>,
    /// Whether all was as it must be.
    pub is_sound: bool,
}

impl Chaos<'_> {
    /// A number below `bound`, from the seed (xorshift64*).
    pub fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let drawn = self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn).unwrap_or_default() % bound.max(1)
    }

    /// Publishes tasks of `seconds` each from the first node.
    pub fn publish(&mut self, name: &str, count: usize, seconds: f64) -> Result<()> {
        let published = self.cluster.publish(0, name, count, seconds)?;
        self.expect(published);
        Ok(())
    }

    /// Tasks that came another way.
    pub fn expect(&mut self, published: Published) {
        self.published.push(published);
    }

    /// Something to be told beside the counts.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// All that was published.
    pub fn expected(&self) -> usize {
        self.published.iter().map(|tasks| tasks.count).sum()
    }

    /// Waits until so many tasks have come to an end.
    pub fn until_settled(&self, count: usize) -> Result<()> {
        ensure!(
            self.cluster.until_settled(count, SETTLE_MAX)?,
            "only {} of {count} tasks came to an end within {} s",
            self.cluster.settled()?,
            SETTLE_MAX.as_secs()
        );
        Ok(())
    }

    /// Waits until so many of the tasks published last have come to an end, and all that were published before.
    pub fn until_some(&self, count: usize) -> Result<()> {
        let last = self.published.last().map_or(0, |tasks| tasks.count);
        self.until_settled(self.expected() - last + count)
    }

    /// Waits until a node works on something.
    pub fn until_busy(&self, n: usize) -> Result<()> {
        let name = self.cluster.nodes[n].name().to_owned();
        let busy = format!("find {SPOOL}/claimed/{name}~* -name '*.json' | grep -q .");
        self.until(SETTLE_MAX, &format!("{name} has claimed something"), |cluster| {
            on(&cluster.server, &busy).is_ok()
        })
    }

    /// Waits until nothing is left of the leases that a node has now; gives how long that took.
    pub fn until_reaped(&self, leases: &str) -> Result<Duration> {
        let began = Instant::now();
        let at_most = self.timing.silence() * 2 + SETTLE_MAX;
        let gone =
            format!("cd {SPOOL}/claimed && for lease in {leases}; do test ! -e \"$lease\" || exit 1; done");
        self.until(at_most, "the dead node's tasks are pending again", |cluster| {
            on(&cluster.server, &gone).is_ok()
        })?;
        Ok(began.elapsed())
    }

    /// The leases of a node, as words for a shell.
    pub fn leases(&self, n: usize) -> Result<String> {
        let name = self.cluster.nodes[n].name();
        let listed = on(&self.cluster.server, &format!("cd {SPOOL}/claimed && ls -d {name}~*"))?;
        Ok(listed.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn until(&self, at_most: Duration, what: &str, met: impl Fn(&Cluster) -> bool) -> Result<()> {
        let began = Instant::now();
        while !met(self.cluster) {
            ensure!(began.elapsed() < at_most, "not within {} s: {what}", at_most.as_secs());
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }
}

/// Plays a scenario on a cluster with a fresh spool, waits until all is settled, and judges.
pub fn run(cluster: &mut Cluster, scenario: Scenario, seed: u64, timing: Timing) -> Row {
    let began = Instant::now();
    // A generator of this kind must not begin with zero.
    let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut chaos = Chaos { cluster, timing, random, published: Vec::new(), notes: Vec::new() };
    let played = play(&mut chaos, scenario);
    let judged = chaos.judge(scenario.name);
    let mut notes = chaos.notes;
    let mut given_up = 0;
    let judgement = match judged {
        Ok((judgement, given)) => {
            given_up = given;
            let parts = [
                ("lost", &judgement.lost),
                ("doubled", &judgement.doubled),
                ("torn", &judgement.torn),
                ("stuck", &judgement.stuck),
                ("failed", &judgement.failed),
                ("finding", &judgement.findings),
            ];
            notes.extend(
                parts.iter().flat_map(|(what, all)| all.iter().map(move |one| format!("{what}: {one}"))),
            );
            Some(judgement)
        }
        Err(error) => {
            notes.push(format!("not judged: {error:#}"));
            None
        }
    };
    let is_sound = played.is_ok() && judgement.as_ref().is_some_and(Judgement::is_sound);
    if let Err(error) = played {
        notes.push(format!("{error:#}"));
    }
    Row { name: scenario.name, judgement, given_up, seconds: began.elapsed().as_secs(), notes, is_sound }
}

fn play(chaos: &mut Chaos<'_>, scenario: Scenario) -> Result<()> {
    chaos.cluster.begin(&chaos.timing)?;
    (scenario.play)(chaos)?;
    chaos.until_settled(chaos.expected())
}

impl Chaos<'_> {
    /// Ends the daemons, brings the spool to the host, and judges it; gives how many incarnations were given up too.
    fn judge(&mut self, name: &str) -> Result<(Judgement, usize)> {
        self.cluster.heal()?;
        self.cluster.finish()?;
        on(&self.cluster.server, &format!("tar -C {SPOOL} -cf /lab/spool.tar ."))?;
        let dir = self.cluster.dir().join("evidence").join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let tar = self.cluster.server.share().join("spool.tar");
        let spool = dir.join("spool");
        fs::create_dir(&spool)?;
        let unpacked =
            Command::new("tar").arg("-C").arg(&spool).arg("-xf").arg(&tar).output().context("tar")?;
        ensure!(unpacked.status.success(), "tar: {}", printed(&unpacked));
        fs::remove_file(tar)?;
        let mut given_up = 0;
        for node in &self.cluster.nodes {
            let said = on(node, "journalctl --no-pager -u 'bottega*' -o short-precise --since -1h")?;
            given_up += said.lines().filter(|line| line.contains("taken for dead: its claims")).count();
            fs::write(dir.join(format!("{}.log", node.name())), said)?;
            on(node, "journalctl --rotate && journalctl --vacuum-time=1s")?;
        }
        Ok((judge(&spool, &self.published)?, given_up))
    }
}

/// The rows as a table for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:18} {:>5} {:>5} {:>4} {:>7} {:>4} {:>5} {:>6} {:>6} {:>8} {:>7}  ",
        "scenario",
        "tasks",
        "done",
        "lost",
        "doubled",
        "torn",
        "stuck",
        "reaped",
        "deaths",
        "repeated",
        "seconds"
    );
    for row in rows {
        let found = row.judgement.clone().unwrap_or_default();
        let _ = writeln!(
            out,
            "{:18} {:>5} {:>5} {:>4} {:>7} {:>4} {:>5} {:>6} {:>6} {:>8} {:>7}  {}",
            row.name,
            found.tasks,
            found.done,
            found.lost.len(),
            found.doubled.len(),
            found.torn.len(),
            found.stuck.len(),
            found.reaped,
            row.given_up,
            found.repeated,
            row.seconds,
            if row.is_sound { "sound" } else { "BROKEN" },
        );
        for note in &row.notes {
            let _ = writeln!(out, "    {note}");
        }
    }
    out
}

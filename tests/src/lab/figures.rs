//! What a spool costs on the cluster's NFS, by how it is mounted: measured by `bottega doctor`, by a loop of bare calls
//! beside it, and by what the client asks of its server.

use std::fmt::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::cluster::{Cluster, EXPORT, Mount, SPOOL, on};
use super::work::{Timing, as_user, start};
use crate::node::Node;

/// Tasks, each for itself and in bundles of so many.
const TASKS: usize = 60;
const BUNDLE: usize = 10;
/// How long an idle node is looked at.
const IDLE: Duration = Duration::from_secs(120);
/// How long all tasks may take.
const SETTLE_MAX: Duration = Duration::from_mins(5);

/// What one way to mount a spool comes to.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The version, and options beyond those of docs/install.md.
    pub mount: Mount,
    /// Seconds of a rename into another directory: by `doctor`, and by a bare loop.
    pub rename: [f64; 2],
    /// Seconds of a file of 1 KiB, until it is on disk: by `doctor`, and by a bare loop.
    pub write: [f64; 2],
    /// Requests to the server for a task.
    pub for_task: f64,
    /// Requests to the server for a command in a bundle.
    pub for_bundled: f64,
    /// Requests of an idle worker a second.
    pub idle: f64,
    /// What `doctor` warns of.
    pub warnings: Vec<String>,
}

/// Measures each way to mount a spool on the last node, where a worker alone works.
///
/// # Errors
/// Something does not work.
pub fn measure(cluster: &Cluster, mounts: &[Mount]) -> Result<Vec<Figures>> {
    mounts.iter().map(|mount| figures(cluster, mount)).collect()
}

fn figures(cluster: &Cluster, mount: &Mount) -> Result<Figures> {
    cluster.end()?;
    cluster.mount(mount)?;
    cluster.begin(&Timing::default())?;
    let (first, last) = (&cluster.nodes[0], cluster.nodes.last().context("a lab has a node")?);
    on(first, "systemctl stop bottega-worker")?;

    let doctor: Value = serde_json::from_str(&on(last, &as_user("bottega doctor --json"))?)?;
    let seconds = |what: &str| doctor["measured"][what]["median_seconds"].as_f64().context("a figure");
    let warnings = doctor["symptoms"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(|symptom| Some(symptom["what"].as_str()?.to_owned())).collect();
    let [rename, write] = bare(last)?;

    let before = requests(last)?;
    let began = Instant::now();
    sleep(IDLE);
    let idle = (requests(last)? - before) / began.elapsed().as_secs_f64();

    let for_task = cost(cluster, last, "single", 1, TASKS, idle)?;
    let for_bundled = cost(cluster, last, "bundle", BUNDLE, TASKS / BUNDLE + TASKS, idle)?;
    start(first, "bottega-worker")?;
    Ok(Figures {
        mount: mount.clone(),
        rename: [seconds("rename_across")?, rename],
        write: [seconds("create_and_sync")?, write],
        for_task,
        for_bundled,
        idle,
        warnings,
    })
}

/// Requests for each of [`TASKS`] commands, beyond those that the node makes anyway. `settled`: how many tasks have come to
/// an end then.
fn cost(cluster: &Cluster, node: &Node, name: &str, bundle: usize, settled: usize, idle: f64) -> Result<f64> {
    // What is to be counted is what a worker asks, so all is published before it may claim.
    on(&cluster.nodes[0], &as_user("bottega pause"))?;
    let publish = format!(
        "seq {TASKS} | runuser -u bottega -- bottega run --spool {SPOOL} --native --name {name} --cores 1 --memory 64MiB \
         --array - --bundle {bundle} -- true"
    );
    on(&cluster.nodes[0], &format!("cd /tmp; {publish}"))?;
    on(&cluster.nodes[0], &as_user("bottega resume"))?;
    let (before, began) = (requests(node)?, Instant::now());
    anyhow::ensure!(cluster.until_settled(settled, SETTLE_MAX)?, "the tasks came to no end");
    #[expect(clippy::cast_precision_loss, reason = "few tasks")]
    let tasks = TASKS as f64;
    Ok((requests(node)? - before - idle * began.elapsed().as_secs_f64()) / tasks)
}

/// All requests that a node has sent to the server, by what its kernel counts of each operation.
fn requests(node: &Node) -> Result<f64> {
    let sum = format!(
        "awk '/^device/ {{ ours = / mounted on {} / }} ours && /^[ \\t]+[A-Z_]+: [0-9]/ {{ sum += $2 }} END {{ print sum }}' \
         /proc/self/mountstats",
        EXPORT.replace('/', "\\/")
    );
    Ok(on(node, &sum)?.parse()?)
}

/// The medians of bare renames between two directories, and of files of 1 KiB that are made and synced.
fn bare(node: &Node) -> Result<[f64; 2]> {
    let script = "
use Time::HiRes qw(time);
use IO::Handle;
my $dir = \"$ENV{BOTTEGA_SPOOL}/tmp/.bare\";
mkdir $_ for $dir, \"$dir/a\", \"$dir/b\";
sub median { my @sorted = sort { $a <=> $b } @_; $sorted[@sorted / 2] }
my (@moved, @written);
for my $n (0 .. 49) {
    my $began = time;
    open my $file, q(>), \"$dir/a/$n\" or die $!;
    print $file q(x) x 1024;
    $file->flush; $file->sync; close $file;
    push @written, time - $began;
}
for my $turn (0 .. 3) {
    my ($from, $to) = $turn % 2 ? (q(b), q(a)) : (q(a), q(b));
    for my $n (0 .. 49) {
        my $began = time;
        rename \"$dir/$from/$n\", \"$dir/$to/$n\" or die $!;
        push @moved, time - $began;
    }
}
unlink glob \"$dir/a/*\"; rmdir $_ for \"$dir/a\", \"$dir/b\", $dir;
printf \"%.6f %.6f\\n\", median(@moved), median(@written);
";
    let path = node.share().join("bare.pl");
    std::fs::write(path, script)?;
    let said = on(node, &as_user("perl /lab/bare.pl"))?;
    let mut figures = said.split(' ').map(str::parse);
    let mut next = || figures.next().context("two figures")?.context("a figure");
    Ok([next()?, next()?])
}

/// The figures as a table for people.
#[must_use]
pub fn table(all: &[Figures]) -> String {
    let mut out = format!(
        "{:24} {:>9} {:>9} {:>9} {:>9} {:>8} {:>10} {:>7}\n",
        "mount", "rename", "bare", "write", "bare", "req/task", "req/bundled", "idle/s"
    );
    for figures in all {
        let Figures { mount, rename, write, for_task, for_bundled, idle, warnings } = figures;
        let _ = writeln!(
            out,
            "{:24} {:>6.2} ms {:>6.2} ms {:>6.2} ms {:>6.2} ms {for_task:>8.1} {for_bundled:>10.1} {idle:>7.2}",
            format!("vers={}{}", mount.version, mount.more),
            rename[0] * 1e3,
            rename[1] * 1e3,
            write[0] * 1e3,
            write[1] * 1e3,
        );
        for warning in warnings {
            let _ = writeln!(out, "    {warning}");
        }
    }
    out
}

use super::CpuSet;

/// What of the machine this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Physical cores with at least one CPU for us, by their first CPU.
    pub cores: Vec<Core>,
    /// NUMA nodes, ascending; one that is made up where the machine tells of none.
    pub nodes: Vec<NumaNode>,
    /// CPUs that are online, ours or not.
    pub online: CpuSet,
    /// CPUs that could be online and are not.
    pub offline: CpuSet,
    /// Memory that this process may use: of the machine, or what its control groups leave of it.
    pub memory_bytes: u64,
    /// What the machine does not tell, and what follows from it, in sentences.
    pub notices: Vec<String>,
}

/// One physical core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// Its online CPUs that are ours.
    pub cpus: CpuSet,
    /// All its online CPUs: those that are not ours belong to others, who then share the core with us.
    pub siblings: CpuSet,
    /// Its processor package.
    pub package: u32,
    /// Its NUMA node.
    pub node: u32,
    /// What it is among the kinds of a hybrid machine.
    pub kind: CoreKind,
}

/// Which kind of core: those of one kind are equally fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CoreKind {
    /// The machine's fastest kind, or its only one.
    Performance,
    /// A slower kind: 1 is the next fastest, and so on.
    Efficiency(u8),
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub number: u32,
    /// Its online CPUs, ours or not.
    pub cpus: CpuSet,
    /// Its memory that this process may use; 0 where it has none.
    pub memory_bytes: u64,
    /// The node whose memory its CPUs use: itself, or the nearest that has some.
    pub home: u32,
}

impl Topology {
    /// The CPUs that this process may use.
    #[must_use]
    pub fn usable(&self) -> CpuSet {
        self.cores.iter().flat_map(|core| core.cpus.iter()).collect()
    }

    /// The topology in a few lines, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let (usable, cores) = (self.usable(), self.cores.len());
        let mut lines = vec![format!(
            "{} CPUs ({usable}) on {cores} cores, {:.1} GiB",
            usable.len(),
            gib(self.memory_bytes)
        )];
        if !self.offline.is_empty() {
            lines.push(format!("offline: {}", self.offline));
        }
        let others = self.online.minus(&usable);
        if !others.is_empty() {
            lines.push(format!("not ours: {others}"));
        }
        for node in &self.nodes {
            let home =
                if node.home == node.number { String::new() } else { format!(", memory of {}", node.home) };
            let memory = gib(node.memory_bytes);
            lines.push(format!("node {}: CPUs {}, {memory:.1} GiB{home}", node.number, shown(&node.cpus)));
            let own: Vec<&Core> = self.cores.iter().filter(|core| core.node == node.number).collect();
            for cores in own.chunk_by(|a, b| (a.package, a.kind) == (b.package, b.kind)) {
                let shown: Vec<String> = cores.iter().map(|core| core.cpus.to_string()).collect();
                let kind = match cores[0].kind {
                    CoreKind::Performance => String::new(),
                    CoreKind::Efficiency(rank) => format!(", slower kind {rank}"),
                };
                lines.push(format!("  package {}{kind}: cores {}", cores[0].package, shown.join(" ")));
            }
        }
        lines.join("\n")
    }
}

fn shown(set: &CpuSet) -> String {
    if set.is_empty() { "none".to_owned() } else { set.to_string() }
}

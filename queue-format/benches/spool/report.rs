use std::fs;
use std::path::Path;

/// The lines of the two tables.
#[derive(Default)]
pub(crate) struct Report {
    goals: String,
    rates: String,
    left_out: String,
}

impl Report {
    /// One goal, and whether it is met.
    pub(crate) fn goal(&mut self, what: &str, goal: &str, figure: &str, is_met: bool) {
        let met = if is_met { "yes" } else { "no" };
        self.goals += &format!("| {what} | {goal} | {figure} | {met} |\n");
        eprintln!("{what}: {figure}");
    }

    /// Tasks a second of one queue.
    pub(crate) fn rates(&mut self, who: &str, publish: f64, complete: f64, promise: &str) {
        self.rates += &format!("| {who} | {publish:.0} | {complete:.0} | {promise} |\n");
        eprintln!("{who}: {publish:.0} published, {complete:.0} completed a second");
    }

    /// Somebody who could not be asked, and why.
    pub(crate) fn left_out(&mut self, who: &str, why: &str) {
        self.left_out += &format!("- {who} was left out: {why}\n");
        eprintln!("{who} was left out: {why}");
    }

    /// Prints all of it, and writes it.
    pub(crate) fn write(&self, dir: &Path) {
        let text = self.print();
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(dir.join("spool.md"), text))
            .expect("the table is written");
    }

    /// Prints all of it, and gives it.
    pub(crate) fn print(&self) -> String {
        let Self { goals, rates, left_out } = self;
        let text = format!(
            "| what | goal | figure | met |\n|---|---|---|---|\n{goals}\n\
             | queue | publish, tasks/s | claim and complete, tasks/s | what is promised |\n|---|---|---|---|\n{rates}\n\
             {left_out}"
        );
        println!("\n{text}");
        text
    }
}

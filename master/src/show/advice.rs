use queue_format::{Class, FailureReason, Located, State, Verdict, Work};

use super::Page;
use crate::text::{clean_line, ellipsis};

impl Page {
    /// What can be done next: sentences, and commands as they are typed.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        let Some(place) = self.places.first() else {
            return vec!["its file is gone: submit it again".to_owned()];
        };
        let mut advice = Vec::new();
        if self.places.len() > 1 {
            advice.push("its file lies in several places: bottega fsck tells which to keep".to_owned());
        }
        let mv = |what: &str, to: &str| {
            let dir = self.spool.join(to);
            let target = shell_word(&format!("{}/", dir.display()));
            // Directories of other classes are made when they are first needed.
            let make = if dir.is_dir() { String::new() } else { format!("mkdir -p {target} && ") };
            format!("{what}: {make}mv {} {target}", word(place))
        };
        match &place.state {
            State::Pending(class) => {
                advice.push("it waits for a worker: bottega status tells whether one is there".to_owned());
                advice.push(mv("to park it", "hold"));
                let first = Class { priority: 0, ..class.clone() };
                if first != *class {
                    advice.push(mv("to have it done first", &format!("pending/{first}")));
                }
            }
            State::Delayed { class, .. } => advice.push(mv("to try it at once", &format!("pending/{class}"))),
            State::Hold => advice.push(mv("to let it go on", &self.home())),
            State::Claimed(owner) => {
                advice.push(format!("{owner} works on it"));
                advice.push(format!("to cancel it: {}", self.command("cancel")));
                advice.push(mv("to give it to another worker", &self.home()));
            }
            State::Done(_) => self.advice_done(&mut advice),
            State::Failed(reason) => self.advice_failed(*reason, &mut advice),
        }
        advice
    }

    fn advice_done(&self, advice: &mut Vec<String>) {
        if self.is_run() {
            advice.push(format!("what it printed: {} --log output", self.command("show")));
            return;
        }
        let image = self.telling().and_then(|attempt| attempt.manifest.as_ref()?.build()?.image_name.clone());
        if let Some(image) = image {
            let image = shell_word(&clean_line(&image));
            advice.push(format!("to look inside: docker run --rm -it --network none {image} bash -l"));
        }
        advice.push(format!("what the tests said: {} --log with-fix", self.command("show")));
    }

    fn advice_failed(&self, reason: FailureReason, advice: &mut Vec<String>) {
        let manifest = self.telling().and_then(|attempt| attempt.manifest.as_ref());
        if let Some(Verdict::Failed { remedy, .. }) = manifest.map(|manifest| &manifest.verdict)
            && !remedy.is_empty()
        {
            advice.push(ellipsis(&clean_line(remedy), REMEDY_CHARS_MAX));
        }
        if reason == FailureReason::BadSpec {
            advice.push("mend the file where it lies, or remove it and submit the row again".to_owned());
        }
        let log = match reason {
            FailureReason::BadSpec
            | FailureReason::Repository
            | FailureReason::Patch
            | FailureReason::Cancelled
            | FailureReason::Input
            | FailureReason::Poison => None,
            _ if self.is_run() => Some("output"),
            FailureReason::Build | FailureReason::Dependencies => Some("build"),
            FailureReason::NoFailToPass | FailureReason::NoTests => Some("test-only"),
            _ => Some("with-fix"),
        };
        if let Some(log) = log {
            advice.push(format!("the log: {} --log {log}", self.command("show")));
        }
        advice.push(format!("once that is mended: {}", self.command("retry")));
    }

    fn is_run(&self) -> bool {
        matches!(&self.spec, Some(Ok(spec)) if matches!(spec.work, Work::Run(_)))
    }

    /// Where it belongs when a person makes it pending again.
    fn home(&self) -> String {
        match &self.spec {
            Some(Ok(spec)) => format!("pending/{}", spec.class()),
            _ => "pending/5-build".to_owned(),
        }
    }

    fn command(&self, verb: &str) -> String {
        format!("bottega {verb} {} --spool {}", self.id, shell_word(&self.spool.display().to_string()))
    }
}

/// The longest remedy shown.
const REMEDY_CHARS_MAX: usize = 500;

fn word(place: &Located) -> String {
    shell_word(&place.path.display().to_string())
}

/// A word as a shell reads it back.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,~".contains(c);
    if !text.is_empty() && !text.starts_with('~') && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted() {
        let check = |text: &str, expected: &str| assert_eq!(shell_word(text), expected);
        check("/spool/failed/build/x.a001.r0.json", "/spool/failed/build/x.a001.r0.json");
        check("/claimed/node~0123/x", "/claimed/node~0123/x");
        check("/my spool/it's", r"'/my spool/it'\''s'");
        check("~x", "'~x'");
        check("", "''");
    }
}

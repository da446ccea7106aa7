use queue_format::{Class, Owner, RETRIES_MAX, Shape, SlotStatus, State, WorkerStatus};

use super::Scene;
use crate::text::{bytes, clean_line, duration, plural};

/// What workers of this version can do.
const KINDS: [&str; 3] = ["build", "run", "native"];

/// Workers named one by one.
const WORKERS_SHOWN: usize = 20;

impl Scene {
    /// What keeps the task where it is, the strongest first: sentences, each with its remedy where there is one.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut said = Vec::new();
        if self.page.places.len() > 1 {
            said.push("its file lies in several places: bottega fsck tells which to keep".to_owned());
        }
        let Some(place) = self.page.places.first() else {
            return vec![
                "its file is nowhere in the spool: somebody removed it; submit the row again".to_owned(),
            ];
        };
        if self.control.cancelled().contains(&self.page.id) {
            let wish = format!("somebody asked to cancel it (control/cancel/{})", self.page.id);
            said.push(match &place.state {
                State::Claimed(_) => format!("{wish}: its worker sets it aside with its next heartbeat"),
                _ => format!("{wish}: a master sets it aside within seconds"),
            });
        }
        match &place.state {
            State::Pending(class) => self.pending(class, &mut said),
            State::Delayed { due_seconds, .. } => self.delayed(*due_seconds, &mut said),
            State::Hold => said.push("a person parked it: it stays until bottega resume ID".to_owned()),
            State::Claimed(owner) => self.claimed(owner, &mut said),
            State::Done(_) => said.push(format!("it is done: attempt {} counts", place.name.token)),
            State::Failed(reason) => said.push(format!("it failed: {reason}: {}", reason.meaning())),
        }
        if let Some(error) = self.page.attempts.last().and_then(|attempt| attempt.error.as_deref()) {
            said.push(format!("its last attempt left no verdict: {}", clean_line(error)));
        }
        let (token, retries) = (place.name.token, place.name.retries);
        if token.0 > 0 {
            let claims = plural(token.0 as usize, "claim");
            let budget = match place.state {
                State::Done(_) | State::Failed(_) => String::new(),
                _ => format!(", {retries} of {RETRIES_MAX} automatic retries used (then failed/poison)"),
            };
            said.push(format!("{claims} so far ({token}){budget}"));
        }
        said
    }

    fn pending(&self, class: &Class, said: &mut Vec<String>) {
        if class.work() == "native" {
            said.push(
                "only workers with native = true in [worker] of their configuration take it".to_owned(),
            );
        }
        let before = said.len();
        let pause = self.control.pause_obstacle();
        said.extend(pause.as_deref().map(clean_line));
        if !KINDS.contains(&class.work()) {
            said.push(format!("no worker takes tasks of kind {}: move it to pending/5-build/", class.kind));
        }
        if self.full_classes.contains(class) {
            said.push(format!("control/limits.toml allows no more claims of {class} just now"));
        }
        let heard: Vec<&WorkerStatus> =
            self.workers.iter().filter(|worker| !worker.is_silent(self.now)).collect();
        if heard.is_empty() {
            said.push(
                "no worker has been heard within three minutes: start one (bottega up, or bottega-worker)"
                    .to_owned(),
            );
        }
        for worker in heard.iter().take(WORKERS_SHOWN) {
            let node = worker.owner.node();
            if self.control.is_drained(node) {
                said.push(format!("{node} is drained: it claims no more until bottega drain --undo {node}"));
            } else if let Some(obstacle) = self.full_nodes.get(node) {
                said.push(format!("{node} claims no more just now: {obstacle}"));
            } else if let Some(obstacle) = worker.obstacle.as_ref().filter(|_| pause.is_none()) {
                said.push(format!("{node} claims nothing: {}", clean_line(obstacle)));
            }
        }
        let doing: Vec<_> = heard.into_iter().filter(|worker| worker.does(class.work())).collect();
        if doing.is_empty() && said.len() == before {
            said.push(format!(
                "no worker that was heard does work of kind {}: see worker.containers and worker.native in their configuration",
                class.work()
            ));
        }
        let able = doing.iter().filter(|w| w.obstacle.is_none() && !self.control.is_drained(w.owner.node()));
        let able: Vec<_> = able.collect();
        let slots: Vec<_> = able.iter().flat_map(|worker| &worker.slots).collect();
        let shape = class.shape();
        let fitting: Vec<_> = slots.iter().filter(|slot| slot.fits(&shape)).collect();
        if fitting.is_empty() && able.iter().any(|worker| worker.fits(&shape)) {
            said.push(format!(
                "it asks for {}: it waits until slots of one node that can be joined are idle at once",
                asked(&shape)
            ));
        } else if fitting.is_empty() && !slots.is_empty() {
            said.push(format!(
                "it asks for {}, and no slot has as much: give workers fewer, larger slots ({})",
                asked(&shape),
                keys_for(&shape, &slots)
            ));
        } else if let Some(why) = fitting.iter().find_map(|slot| slot.out_of_service.as_ref())
            && fitting.iter().all(|slot| slot.out_of_service.is_some())
        {
            said.push(format!("every slot that is large enough is out of service: {}", clean_line(why)));
        }
        if fitting.is_empty() || said.len() > before {
            return;
        }
        let idle = fitting.iter().filter(|slot| slot.is_idle()).count();
        if idle > 0 {
            said.push(format!(
                "it waits its turn: {} idle, one will take it within seconds",
                plural(idle, "slot")
            ));
            return;
        }
        let ahead = self.summary.as_ref().map_or(0, |summary| {
            let earlier = |name: &str| name.parse::<Class>().is_ok_and(|other| other <= *class);
            summary.counts.pending.iter().filter(|(name, _)| earlier(name)).map(|(_, n)| n).sum()
        });
        let with = match ahead {
            0 | 1 => String::new(),
            _ => format!("; {ahead} tasks of its class or an earlier one wait"),
        };
        let at_work = plural(fitting.iter().filter(|slot| slot.out_of_service.is_none()).count(), "slot");
        said.push(format!("it waits its turn: {at_work} at work, none idle{with}"));
    }

    fn delayed(&self, due_seconds: u64, said: &mut Vec<String>) {
        let left = i64::try_from(due_seconds).unwrap_or(i64::MAX).saturating_sub(self.now.as_second());
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let time = duration(left.unsigned_abs() as f64);
        said.push(if left > 0 {
            format!("its node failed it, and it is tried again in {time}")
        } else {
            format!("it has been due for {time}")
        });
        if !self.summary.as_ref().is_some_and(|summary| summary.is_heard(self.now)) {
            let since = self.summary.as_ref().map(|summary| duration(summary.age_seconds(self.now)));
            let since = since.map_or_else(String::new, |since| format!(" for {since}"));
            said.push(format!(
                "no master has been heard{since} that would release it: start one (bottega up)"
            ));
        }
    }

    fn claimed(&self, owner: &Owner, said: &mut Vec<String>) {
        let silence = self.timing.silence_seconds;
        let status = self.workers.iter().find(|worker| worker.owner == *owner);
        let activity = self.page.workers.iter().find(|worker| worker.owner == *owner);
        let activity = activity.and_then(|worker| {
            worker.slots.iter().find_map(|slot| Some((slot.slot, slot.activity.as_ref()?)))
        });
        if let Some((slot, activity)) = activity {
            let age = duration(self.now.duration_since(activity.since).as_secs_f64());
            said.push(format!(
                "{owner} works on it in slot {slot}: {} for {age}",
                clean_line(&activity.stage)
            ));
        } else {
            said.push(format!("{owner} has claimed it, and has not said yet that it works on it"));
        }
        match status {
            Some(status) if status.is_silent(self.now) => {
                said.push(format!("that worker was last heard {} ago", duration(self.age(status))));
            }
            Some(_) => {}
            None => said.push("that worker says nothing of itself: it may be dead".to_owned()),
        }
        if self.incarnations.get(owner).copied().flatten().is_none() {
            said.push(format!(
                "that worker has no heartbeat: any daemon takes the task back once it has seen so for {silence} s"
            ));
        }
        if self.control.is_drained(owner.node()) {
            said.push(format!("{} is drained: it finishes this task, and claims no more", owner.node()));
        }
    }

    fn age(&self, worker: &WorkerStatus) -> f64 {
        self.now.duration_since(worker.at).as_secs_f64()
    }
}

/// What a class asks for, in words.
/// Which keys of the configuration give slots what the largest of these lack.
fn keys_for(shape: &Shape, slots: &[&SlotStatus]) -> &'static str {
    let fits = |shape: Shape| slots.iter().any(|slot| slot.fits(&shape));
    let cores = fits(Shape { memory_bytes: None, ..*shape });
    let memory = fits(Shape { cores: None, ..*shape });
    match (cores, memory) {
        (true, false) => "slot_memory_gib",
        (false, true) => "slot_cores",
        _ => "slot_cores, slot_memory_gib",
    }
}

fn asked(shape: &Shape) -> String {
    let cores = shape.cores.map(|cores| plural(cores as usize, "core"));
    let memory = shape.memory_bytes.map(|memory| format!("{} of memory", bytes(memory)));
    [cores, memory].into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

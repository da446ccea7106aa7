//! What people do, and what is left by what has ended.

use super::*;

impl Model {
    pub(super) fn person_runs(&mut self) {
        let images = self.objects.images.clone();
        let Some(image) = self.random.of(&images) else { return };
        let name = format!("mine-{}", self.unique);
        self.container(name, &image, HashMap::new(), false, Whose::Foreign);
    }

    /// On whatever there is; what stands on one of our images inherits its labels, and needs a name only where the build of
    /// that was cut off.
    pub(super) fn person_builds(&mut self) {
        let images = self.objects.images.clone();
        let Some(from) = self.random.of(&images) else { return };
        let id = format!("sha256:{}", self.fresh().simple());
        let entry = Labels::from_map(&from.labels).and_then(|labels| self.ledger.get(&labels.object));
        let needs_name = entry.is_some_and(|entry| entry.ended_at.is_none());
        let is_named = needs_name || self.random.below(2) == 0;
        let tags = is_named.then(|| format!("mine-{}:1", self.unique)).into_iter().collect();
        self.now += 1;
        self.image(id, Some(from.id), tags, from.labels, Whose::Foreign);
    }

    /// A name of one's own makes an image one's own.
    pub(super) fn person_tags(&mut self) {
        let ids: Vec<String> = self.objects.images.iter().map(|image| image.id.clone()).collect();
        let Some(id) = self.random.of(&ids).filter(|id| id != BASE) else { return };
        let tag = match self.random.below(4) {
            // A version of ours, to have it back some day.
            0 => format!("openswe--task-{}:mine-{}", self.random.below(TASKS), self.fresh()),
            // As Docker lists a name of ours in another registry.
            1 => format!("localhost/openswe--task-{}:latest", self.random.below(TASKS)),
            _ => format!("mine-{}:1", self.fresh()),
        };
        if self.objects.images.iter().any(|image| image.tags.contains(&tag)) {
            return;
        }
        let takes_away = self.random.below(2) == 0;
        for image in self.objects.images.iter_mut().filter(|image| image.id == id) {
            if takes_away {
                image.tags.clear();
            }
            image.tags.push(tag.clone());
        }
        self.whose.insert(id, Whose::Foreign);
    }

    pub(super) fn person_renames(&mut self) {
        let ids: Vec<String> = self.objects.containers.iter().map(|container| container.id.clone()).collect();
        let Some(id) = self.random.of(&ids) else { return };
        let name = format!("kept-{}", self.fresh());
        for container in self.objects.containers.iter_mut().filter(|container| container.id == id) {
            if container.is_build_step {
                return;
            }
            container.names = vec![name.clone()];
        }
        self.whose.insert(id, Whose::Foreign);
    }

    /// Labels that lie, each in another way.
    pub(super) fn person_forges(&mut self) {
        let entries: Vec<LedgerEntry> = self.ledger.values().cloned().collect();
        let Some(entry) = self.random.of(&entries) else { return };
        let mut labels = Labels {
            spool: entry.spool,
            owner: entry.owner,
            task: entry.task,
            token: entry.token,
            object: entry.object,
        };
        match self.random.below(5) {
            0 => labels.object = self.fresh(),
            1 => labels.token = Token(labels.token.0 + 100),
            2 => labels.spool = Uuid::from_u128(2).to_string().parse().expect("a UUID"),
            3 => labels.owner = Owner::new("there", Incarnation::new(self.fresh())),
            _ => labels.task = "task-other".parse().expect("an id"),
        }
        let images = self.objects.images.clone();
        let Some(base) = images.first() else { return };
        let name = format!("run-{}", labels.object);
        match self.random.below(3) {
            0 => self.container(name, base, labels.to_map(), false, Whose::Foreign),
            1 => self.container(name, base, labels.to_map(), true, Whose::Foreign),
            _ => {
                let id = format!("sha256:{}", self.fresh().simple());
                self.image(id, Some(BASE.to_owned()), vec![], labels.to_map(), Whose::Foreign);
            }
        }
    }

    pub(super) fn person_removes(&mut self) {
        let ids: Vec<String> = self.objects.containers.iter().map(|container| container.id.clone()).collect();
        if let Some(id) = self.random.of(&ids) {
            self.objects.containers.retain(|container| container.id != id);
        }
    }

    /// What was accepted is so no more.
    pub(super) fn task_is_retried(&mut self) {
        let accepted: Vec<_> = self.accepted.iter().cloned().collect();
        if let Some(one) = self.random.of(&accepted) {
            self.accepted.remove(&one);
        }
    }

    /// The container of a build's step, of a worker that was killed.
    pub(super) fn crash_leaves_a_step(&mut self) {
        let built: Vec<Image> = self
            .objects
            .images
            .iter()
            .filter(|image| matches!(self.whose.get(&image.id), Some(Whose::Ours(_))))
            .cloned()
            .collect();
        let Some(image) = self.random.of(&built) else { return };
        let whose = self.whose[&image.id].clone();
        let name = format!("step-{}", self.unique);
        self.container(name, &image, HashMap::new(), true, whose);
    }

    pub(super) fn image_is_used(&mut self) {
        let tagged: Vec<Image> =
            self.objects.images.iter().filter(|image| !image.tags.is_empty()).cloned().collect();
        if let Some(image) = self.random.of(&tagged) {
            self.is_used(&image);
        }
    }

    /// What another worker had built, and nobody runs in it yet.
    pub(super) fn accepted_long_ago(&mut self) {
        let owner = Owner::new(NODE, Incarnation::new(self.fresh()));
        self.lives.insert(owner.clone(), if self.random.below(2) == 0 { Life::Left } else { Life::Dead });
        let task: TaskId = format!("old-{}", self.random.below(TASKS)).parse().expect("an id");
        let token = self.tokens.entry(task.clone()).or_default();
        *token += 1;
        let claim = ClaimKey { owner, task, token: Token(*token) };
        let labels = self.labels(&claim);
        let name = image_name(&claim.task);
        self.record(
            &labels,
            ObjectKind::Build { image: format!("bottega-draft:{}", labels.object.simple()) },
        );
        let id = format!("sha256:{}", self.fresh().simple());
        let tags = vec![format!("{name}:latest")];
        self.image(id, Some(BASE.to_owned()), tags, labels.to_map(), Whose::Ours(claim.clone()));
        self.accepted.retain(|(task, _)| *task != claim.task);
        self.accepted.insert((claim.task, claim.token));
    }

    /// With a finished image for a base, ours or not.
    pub(super) fn person_begins_a_step(&mut self) {
        let named: Vec<Image> =
            self.objects.images.iter().filter(|image| !image.tags.is_empty()).cloned().collect();
        let Some(image) = self.random.of(&named) else { return };
        let name = format!("step-{}", self.fresh());
        self.container(name, &image, HashMap::new(), true, Whose::Foreign);
        if let Some(step) = self.objects.containers.last_mut() {
            (step.is_build_step, step.is_others_step, step.is_running) = (false, true, true);
        }
    }

    pub(super) fn person_ends_a_step(&mut self) {
        self.objects.containers.retain(|container| !container.is_others_step);
    }

    pub(super) fn task_names_an_image(&mut self) {
        let tags: Vec<String> = self
            .objects
            .images
            .iter()
            .flat_map(|image| &image.tags)
            .filter(|tag| *tag != BASE_TAG)
            .cloned()
            .collect();
        if let Some(tag) = self.random.of(&tags) {
            let waits = self.random.below(2) == 0;
            if waits { &mut self.waiting } else { &mut self.named }.insert(tag);
        }
    }

    pub(super) fn task_that_named_ends(&mut self) {
        let named: Vec<String> = self.named.union(&self.waiting).cloned().collect();
        if let Some(tag) = self.random.of(&named) {
            self.named.remove(&tag);
            self.waiting.remove(&tag);
        }
    }
}

use queue_format::{
    AcceptanceClass, EVIDENCE_FILE, Evidence, Located, Manifest, Spool, Verdict, Work, image_name,
};
use serde_json::{Map, Value, json};

/// What rows look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The row that was submitted and, of the environment, everything that is needed to use it.
    OpenSwe,
    /// The fields of a SWE-bench dataset, lists of tests as JSON in a string.
    SweBench,
}

/// Why an accepted task gives no row: its task file or its results are not what they must be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(pub(super) String);

/// The largest file of an attempt that is put into a row.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// An accepted task with its official results.
struct Accepted<'a> {
    spool: &'a Spool,
    task: &'a Located,
    manifest: Manifest,
}

/// The row of an accepted task.
pub(super) fn row_of(
    spool: &Spool,
    task: &Located,
    class: AcceptanceClass,
    format: Format,
) -> Result<Map<String, Value>, Damaged> {
    let damaged = |e: &dyn std::fmt::Display| Damaged(e.to_string());
    let manifest = spool.manifest(&task.name.id, task.name.token).map_err(|e| damaged(&e))?;
    let Some(manifest) = manifest else {
        let dir = spool.layout().attempt(&task.name.id, task.name.token);
        return Err(Damaged(format!("{} has no manifest.json", dir.display())));
    };
    let Verdict::Accepted { .. } = manifest.verdict else {
        return Err(Damaged("its official attempt was not accepted".to_owned()));
    };
    let Work::Build(build) = spool.read_task(task).map_err(|e| damaged(&e))?.work else {
        return Err(Damaged("it is a run, and has no environment".to_owned()));
    };
    let Ok(Value::Object(input)) = serde_json::to_value(&build.instance) else {
        return Err(Damaged("its instance is no JSON object".to_owned()));
    };
    let accepted = Accepted { spool, task, manifest };
    match format {
        Format::OpenSwe => accepted.open_swe(input, class),
        Format::SweBench => accepted.swe_bench(&input),
    }
}

impl Accepted<'_> {
    fn open_swe(
        &self,
        mut row: Map<String, Value>,
        class: AcceptanceClass,
    ) -> Result<Map<String, Value>, Damaged> {
        let (fail_to_pass, pass_to_pass) = self.tests()?;
        let made = json!({
            "dockerfile": self.file("Dockerfile")?,
            "eval_script": self.file("eval.sh")?,
            "eval_script_skeleton": self.file("eval_skeleton.sh")?,
            "image_name": self.image(),
            "FAIL_TO_PASS": fail_to_pass,
            "PASS_TO_PASS": pass_to_pass,
            "environment_setup_commit": row.get("base_commit"),
            "requirements_lock": self.optional_file("requirements.lock")?,
            "acceptance_class": class,
            "python_version": self.manifest.build().and_then(|build| Some(&build.python.as_ref()?.used)),
        });
        if let Value::Object(made) = made {
            row.extend(made);
        }
        Ok(row)
    }

    fn swe_bench(&self, input: &Map<String, Value>) -> Result<Map<String, Value>, Damaged> {
        const CARRIED: [&str; 9] = [
            "repo",
            "instance_id",
            "base_commit",
            "patch",
            "test_patch",
            "problem_statement",
            "hints_text",
            "created_at",
            "version",
        ];
        let (fail_to_pass, pass_to_pass) = self.tests()?;
        let mut row: Map<String, Value> = CARRIED
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), input.get(*field)?.clone())))
            .collect();
        let as_text = |names: &[String]| Value::String(Value::from(names).to_string());
        row.insert("FAIL_TO_PASS".to_owned(), as_text(&fail_to_pass));
        row.insert("PASS_TO_PASS".to_owned(), as_text(&pass_to_pass));
        row.insert(
            "environment_setup_commit".to_owned(),
            input.get("base_commit").cloned().unwrap_or_default(),
        );
        Ok(row)
    }

    fn tests(&self) -> Result<(Vec<String>, Vec<String>), Damaged> {
        let text = self.file(EVIDENCE_FILE)?;
        let evidence: Evidence = serde_json::from_str(&text)
            .map_err(|e| Damaged(format!("{EVIDENCE_FILE} is not evidence: {e}")))?;
        let moves = evidence.transitions;
        Ok((moves.fail_to_pass.into_iter().collect(), moves.pass_to_pass.into_iter().collect()))
    }

    fn image(&self) -> String {
        let kept = self.manifest.build().and_then(|build| build.image_name.clone());
        kept.unwrap_or_else(|| image_name(&self.task.name.id))
    }

    fn file(&self, name: &str) -> Result<String, Damaged> {
        self.optional_file(name)?.ok_or_else(|| Damaged(format!("{} is missing", self.path(name))))
    }

    fn optional_file(&self, name: &str) -> Result<Option<String>, Damaged> {
        let (id, token) = (&self.task.name.id, self.task.name.token);
        let bytes =
            self.spool.attempt_file(id, token, name, FILE_BYTES_MAX).map_err(|e| Damaged(e.to_string()))?;
        let Some(bytes) = bytes else { return Ok(None) };
        match self.manifest.files.get(name) {
            Some(digest) if *digest == blake3::hash(&bytes).to_hex().as_str() => {}
            _ => {
                let why = format!(
                    "{} is not what its manifest says; it was changed after the attempt",
                    self.path(name)
                );
                return Err(Damaged(why));
            }
        }
        let text =
            String::from_utf8(bytes).map_err(|_| Damaged(format!("{} is not UTF-8", self.path(name))))?;
        Ok(Some(text))
    }

    fn path(&self, name: &str) -> String {
        let dir = self.spool.layout().attempt(&self.task.name.id, self.task.name.token);
        dir.join(name).display().to_string()
    }
}

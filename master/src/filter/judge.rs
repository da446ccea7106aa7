use queue_format::Instance;
use serde_json::{Map, Value};

use super::facts;
use super::quality::{QUALITY_FIELD, Quality};
use super::{EvaluationSet, FilterConfig, Stage};
use crate::ingest::instance_of;
use crate::patch::{Binary, TestPaths, check_patch, files, split};

/// The field of a row without a patch that says why it has none.
pub const MISSING_FIELD: &str = "patch_missing";

/// The stages that look at one row alone.
#[derive(Clone, Debug)]
pub struct Filter {
    config: FilterConfig,
    test_paths: TestPaths,
    evaluation: EvaluationSet,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Judged {
    /// It is a task, in OpenSWE's fields, whatever dataset it came from.
    Accepted {
        /// The row, with its patch split and its scores in the field [`QUALITY_FIELD`].
        instance: Box<Instance>,
        /// The stages that asked for what the row does not have.
        unknown: Vec<Stage>,
    },
    /// It is none.
    Rejected {
        /// The first stage that it did not pass.
        stage: Stage,
        /// Why.
        reason: String,
        /// The earlier stages that asked for what the row does not have.
        unknown: Vec<Stage>,
    },
}

type Verdict<T> = Result<T, (Stage, String)>;

impl Filter {
    /// With these thresholds, and what must not be learnt from.
    #[must_use]
    pub fn new(config: FilterConfig, evaluation: EvaluationSet) -> Self {
        let test_paths = TestPaths::new(&config.test_words);
        Self { config, test_paths, evaluation }
    }

    /// Judges a row of any dataset that is understood.
    #[must_use]
    pub fn judge(&self, row: Value) -> Judged {
        let mut unknown = Vec::new();
        match self.pass(row, &mut unknown) {
            Ok(instance) => Judged::Accepted { instance: Box::new(instance), unknown },
            Err((stage, reason)) => Judged::Rejected { stage, reason, unknown },
        }
    }

    fn pass(&self, row: Value, unknown: &mut Vec<Stage>) -> Verdict<Instance> {
        let Value::Object(mut row) = row else {
            return Err((Stage::Row, "expected an object with the fields of a pull request".to_owned()));
        };
        self.early(&row, unknown)?;
        self.split(&mut row)?;
        let licence = facts::licence(&row).map(|licence| licence.map(str::to_owned));
        let mut instance = instance_of(row).map_err(|refusal| (Stage::Fields, refusal.to_string()))?;
        check_patches(&instance)?;
        if let Some(why) = self.evaluation.has(&instance, self.config.evaluation_repositories) {
            return Err((Stage::Evaluation, why.to_owned()));
        }
        self.licence(licence, unknown)?;
        self.size(&instance)?;
        let quality = Quality::of(&instance.problem_statement, &instance.patch);
        self.quality(&quality)?;
        let quality = serde_json::to_value(quality).map_err(|e| (Stage::Quality, e.to_string()))?;
        instance.extra.insert(QUALITY_FIELD.to_owned(), quality);
        Ok(instance)
    }

    /// What the stages before the patches say of a row of which only the fields that they ask for are there; `None`: they
    /// let it pass.
    pub(super) fn judge_head(&self, head: &Map<String, Value>) -> Option<Judged> {
        let mut unknown = Vec::new();
        let (stage, reason) = self.early(head, &mut unknown).err()?;
        Some(Judged::Rejected { stage, reason, unknown })
    }

    fn early(&self, row: &Map<String, Value>, unknown: &mut Vec<Stage>) -> Verdict<()> {
        self.repository(row, unknown)?;
        if facts::has_issue(row) {
            return Ok(());
        }
        Err((Stage::Issue, "no linked issue has a description".to_owned()))
    }

    fn repository(&self, row: &Map<String, Value>, unknown: &mut Vec<Stage>) -> Verdict<()> {
        match facts::stars(row).map_err(|why| (Stage::Stars, why))? {
            None => unknown.push(Stage::Stars),
            Some(stars) if stars < self.config.stars_min => {
                return Err((Stage::Stars, format!("{stars}, expected at least {}", self.config.stars_min)));
            }
            Some(_) => {}
        }
        match facts::language(row).map_err(|why| (Stage::Language, why))? {
            None => unknown.push(Stage::Language),
            Some(language) if !has(&self.config.languages, language) => {
                let expected = self.config.languages.join(" or ");
                return Err((Stage::Language, format!("{language:?}, expected {expected}")));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Parts the patch of a row that has no test patch of its own. One that has must still mend something.
    fn split(&self, row: &mut Map<String, Value>) -> Verdict<()> {
        let (patch_field, test_field) = facts::patch_fields(row);
        let text = |field| row.get(field).and_then(Value::as_str).unwrap_or_default();
        let (patch, test_patch) = (text(patch_field), text(test_field));
        if patch.trim().is_empty() {
            let why = row.get(MISSING_FIELD).and_then(Value::as_str).unwrap_or("the patch is empty");
            return Err((Stage::Fix, why.to_owned()));
        }
        let parts = split(patch, |path| self.test_paths.has(path));
        if parts.fix.is_empty() && !parts.test.is_empty() {
            return Err((Stage::Fix, "everything that it changes is a test".to_owned()));
        }
        if !test_patch.trim().is_empty() {
            return Ok(());
        }
        if parts.fix.is_empty() {
            return Err((Stage::Fix, "the patch is no diff".to_owned()));
        }
        if parts.test.is_empty() {
            return Err((Stage::Tests, "it changes no test".to_owned()));
        }
        row.insert(patch_field.to_owned(), parts.fix.into());
        row.insert(test_field.to_owned(), parts.test.into());
        Ok(())
    }

    fn licence(&self, licence: Result<Option<String>, String>, unknown: &mut Vec<Stage>) -> Verdict<()> {
        if self.config.licences.is_empty() {
            return Ok(());
        }
        match licence.map_err(|why| (Stage::Licence, why))? {
            None if self.config.licence_unknown => {
                unknown.push(Stage::Licence);
                Ok(())
            }
            None => Err((Stage::Licence, "it names none".to_owned())),
            Some(licence) if has(&self.config.licences, &licence) => Ok(()),
            Some(licence) => Err((Stage::Licence, format!("{licence:?} is not allowed"))),
        }
    }

    fn size(&self, instance: &Instance) -> Verdict<()> {
        let FilterConfig { patch_bytes_max, patch_files_max, statement_bytes_max, .. } = self.config;
        let patches = [&instance.patch, &instance.test_patch];
        let measured = [
            ("bytes of patches", patches.iter().map(|patch| patch.len()).sum(), patch_bytes_max),
            ("files", patches.iter().map(|patch| files(patch).len()).sum(), patch_files_max),
            ("bytes of problem statement", instance.problem_statement.len(), statement_bytes_max),
        ];
        match measured.iter().find(|(_, size, limit)| size > limit) {
            Some((what, size, limit)) => {
                Err((Stage::Size, format!("{size} {what}, expected at most {limit}")))
            }
            None => Ok(()),
        }
    }

    fn quality(&self, quality: &Quality) -> Verdict<()> {
        let limits = [
            ("issue_quotes_patch", Some(quality.issue_quotes_patch), self.config.issue_quotes_patch_max),
            ("issue_names_place", Some(quality.issue_names_place), self.config.issue_names_place_max),
            ("patch_misses_issue", quality.patch_misses_issue, self.config.patch_misses_issue_max),
        ];
        for (name, score, limit) in limits {
            if let (Some(score), Some(limit)) = (score, limit)
                && score > limit
            {
                return Err((Stage::Quality, format!("{name} is {score}, expected at most {limit}")));
            }
        }
        Ok(())
    }
}

/// What a worker would find out later, for every row.
fn check_patches(instance: &Instance) -> Verdict<()> {
    for (field, patch) in [("patch", &instance.patch), ("test_patch", &instance.test_patch)] {
        check_patch(patch).map_err(|why| (Stage::Fields, format!("field {field:?}: {why}")))?;
        let omitted = files(patch).into_iter().find(|part| part.binary == Some(Binary::Omitted));
        if let Some(part) = omitted {
            let why = format!("field {field:?}: the content of {} was left out of the diff", part.path());
            return Err((Stage::Fields, why));
        }
    }
    Ok(())
}

fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FIX: &str = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n";
    const TEST: &str =
        "diff --git a/test_x.py b/test_x.py\n--- a/test_x.py\n+++ b/test_x.py\n@@ -1 +1 @@\n-a\n+b\n";
    const BASE: &str = "0123456789abcdef0123456789abcdef01234567";

    fn pull() -> Value {
        json!({
            "instance_id": "pallets__click-12", "repo": "pallets/click", "pull_number": 12, "base_commit": BASE,
            "problem_statement": "It breaks\n\nBadly.", "patch": format!("{TEST}{FIX}"), "test_patch": "",
            "stars": 5, "language": "Python", "license": {"spdx_id": "BSD-3-Clause"},
            "issues": [{"number": 3, "title": "It breaks", "body": "Badly."}],
        })
    }

    fn with(field: &str, value: Value) -> Value {
        let mut row = pull();
        row[field] = value;
        row
    }

    fn verdict(config: &FilterConfig, row: Value) -> Result<Instance, (Stage, String)> {
        let mut evaluation = EvaluationSet::default();
        evaluation
            .insert(&json!({ "instance_id": "a__b-7", "repo": "A/b", "base_commit": "f".repeat(40), "pull_number": 0 }))
            .expect("fit");
        match Filter::new(config.clone(), evaluation).judge(row) {
            Judged::Accepted { instance, .. } => Ok(*instance),
            Judged::Rejected { stage, reason, .. } => Err((stage, reason)),
        }
    }

    #[test]
    fn a_pull_request_that_passes_is_split_and_scored() {
        let instance = verdict(&FilterConfig::default(), pull()).expect("accepted");
        assert_eq!((instance.patch.as_str(), instance.test_patch.as_str()), (FIX, TEST));
        assert_eq!(instance.extra[QUALITY_FIELD]["issue_quotes_patch"], json!(0.0));
        let multi = json!({
            "org": "pallets", "repo": "click", "number": 12, "base": {"sha": BASE}, "fix_patch": FIX,
            "test_patch": TEST, "resolved_issues": [{"title": "t", "body": "b"}],
        });
        let Judged::Accepted { instance, unknown } =
            Filter::new(FilterConfig::default(), EvaluationSet::default()).judge(multi)
        else {
            panic!("accepted")
        };
        assert_eq!(instance.instance_id, "pallets__click-12");
        assert_eq!(unknown, [Stage::Stars, Stage::Language]);
    }

    #[test]
    fn every_stage_turns_away_with_its_reason() {
        let check = |row: Value, stage: Stage, why: &str| {
            let (got, reason) = verdict(&FilterConfig::default(), row).expect_err(why);
            assert!(got == stage && reason.contains(why), "{got:?}: {reason}, expected {stage:?}: {why}");
        };
        check(json!(7), Stage::Row, "expected an object");
        check(with("stars", json!(4)), Stage::Stars, "4, expected at least 5");
        check(with("language", json!("Rust")), Stage::Language, "expected Python");
        check(with("issues", json!([{ "title": "t", "body": " " }])), Stage::Issue, "description");
        check(with("issues", json!([])), Stage::Issue, "description");
        check(with("patch", json!("")), Stage::Fix, "empty");
        check(with("patch", json!("mend it")), Stage::Fix, "no diff");
        check(with("patch", json!(TEST)), Stage::Fix, "is a test");
        check(with("patch", json!(FIX)), Stage::Tests, "no test");
        check(with("base_commit", json!("main")), Stage::Fields, "base_commit");
        check(
            with("patch", json!(format!("{TEST}{}", FIX.replace("+1", "+1,9")))),
            Stage::Fields,
            "not a git diff",
        );
        let picture =
            "diff --git a/x.png b/x.png\nindex 0..1 100644\nBinary files a/x.png and b/x.png differ\n";
        check(with("patch", json!(format!("{TEST}{picture}"))), Stage::Fields, "x.png was left out");
        check(with("base_commit", json!("f".repeat(40))), Stage::Evaluation, "base commit");
        let mut evaluated = with("repo", json!("a/B"));
        evaluated["pull_number"] = json!(7);
        check(evaluated.clone(), Stage::Evaluation, "pull request");
        // Not known, but for the id.
        (evaluated["pull_number"], evaluated["instance_id"]) = (json!(0), json!("a__b-7"));
        check(evaluated.clone(), Stage::Evaluation, "pull request");
        evaluated["base_commit"] = json!("F".repeat(40));
        check(evaluated, Stage::Evaluation, "base commit");
        let multi = json!({
            "org": "A", "repo": "b", "number": "7", "base": {"sha": BASE}, "fix_patch": FIX, "test_patch": TEST,
            "resolved_issues": [{"title": "t", "body": "b"}],
        });
        check(multi, Stage::Evaluation, "pull request");
        check(with("stars", json!(4.0)), Stage::Stars, "4, expected at least 5");
        check(with("stars", json!("4")), Stage::Stars, "4, expected at least 5");
        check(with("stars", json!([4])), Stage::Stars, "expected a whole number, found a list");
        check(with("language", json!(["Rust"])), Stage::Language, "expected a language");
        let mut tests_only = with("patch", json!(TEST));
        tests_only["test_patch"] = json!(TEST);
        check(tests_only, Stage::Fix, "is a test");
    }

    #[test]
    fn earlier_stages_come_first() {
        let mut row = with("stars", json!(0));
        for field in ["language", "patch", "base_commit"] {
            row[field] = json!("wrong");
        }
        assert_eq!(verdict(&FilterConfig::default(), row).map_err(|(stage, _)| stage), Err(Stage::Stars));
    }

    #[test]
    fn what_is_off_by_default_can_be_asked_for() {
        let check = |change: fn(&mut FilterConfig), row: Value, expected: Result<(), Stage>| {
            let mut config = FilterConfig::default();
            change(&mut config);
            assert_eq!(verdict(&config, row).map(drop).map_err(|(stage, _)| stage), expected);
        };
        check(|c| c.licences = vec!["bsd-3-clause".to_owned()], pull(), Ok(()));
        check(|c| c.licences = vec!["MIT".to_owned()], pull(), Err(Stage::Licence));
        let unlicensed = || with("license", Value::Null);
        check(|_| (), unlicensed(), Ok(()));
        check(|c| c.licences = vec!["MIT".to_owned()], unlicensed(), Err(Stage::Licence));
        let lenient = |c: &mut FilterConfig| (c.licences, c.licence_unknown) = (vec!["MIT".to_owned()], true);
        check(lenient, unlicensed(), Ok(()));
        check(lenient, pull(), Err(Stage::Licence));
        check(|c| c.licences = vec!["MIT".to_owned()], with("license", json!(["x"])), Err(Stage::Licence));
        check(|c| c.patch_bytes_max = 10, pull(), Err(Stage::Size));
        check(|c| c.patch_files_max = 1, pull(), Err(Stage::Size));
        check(|c| c.evaluation_repositories = true, with("repo", json!("a/b")), Err(Stage::Evaluation));
        check(|_| (), with("repo", json!("a/b")), Ok(()));
        let told = with("problem_statement", json!("x.py is wrong"));
        check(|c| c.issue_names_place_max = Some(0.4), told.clone(), Err(Stage::Quality));
        check(|c| c.issue_names_place_max = Some(0.5), told, Ok(()));
    }
}

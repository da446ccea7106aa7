use base_images::{Choice, PythonVersion};
use jiff::ToSpan;
use jiff::civil::Date;
use queue_format::{FailureReason, PythonRecord};

use super::BrainError;
use super::project::Project;
use super::text::python_spec_allows;

/// How long a Python must be out before a project that does not name it is given it.
const SETTLING_DAYS: i64 = 90;

/// Chooses the highest Python that the project's files allow and name and that was out on `day`.
///
/// `refused` are Pythons that were tried and found too new or too old.
pub(super) fn choose(
    project: &Project,
    day: Date,
    available: &[PythonVersion],
    refused: &[PythonVersion],
) -> Result<(PythonVersion, PythonRecord), BrainError> {
    let available: Vec<PythonVersion> = available.iter().copied().filter(|v| !refused.contains(v)).collect();
    let by_spec = |version: PythonVersion| {
        !refused.contains(&version)
            && project.python_specs.iter().all(|(spec, _)| python_spec_allows(spec, version))
    };
    let named: Vec<PythonVersion> =
        project.python_lists.iter().flat_map(|(list, _)| list.iter().copied()).collect();
    let by_name = |version: PythonVersion| named.contains(&version) && by_spec(version);
    let settled = day.checked_sub(SETTLING_DAYS.days()).unwrap_or(day);
    let python3 = |version: PythonVersion| version.major() == 3 && by_spec(version);

    let specs = || {
        project
            .python_specs
            .iter()
            .map(|(spec, file)| format!("{spec} in {file}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let everything: Vec<PythonVersion> =
        base_images::CATALOGUE.iter().map(|release| release.version).collect();
    if let Some(wanted) = base_images::choose(day, &everything, by_name).map(|choice| choice.wanted) {
        let here = |by: &dyn Fn(PythonVersion) -> bool| {
            let candidates: Vec<PythonVersion> =
                available.iter().copied().filter(|version| by(*version)).collect();
            base_images::nearest(wanted, &candidates).first().copied()
        };
        if let Some(chosen) = here(&by_name).or_else(|| here(&python3)).or_else(|| here(&by_spec)) {
            let highest = project.python_lists.iter().find(|(list, _)| list.contains(&wanted));
            let file = highest.map_or("the project's files", |(_, file)| file);
            let why =
                format!("the highest that {file} names{} and that was out on {day}", and_allows(&specs()));
            return Ok(record(Choice { wanted, chosen }, why));
        }
    }
    let allowed = if project.python_specs.is_empty() {
        "no file says which".to_owned()
    } else {
        format!("allowed by {}", specs())
    };
    let of_the_day = base_images::choose(settled, &available, python3)
        .or_else(|| base_images::choose(day, &available, by_spec))
        .map(|choice| {
            (choice, format!("the highest that had been out for {SETTLING_DAYS} days on {day}; {allowed}"))
        });
    // Nothing that the project allows is here: the nearest of all, and the record says so.
    let nearest = || {
        let choice = base_images::choose(day, &available, |version| {
            version.major() == 3 && !refused.contains(&version)
        })?;
        Some((
            choice,
            format!("none of the Pythons that the project allows ({allowed}) has a base image here"),
        ))
    };
    let (choice, why) = of_the_day.or_else(nearest).ok_or_else(|| BrainError::Unsolvable {
        reason: FailureReason::Build,
        detail: "no base image is on this node: make some with 'bottega images build'".to_owned(),
    })?;
    Ok(record(choice, why))
}

fn and_allows(specs: &str) -> String {
    if specs.is_empty() { String::new() } else { format!(", that {specs} allows") }
}

fn record(choice: Choice, why: String) -> (PythonVersion, PythonRecord) {
    let why = if choice.is_substitute() {
        format!("{why}; there is no base image of {} here, {} is the nearest", choice.wanted, choice.chosen)
    } else {
        why
    };
    (choice.chosen, PythonRecord { wanted: choice.wanted.to_string(), used: choice.chosen.to_string(), why })
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::super::text::python_versions_in;
    use super::*;

    #[test]
    fn takes_the_highest_python_that_files_name_and_the_day_knew() {
        let check = |day: Date, spec: &str, named: &str, available: &str, expected: (&str, &str)| {
            let mut project = Project::default();
            if !spec.is_empty() {
                project.python_specs.push((spec.to_owned(), "setup.py"));
            }
            if !named.is_empty() {
                project.python_lists.push((python_versions_in(named), "the classifiers in setup.py"));
            }
            let (_, record) = choose(&project, day, &python_versions_in(available), &[]).unwrap();
            assert_eq!(
                (record.wanted.as_str(), record.used.as_str()),
                expected,
                "{day} {spec} {named}: {}",
                record.why
            );
        };
        let all = "2.7 3.6 3.7 3.8 3.9 3.10 3.11 3.12 3.13";
        check(date(2020, 5, 1), ">=3.6", "3.6 3.7 3.8 3.9", all, ("3.8", "3.8"));
        check(date(2020, 5, 1), "", "2.7 3.5", "3.6 3.7", ("3.5", "3.6"));
        check(date(2020, 5, 1), "", "2.7", all, ("2.7", "2.7"));
        check(date(2020, 5, 1), "", "", all, ("3.8", "3.8"));
        check(date(2019, 11, 1), "", "", all, ("3.7", "3.7"));
        check(date(2026, 5, 1), ">=3.10", "3.10 3.14", all, ("3.14", "3.10"));
        check(date(2026, 5, 1), ">=3.10", "3.13 3.14", all, ("3.14", "3.13"));
        check(date(2022, 5, 1), ">=3.6,<3.9", "", all, ("3.8", "3.8"));
        check(date(2018, 1, 1), "==3.4.*", "", all, ("3.6", "3.6"));
    }

    #[test]
    fn leaves_out_what_was_tried() {
        let project = Project::default();
        let available = python_versions_in("3.9 3.10");
        let refused = python_versions_in("3.10");
        let (python, _) = choose(&project, date(2022, 5, 1), &available, &refused).unwrap();
        assert_eq!(python, PythonVersion::new(3, 9));
    }
}

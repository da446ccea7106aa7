use super::{Repair, Surroundings, capture, captures};
use crate::synthesis::recipe::Recipe;
use crate::synthesis::text::normalise;

/// The last day on which setuptools still translated Python 2 sources.
const LAST_TRANSLATING_SETUPTOOLS: (&str, &str) = ("setuptools", "2021-09-01T00:00:00Z");

/// The resolver's own words.
pub(super) fn resolution(recipe: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let unsolved = ["No solution found", "ResolutionImpossible", "No matching distribution"];
    if !unsolved.iter().any(|text| log.contains(text)) {
        return Vec::new();
    }
    if !recipe.constraints.is_empty() {
        return vec![Repair::DropLock];
    }
    let gone = captures(r"Because ([\w.-]+) was not found in the package registry", log).into_iter();
    let gone = gone.chain(captures(r"No matching distribution found for ([\w.-]+)", log));
    let mut repairs: Vec<Repair> = gone.map(|name| Repair::DropRequirement(normalise(name))).collect();
    for name in captures(r"`([\w.-]+)` was filtered by `exclude-newer`[^\n]*published at", log) {
        let published = format!(
            r"`{}` was filtered by `exclude-newer`[^\n]*published at (\d{{4}}-\d\d-\d\dT\d\d:\d\d)",
            regex::escape(name)
        );
        let Some(minute) = capture(&published, log) else { continue };
        // The cut excludes its own moment: the end of that minute.
        let uncut = Repair::Uncut(normalise(name), format!("{minute}:59Z"));
        repairs.push(if name == "setuptools" { Repair::complete_setuptools() } else { uncut });
    }
    if repairs.is_empty() {
        repairs.extend(loosen(recipe));
    }
    repairs
}

/// What is given up next where the requirements do not fit together: versions, the date, extras.
pub(super) fn loosen(recipe: &Recipe) -> Option<Repair> {
    if !recipe.constraints.is_empty() {
        Some(Repair::DropLock)
    } else if recipe.requirements.iter().any(|requirement| !requirement.versions.is_empty()) {
        Some(Repair::DropPins)
    } else if recipe.exclude_newer.is_some() {
        Some(Repair::NoDate)
    } else {
        (!recipe.extras.is_empty()).then_some(Repair::DropExtras)
    }
}

/// A dependency that the day's tools cannot build here: with other tools, else from a newer wheel, else not at all.
pub(super) fn builds(recipe: &Recipe, _: &Surroundings, log: &str) -> Vec<Repair> {
    let Some(name) = capture(r"Failed to (?:download and )?build `?([\w.-]+)(?:==| @)", log).map(normalise)
    else {
        return Vec::new();
    };
    if recipe.name.as_deref().map(normalise).as_ref() == Some(&name) || log.contains("@ file:///testbed`") {
        return Vec::new();
    }
    let translating = log.contains("use_2to3 is invalid");
    let (tool, until) = LAST_TRANSLATING_SETUPTOOLS;
    let tools = if translating {
        Repair::Uncut(tool.to_owned(), until.to_owned())
    } else {
        Repair::complete_setuptools()
    };
    let Repair::Uncut(tool, until) = &tools else { return Vec::new() };
    if recipe.exclude_newer_package.get(tool) != Some(until) {
        return vec![tools];
    }
    if recipe.requirements.iter().any(|requirement| requirement.name == name) {
        return vec![Repair::DropRequirement(name)];
    }
    let newest = Repair::Uncut(name.clone(), until.clone());
    if recipe.exclude_newer_package.contains_key(&name) {
        loosen(recipe).into_iter().collect()
    } else {
        vec![newest]
    }
}

#[cfg(test)]
mod tests {
    use base_images::PythonVersion;

    use super::super::super::recipe::tests::recipe;
    use super::super::diagnose_build;
    use super::*;

    fn check(recipe: &Recipe, log: &str, expected: &[Repair]) {
        let found = diagnose_build(recipe, &Surroundings::default(), log, |_| true);
        assert_eq!(found, expected, "{log}");
    }

    #[test]
    fn reads_the_resolver() {
        let mut recipe = recipe(PythonVersion::new(3, 9));
        let unsolved = "error: No solution found when resolving dependencies\n  cause: ";
        let filtered = format!(
            "{unsolved}Because only pytest<=5.3.2 is available and you require pytest>=7, …\n\nhint: `pytest` was filtered by `exclude-newer` to only include packages uploaded before 2020-01-01T00:00:00Z. The latest version satisfying the requirement is v9.2.0, published at 2026-10-27T21:30:19Z. Consider …\n"
        );
        check(&recipe, &filtered, &[Repair::Uncut("pytest".to_owned(), "2026-10-27T21:30:59Z".to_owned())]);
        let gone = format!(
            "{unsolved}Because no-such-dist was not found in the package registry and you require no-such-dist, …\n"
        );
        check(&recipe, &gone, &[Repair::DropRequirement("no-such-dist".to_owned())]);
        let conflict = format!(
            "{unsolved}Because you require mock<4 and mock>5, we can conclude that your requirements are unsatisfiable.\n"
        );
        recipe.constraints.insert("mock==3.0".to_owned());
        for expected in [Repair::DropLock, Repair::DropPins, Repair::NoDate, Repair::DropExtras] {
            check(&recipe, &conflict, std::slice::from_ref(&expected));
            expected.apply(&mut recipe);
        }
        assert_eq!(loosen(&recipe), None);
    }

    #[test]
    fn blames_a_dependency_for_its_own_build() {
        let mut recipe = recipe(PythonVersion::new(3, 9));
        let log = "error: Failed to build `future==0.16.0`\n  cause: The build backend returned an error\n AttributeError: 'HTMLParser' object has no attribute 'unescape'\n";
        let until = "2026-02-01T00:00:00Z".to_owned();
        for expected in [
            Repair::complete_setuptools(),
            Repair::Uncut("future".to_owned(), until),
            Repair::DropPins,
            Repair::NoDate,
        ] {
            check(&recipe, log, std::slice::from_ref(&expected));
            expected.apply(&mut recipe);
        }
    }

    #[test]
    fn does_without_a_listed_one_that_cannot_be_built() {
        let mut recipe = recipe(PythonVersion::new(3, 9));
        let log = "error: Failed to build `mock==2.0`\n error in mock setup command: use_2to3 is invalid.\n";
        for expected in [
            Repair::Uncut("setuptools".to_owned(), "2021-09-01T00:00:00Z".to_owned()),
            Repair::DropRequirement("mock".to_owned()),
        ] {
            check(&recipe, log, std::slice::from_ref(&expected));
            expected.apply(&mut recipe);
        }
    }
}

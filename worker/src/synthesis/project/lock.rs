use std::collections::BTreeMap;

use toml::Table;

use super::model::Project;
use crate::synthesis::text::normalise;
use crate::synthesis::tree::Tree;

/// The most versions that are taken from a lock file.
const PACKAGES_MAX: usize = 400;

/// Reads the versions of a lock file. Those with several versions of one package are left to the resolver.
pub(super) fn read(tree: &Tree, project: &mut Project) {
    for file in ["uv.lock", "poetry.lock", "pdm.lock"] {
        let Some(root) = tree.read(file).and_then(|text| text.parse::<Table>().ok()) else { continue };
        let packages = root.get("package").and_then(toml::Value::as_array).into_iter().flatten();
        let versions = packages.filter_map(|package| {
            let from_index = package.get("source").is_none_or(|source| source.get("registry").is_some());
            let name = package.get("name")?.as_str()?;
            from_index.then_some((name.to_owned(), package.get("version")?.as_str()?.to_owned()))
        });
        return keep(project, file, versions);
    }
    let Some(text) = tree.read("Pipfile.lock") else { return };
    let Ok(root) = serde_json::from_str::<serde_json::Value>(&text) else { return };
    let sections = ["default", "develop"].into_iter().filter_map(|section| root.get(section)?.as_object());
    let versions = sections.flatten().filter_map(|(name, package)| {
        Some((name.clone(), package.get("version")?.as_str()?.trim_start_matches("==").to_owned()))
    });
    keep(project, "Pipfile.lock", versions);
}

fn keep(project: &mut Project, file: &'static str, versions: impl Iterator<Item = (String, String)>) {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version) in versions.take(PACKAGES_MAX) {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+!".contains(&b));
        if plain(&name) && plain(&version) {
            let known = by_name.entry(normalise(&name)).or_default();
            if !known.contains(&version) {
                known.push(version);
            }
        }
    }
    let single = by_name.into_iter().filter_map(|(name, versions)| match versions.as_slice() {
        [one] => Some(format!("{name}=={one}")),
        _ => None,
    });
    project.locked = single.collect();
    project.lock_file = Some(file);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_lock_file() {
        let check = |file: &str, text: &str, expected: &[&str]| {
            let (_root, tree) = Tree::of(&[(file, text)]);
            let mut project = Project::default();
            read(&tree, &mut project);
            assert_eq!(project.locked, expected, "{file}");
        };
        check(
            "uv.lock",
            "[[package]]\nname='Foo_Bar'\nversion='1.0'\nsource={registry='x'}\n[[package]]\nname='self'\nversion='2'\nsource={editable='.'}\n",
            &["foo-bar==1.0"],
        );
        check(
            "poetry.lock",
            "[[package]]\nname='a'\nversion='1'\n[[package]]\nname='b'\nversion='1'\n[[package]]\nname='b'\nversion='2'\n",
            &["a==1"],
        );
        check(
            "Pipfile.lock",
            "{\"develop\": {\"pytest\": {\"version\": \"==5.0\"}, \"x\": {\"git\": \"u\"}}}",
            &["pytest==5.0"],
        );
        check("Pipfile.lock", "not json", &[]);
    }
}

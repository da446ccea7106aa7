//! What import names, fixtures, options and headers belong to.

/// Import names whose distribution is called otherwise, or is known well enough to be installed on sight.
const DISTRIBUTIONS: &str = include_str!("tables/distributions.txt");

/// pytest options and configuration keys, and the plugin that knows them.
const OPTION_PLUGINS: &str = include_str!("tables/options.txt");

/// Keys of pytest's configuration, and the plugin that knows each.
const KEY_PLUGINS: &str = include_str!("tables/keys.txt");

/// Fixtures, and the plugin that provides each.
const FIXTURE_PLUGINS: &str = include_str!("tables/fixtures.txt");

/// Marks, and the plugin that gives each its meaning.
const MARK_PLUGINS: &str = include_str!("tables/marks.txt");

/// Headers, libraries and programs, and the Debian package of each.
const SYSTEM_PACKAGES: &str = include_str!("tables/system.txt");

/// Modules of the standard library that tests import at their top, of Python 2.7 to 3.14.
const STANDARD: &str = include_str!("tables/standard.txt");

/// The distribution of an import name that is known by the table.
pub(super) fn known_distribution(module: &str) -> Option<&'static str> {
    let top = module.split('.').next().unwrap_or(module);
    find(DISTRIBUTIONS, module).or_else(|| find(DISTRIBUTIONS, top))
}

/// The distribution of an import name: the table's, else the name itself. `None` for what no index has.
pub(super) fn distribution(module: &str) -> Option<String> {
    let top = module.split('.').next().unwrap_or(module);
    if top.is_empty()
        || top.starts_with('_')
        || is_standard(top)
        || !top.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    {
        return None;
    }
    Some(known_distribution(module).map_or_else(|| super::text::normalise(top), str::to_owned))
}

/// Whether the standard library has this module, now or once.
pub(super) fn is_standard(module: &str) -> bool {
    STANDARD.split_whitespace().any(|name| name == module)
}

/// The plugin that knows a pytest option such as `--cov-report=xml`.
pub(super) fn option_plugin(option: &str) -> Option<&'static str> {
    let option = option.split('=').next().unwrap_or(option);
    let short = |name: &str| {
        !name.starts_with("--")
            && option.starts_with(name)
            && option[name.len()..].bytes().all(|b| b.is_ascii_digit() || b == b'a')
    };
    let long =
        |name: &str| option == name || option.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    rows(OPTION_PLUGINS).find(|(name, _)| long(name) || short(name)).map(|(_, plugin)| plugin)
}

/// Every key that belongs to a plugin.
pub(super) fn plugin_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows(KEY_PLUGINS)
}

/// The plugin that provides a fixture.
pub(super) fn fixture_plugin(fixture: &str) -> Option<&'static str> {
    find(FIXTURE_PLUGINS, fixture)
}

/// The plugin that gives a mark its meaning.
pub(super) fn mark_plugin(mark: &str) -> Option<&'static str> {
    find(MARK_PLUGINS, mark)
}

/// The Debian packages with a header, a library or a program.
pub(super) fn system_packages(wanted: &str) -> Option<&'static str> {
    find(SYSTEM_PACKAGES, wanted.trim())
}

fn find(table: &'static str, key: &str) -> Option<&'static str> {
    rows(table).find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// A table's rows: a name, blanks, and the rest of the line.
fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    table
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .map(|(name, value)| (name, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_imports_to_distributions() {
        let check = |module: &str, expected: Option<&str>| {
            assert_eq!(distribution(module).as_deref(), expected, "{module}");
        };
        check("yaml", Some("pyyaml"));
        check("google.protobuf.text_format", Some("google"));
        check("google.protobuf", Some("protobuf"));
        check("dateutil.tz", Some("python-dateutil"));
        check("my_helper", Some("my-helper"));
        check("os.path", None);
        check("_private", None);
        check("../x", None);
        check("pkg_resources", Some("setuptools<81"));
    }

    #[test]
    fn maps_options_to_plugins() {
        let check =
            |option: &str, expected: Option<&str>| assert_eq!(option_plugin(option), expected, "{option}");
        check("--cov", Some("pytest-cov"));
        check("--cov-report=xml", Some("pytest-cov"));
        check("--cov=pkg", Some("pytest-cov"));
        check("-n4", Some("pytest-xdist"));
        check("-nauto", None);
        check("--color=yes", None);
        check("--strict", None);
    }

    #[test]
    fn tables_name_nothing_twice() {
        for table in
            [DISTRIBUTIONS, OPTION_PLUGINS, KEY_PLUGINS, FIXTURE_PLUGINS, MARK_PLUGINS, SYSTEM_PACKAGES]
        {
            let mut keys: Vec<&str> = rows(table).map(|(key, _)| key).collect();
            keys.sort_unstable();
            let all = keys.len();
            assert!(all > 5 && all == table.lines().count());
            keys.dedup();
            assert_eq!(keys.len(), all);
        }
    }
}

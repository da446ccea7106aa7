use std::sync::LazyLock;

use regex::Regex;

/// The longest id that is kept, in bytes; a longer one ends with a digest instead.
const ID_BYTES_MAX: usize = 1000;

static ADDRESS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("0x[0-9a-fA-F]{6,16}").ok());

/// A test's id as pytest writes it on its command line: `tests/test_x.py::Class::test[param]`.
///
/// JUnit XML has it in pieces: the class name is the file's path with dots, and the classes in it. The `file`
/// attribute is where the test is *defined*, which may be the file of a base class; then the targets tell.
pub(super) fn of_test(file: Option<&str>, class_name: &str, name: &str, targets: &[String]) -> String {
    let files = file.into_iter().chain(targets.iter().map(String::as_str));
    let mut fitting = files.filter_map(|file| Some((file, classes_in(file, class_name)?)));
    let (file, classes) = match fitting.next() {
        Some((file, classes)) => (file.to_owned(), classes),
        None => guessed(class_name),
    };
    let parts = std::iter::once(file).chain(classes).filter(|part| !part.is_empty());
    stable(&parts.chain([name.to_owned()]).collect::<Vec<_>>().join("::"))
}

/// The file whose collection a case is about: its name is the path with dots.
pub(super) fn of_file(file: Option<&str>, class_name: &str, name: &str, targets: &[String]) -> String {
    let dotted = if class_name.is_empty() { name } else { class_name };
    let by_target = || targets.iter().map(String::as_str).find(|target| mangled(target) == dotted);
    file.or_else(by_target).map_or_else(|| format!("{}.py", dotted.replace('.', "/")), str::to_owned)
}

/// The same in every run: memory addresses left out, control characters escaped, of bounded length.
pub(super) fn stable(id: &str) -> String {
    let id: String = id
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    let id = ADDRESS.as_ref().map_or(id.clone(), |address| address.replace_all(&id, "0x…").into_owned());
    if id.len() <= ID_BYTES_MAX {
        return id;
    }
    let digest = blake3::hash(id.as_bytes()).to_hex();
    let end = (0..=ID_BYTES_MAX - 20).rev().find(|&at| id.is_char_boundary(at)).unwrap_or(0);
    format!("{}…{}", &id[..end], &digest[..16])
}

/// The classes between file and test, if the class name begins with the file.
fn classes_in(file: &str, class_name: &str) -> Option<Vec<String>> {
    match class_name.strip_prefix(&mangled(file))? {
        "" => Some(Vec::new()),
        rest => Some(rest.strip_prefix('.')?.split('.').map(str::to_owned).collect()),
    }
}

fn mangled(file: &str) -> String {
    file.strip_suffix(".py").unwrap_or(file).replace('/', ".")
}

/// Classes begin with a capital, modules do not.
fn guessed(class_name: &str) -> (String, Vec<String>) {
    let parts: Vec<&str> = class_name.split('.').collect();
    let is_class = |part: &&str| part.starts_with(|c: char| c.is_ascii_uppercase());
    let (modules, classes) = parts.split_at(parts.iter().position(is_class).unwrap_or(parts.len()));
    let file = if modules.concat().is_empty() { String::new() } else { format!("{}.py", modules.join("/")) };
    (file, classes.iter().map(|&part| part.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_pytests_own() {
        let targets = ["tests/test_a.py".to_owned(), "tests/doc.txt".to_owned()];
        for (file, class_name, name, expected) in [
            (Some("tests/test_a.py"), "tests.test_a", "test_x[a.b]", "tests/test_a.py::test_x[a.b]"),
            (
                Some("tests/test_a.py"),
                "tests.test_a.TestO.TestI",
                "test_x",
                "tests/test_a.py::TestO::TestI::test_x",
            ),
            (Some("tests/base.py"), "tests.test_a.TestO", "test_x", "tests/test_a.py::TestO::test_x"),
            (None, "tests.test_a.TestO", "test_x", "tests/test_a.py::TestO::test_x"),
            (None, "tests.test_ab", "test_x", "tests/test_ab.py::test_x"),
            (None, "other.deep.Case", "test_x", "other/deep.py::Case::test_x"),
            (Some("/usr/lib/x.py"), "other.mod", "test_x", "other/mod.py::test_x"),
            (Some("tests/doc.txt"), "tests.doc.txt", "doc.txt", "tests/doc.txt::doc.txt"),
            (None, "Case", "test_x", "Case::test_x"),
            (None, "", "test_x", "test_x"),
            (None, "tests.test_a", "t[<f at 0x7f3a5c0d1e80>]", "tests/test_a.py::t[<f at 0x…>]"),
            (None, "tests.test_a", "t[0x10]", "tests/test_a.py::t[0x10]"),
            (None, "tests.test_a", "t[\u{1b}[31m\n]", "tests/test_a.py::t[\\u{1b}[31m\\n]"),
        ] {
            assert_eq!(of_test(file, class_name, name, &targets), expected);
        }
        for (file, class_name, name, expected) in [
            (Some("tests/test_b.py"), "", "tests.test_b", "tests/test_b.py"),
            (None, "", "tests.test_a", "tests/test_a.py"),
            (None, "", "tests.test_b", "tests/test_b.py"),
            (None, "tests.test_a", "TestBroken", "tests/test_a.py"),
        ] {
            assert_eq!(of_file(file, class_name, name, &targets), expected);
        }
    }

    #[test]
    fn long_ids_stay_apart() {
        let [a, b] = ["a", "b"].map(|end| stable(&format!("{}{end}", "é".repeat(2000))));
        assert!(a != b && a.len() <= ID_BYTES_MAX + 20);
    }
}

//! The images that tasks name.

use std::collections::HashSet;

use base_images::short_name;
use queue_format::repository_and_tag;

use crate::inventory::Image;

/// The images that tasks are to run in. A name may mean several images, where engines differ: it keeps all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedImages {
    /// Names without digest, as engines list them, without [`LATEST`].
    names: HashSet<String>,
    /// What names with a digest are of.
    repositories: HashSet<String>,
    /// Ids or beginnings of them, in hexadecimal digits.
    ids: HashSet<String>,
}

/// What an engine adds to a name without a tag.
const LATEST: &str = ":latest";
/// What it puts before an id.
const ALGORITHM: &str = "sha256:";

impl NamedImages {
    /// One more name, as a task has it.
    pub fn insert(&mut self, name: &str) {
        for name in [short_name(name, false), short_name(name, true)] {
            let id = match name.split_once('@') {
                // Of what a registry has: an image whose name has none of the tags beside it may be that.
                Some((named, digest)) => {
                    self.repositories.insert(repository_and_tag(named).0.to_owned());
                    digest
                }
                None => {
                    self.names.insert(without_latest(name).to_owned());
                    name
                }
            };
            let digits = id.strip_prefix(ALGORITHM).unwrap_or(id);
            if !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                self.ids.insert(digits.to_owned());
            }
        }
    }

    /// Those of others too.
    pub(crate) fn join(&mut self, others: Self) {
        self.names.extend(others.names);
        self.repositories.extend(others.repositories);
        self.ids.extend(others.ids);
    }

    /// Whether one of them may mean an image.
    #[must_use]
    pub fn mean(&self, image: &Image) -> bool {
        let is_of = |tag: &String| {
            self.names.contains(without_latest(tag)) || self.repositories.contains(repository_and_tag(tag).0)
        };
        let digits = image.id.trim_start_matches(ALGORITHM);
        image.tags.iter().any(is_of) || self.ids.iter().any(|id| digits.starts_with(id))
    }
}

impl<N: AsRef<str>> Extend<N> for NamedImages {
    fn extend<T: IntoIterator<Item = N>>(&mut self, names: T) {
        names.into_iter().for_each(|name| self.insert(name.as_ref()));
    }
}

impl<N: AsRef<str>> FromIterator<N> for NamedImages {
    fn from_iter<T: IntoIterator<Item = N>>(names: T) -> Self {
        let mut named = Self::default();
        named.extend(names);
        named
    }
}

/// Whether an engine's tag is what a name without digest means.
pub(crate) fn is_tag(tag: &str, name: &str) -> bool {
    without_latest(tag) == without_latest(name)
}

fn without_latest(name: &str) -> &str {
    name.strip_suffix(LATEST).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn an_image_is_named_in_many_ways() {
        let image = Image {
            id: "sha256:0123abcd".to_owned(),
            parent_id: None,
            tags: vec!["openswe--x:latest".to_owned(), "there:5000/y:2".to_owned()],
            labels: HashMap::new(),
            created_at: None,
            size_bytes: 0,
        };
        let check = |name: &str, expected: bool| {
            assert_eq!(NamedImages::from_iter([name]).mean(&image), expected, "{name}");
            let among = NamedImages::from_iter(["openswe--other", name, "there:5000/y:3"]);
            assert_eq!(among.mean(&image), expected, "{name} among others");
        };
        check("openswe--x", true);
        check("openswe--x:latest", true);
        check("localhost/openswe--x:latest", true);
        check("docker.io/library/openswe--x", true);
        check("docker.io/openswe--x:latest", true);
        check("there:5000/y:2", true);
        check("sha256:0123abcd", true);
        check("0123abcd", true);
        check("0123", true);
        let digest = format!("@sha256:{}", "f".repeat(64));
        check(&format!("openswe--x{digest}"), true);
        check(&format!("docker.io/library/openswe--x:7{digest}"), true);
        check("elsewhere@sha256:0123abcd", true);
        check(&format!("openswe--y{digest}"), false);
        check(&format!("there:5000/z{digest}"), false);
        check("openswe--x:1", false);
        check("openswe--y", false);
        check("there:5000/y", false);
        check("elsewhere/openswe--x", false);
        check("abcd", false);
        check("", false);
    }
}

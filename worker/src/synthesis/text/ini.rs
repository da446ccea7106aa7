/// An INI file as Python's `configparser` reads it: indented lines continue a value, `#` and `;` begin comments.
#[derive(Debug, Default)]
pub(in crate::synthesis) struct Ini {
    sections: Vec<(String, Vec<(String, String)>)>,
}

impl Ini {
    /// Reads a file; lines that are nothing known are passed over.
    pub(in crate::synthesis) fn parse(text: &str) -> Self {
        let mut sections: Vec<(String, Vec<(String, String)>)> = Vec::new();
        for line in text.lines() {
            let bare = line.trim();
            if bare.is_empty() || bare.starts_with(['#', ';']) {
                continue;
            }
            let indented = line.starts_with([' ', '\t']);
            let open_entry = sections.last_mut().and_then(|(_, entries)| entries.last_mut());
            match (indented, open_entry) {
                (true, Some((_, value))) => {
                    value.push('\n');
                    value.push_str(without_comment(bare));
                }
                _ if bare.starts_with('[') => {
                    let name = bare.trim_start_matches('[').split(']').next().unwrap_or_default();
                    sections.push((name.trim().to_owned(), Vec::new()));
                }
                _ => {
                    let Some(at) = bare.find(['=', ':']) else { continue };
                    let Some((_, entries)) = sections.last_mut() else { continue };
                    let key = bare[..at].trim().to_lowercase();
                    entries.push((key, without_comment(bare[at + 1..].trim()).to_owned()));
                }
            }
        }
        Self { sections }
    }

    /// A value; of several the last, as Python has it.
    pub(in crate::synthesis) fn get(&self, section: &str, key: &str) -> Option<&str> {
        let sections = self.sections.iter().filter(|(name, _)| name == section);
        let mut entries = sections.flat_map(|(_, entries)| entries);
        entries.rfind(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// A section's keys and values.
    pub(in crate::synthesis) fn section<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let sections = self.sections.iter().filter(move |(section, _)| section == name);
        sections.flat_map(|(_, entries)| entries.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    /// The sections' names, in order.
    pub(in crate::synthesis) fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|(name, _)| name.as_str())
    }
}

/// Comments after a value begin with a blank and `#` (tox and setuptools agree on that much).
fn without_comment(value: &str) -> &str {
    value.split_once(" #").map_or(value, |(before, _)| before.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_configparser_reads() {
        let ini = Ini::parse(
            "; head\n[options]\nInstall_Requires =\n    attrs>=19  # newer\n\n    # note\n    six\npython_requires: >=3.6\n[tool:pytest]\naddopts = -v\n addopt2\n",
        );
        let check = |section: &str, key: &str, expected: Option<&str>| {
            assert_eq!(ini.get(section, key), expected, "[{section}] {key}");
        };
        check("options", "install_requires", Some("\nattrs>=19\nsix"));
        check("options", "python_requires", Some(">=3.6"));
        check("tool:pytest", "addopts", Some("-v\naddopt2"));
        check("tool:pytest", "missing", None);
        check("missing", "addopts", None);
        assert_eq!(ini.names().collect::<Vec<_>>(), ["options", "tool:pytest"]);
    }
}

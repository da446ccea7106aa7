use std::path::Path;

/// Where the repository of a row, or a bundle of it, lies: a path or URL in which `{owner}`, `{name}` and `{repo}` (both, with a slash)
/// stand for what the row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

const PLACEHOLDERS: [&str; 3] = ["{owner}", "{name}", "{repo}"];

impl Template {
    /// Checks a template; a relative path counts from `working_dir`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, working_dir: &Path) -> Result<Self, String> {
        let bare = PLACEHOLDERS.iter().fold(text.to_owned(), |text, known| text.replace(known, "x"));
        if bare.contains(['{', '}']) {
            return Err(format!(
                "{text:?} has braces around something else than {{owner}}, {{name}} or {{repo}}"
            ));
        }
        let looks_remote =
            bare.contains("://") || bare.split('/').next().is_some_and(|first| first.contains(':'));
        let whole = if looks_remote || bare.starts_with(['/', '-']) || bare.trim().is_empty() {
            text.to_owned()
        } else {
            // Workers run elsewhere: a relative path would mean something else to each of them.
            working_dir.join(text).display().to_string()
        };
        check_repository(&PLACEHOLDERS.iter().fold(whole.clone(), |text, known| text.replace(known, "x")))?;
        Ok(Self(whole))
    }

    /// The repository of `repo`, which is a checked `owner/name`.
    #[must_use]
    pub fn fill(&self, repo: &str) -> String {
        let (owner, name) = repo.split_once('/').unwrap_or((repo, repo));
        self.0.replace("{repo}", repo).replace("{owner}", owner).replace("{name}", name)
    }
}

/// Checks that a text is an absolute path, or a URL of a transport that runs no command of its own.
///
/// # Errors
/// What is wrong with it, and what is expected.
pub fn check_repository(text: &str) -> Result<(), String> {
    const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];
    let expected = "expected an absolute path, a URL (https, http, ssh, git, file) or user@host:path";
    let shown = || text.chars().take(80).collect::<String>();
    if text.chars().any(char::is_control) {
        return Err(format!("{:?} has control characters; {expected}", shown()));
    }
    // What a task names is in the spool, in results and in logs.
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
        return Err(
            "it has a password in it, which everybody who sees the task would know; leave that to a \
                    credential helper or ssh on the nodes"
                .to_owned(),
        );
    }
    let is_scp = |text: &str| {
        text.split_once(':').is_some_and(|(host, path)| {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
            !host.starts_with('-') && host.contains('@') && host.chars().all(legal) && !path.starts_with(':')
        })
    };
    let is_fine = match text.split_once("://") {
        // A host that begins with a dash would be an option of ssh.
        Some((scheme, rest)) => SCHEMES.contains(&scheme) && !rest.is_empty() && !rest.starts_with('-'),
        None => text.starts_with('/') || is_scp(text),
    };
    if is_fine { Ok(()) } else { Err(format!("{:?} is no repository; {expected}", shown())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_the_row_says() {
        let check = |template: &str, expected: &str| {
            let parsed = Template::parse(template, Path::new("/here")).expect(template);
            assert_eq!(parsed.fill("pallets/click"), expected);
        };
        check("/mirrors/{owner}+{name}/repo", "/mirrors/pallets+click/repo");
        check("mirrors/{repo}.git", "/here/mirrors/pallets/click.git");
        check("https://forge.example/{repo}.git", "https://forge.example/pallets/click.git");
        check("ssh://git@forge.example:22/{repo}", "ssh://git@forge.example:22/pallets/click");
        check("git@forge.example:{owner}/{name}", "git@forge.example:pallets/click");
        check("/one/repository", "/one/repository");
        check("bundles/{owner}+{name}.bundle", "/here/bundles/pallets+click.bundle");
    }

    #[test]
    fn refuses_what_git_would_run_or_nobody_could_find() {
        for bad in [
            "",
            " ",
            "/m/{user}/x",
            "/m/{owner",
            "ext::sh -c x",
            "-u/{repo}",
            "ssh://-oProxy/x",
            "/a\nb",
            "ftp://x/y",
            "https://me:secret@forge.example/{repo}.git",
        ] {
            assert!(Template::parse(bad, Path::new("/here")).is_err(), "{bad:?}");
        }
        for bad in ["relative/path", "", "ext::sh -c touch% x", "fd::3", "-x", "a@b::c", "--upload-pack=x"] {
            assert!(check_repository(bad).is_err(), "{bad:?}");
        }
    }
}

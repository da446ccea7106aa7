//! What engines put in the place of variables, in their own process and outside every slot: bounded before a build.

use std::collections::HashMap;

use super::Instruction;

/// The most bytes that all instructions together may come to with their variables put in.
const EXPANDED_BYTES_MAX: usize = 256 << 10;
/// A variable that only the base image has is no longer.
const INHERITED_BYTES_MAX: usize = 1 << 10;
/// In these, variables are the shell's.
const OF_SHELL: [&str; 4] = ["RUN", "CMD", "ENTRYPOINT", "SHELL"];

/// How long what was written so far can become.
#[derive(Default)]
pub(super) struct Expansion<'a> {
    /// Bounds of the values of variables, by name.
    bounds: HashMap<&'a str, usize>,
    bytes: usize,
}

impl<'a> Expansion<'a> {
    /// What is wrong with the next instruction, and what to write instead.
    pub(super) fn look(&mut self, instruction: &'a Instruction) -> Result<(), (String, &'static str)> {
        let Instruction { keyword, arguments, .. } = instruction;
        if OF_SHELL.contains(&keyword.as_str()) {
            return Ok(());
        }
        let mut bytes = arguments.len();
        for after in arguments.split('$').skip(1) {
            let (inner, is_braced) = after.strip_prefix('{').map_or((after, false), |inner| (inner, true));
            let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
            let (name, rest) = inner.split_at(end);
            if is_braced && !["}", ":-", ":+"].iter().any(|known| rest.starts_with(known)) {
                let why = "engines read what stands in ${} in different ways".to_owned();
                return Err((
                    why,
                    "write $NAME, ${NAME}, ${NAME:-word} or ${NAME:+word}, or the value itself",
                ));
            }
            let bound = self.bounds.get(name).copied().unwrap_or(INHERITED_BYTES_MAX);
            bytes = bytes.saturating_add(bound);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > EXPANDED_BYTES_MAX {
            let why =
                format!("with its variables put in, the file may have more than {EXPANDED_BYTES_MAX} bytes");
            return Err((why, "put large values into files, or set them in RUN"));
        }
        if matches!(keyword.as_str(), "ENV" | "ARG") {
            for name in names(keyword, arguments) {
                // Engines take quotes off, and put variables into names too.
                if !is_plain(name) {
                    let why = format!("{name:?} is no plain name of a variable");
                    return Err((why, "write letters, digits and _ alone, without quotes"));
                }
                let bound = self.bounds.entry(name).or_default();
                *bound = bytes.max(*bound);
            }
        }
        Ok(())
    }
}

/// The names that an ENV or an ARG sets, as they are written.
fn names<'a>(keyword: &str, arguments: &'a str) -> Vec<&'a str> {
    let words = words(arguments);
    // ENV NAME VALUE: all but the first is the value.
    let is_old = keyword == "ENV" && words.first().is_some_and(|first| !first.contains('='));
    let names = words.iter().map(|word| word.split_once('=').map_or(*word, |(name, _)| name));
    names.take(if is_old { 1 } else { usize::MAX }).collect()
}

/// Parted at blanks, but for those that are quoted or follow a backslash.
fn words(arguments: &str) -> Vec<&str> {
    let (mut words, mut begun, mut quote, mut is_escaped) = (Vec::new(), None, None, false);
    for (at, c) in arguments.char_indices() {
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        match c {
            ' ' | '\t' if quote.is_none() => words.extend(begun.take().map(|begun| &arguments[begun..at])),
            _ => {
                begun.get_or_insert(at);
                is_escaped = c == '\\' && quote != Some('\'');
                match quote {
                    Some(open) if open == c => quote = None,
                    None if matches!(c, '"' | '\'') => quote = Some(c),
                    _ => {}
                }
            }
        }
    }
    words.extend(begun.map(|begun| &arguments[begun..]));
    words
}

fn is_plain(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn look(dockerfile: &str) -> Result<(), (String, &'static str)> {
        let instructions = parse(dockerfile).expect("it can be read");
        let mut expansion = Expansion::default();
        instructions.iter().try_for_each(|instruction| expansion.look(instruction))
    }

    #[test]
    fn what_grows_without_end_is_refused() {
        let check = |dockerfile: &str, is_fine: bool| {
            assert_eq!(look(dockerfile).is_ok(), is_fine, "{}", &dockerfile[..dockerfile.len().min(80)]);
        };
        let path = "ENV PATH=/opt/x/bin:$PATH\n";
        check(&path.repeat(20), true);
        check("ENV A=1 B=$A C=\"${B}/x y\"\nARG D=${A:-$B}\nWORKDIR /$D\nUSER ${U:+root}\n", true);
        let times = |what: &str, count: usize| format!("ENV A={}\n", what.repeat(count));
        let x8000 = times("x", 8000);
        check(&x8000, true);
        check(&format!("{x8000}{}", times("$A", 10)), true);
        check(&format!("{x8000}{}{}", times("$A", 10), times("${A}", 10)), false);
        check(&format!("{x8000}WORKDIR /{}\n", "$A".repeat(40)), false);
        check(&format!("{x8000}RUN echo {}\n", "$A".repeat(40)), true);
        check(&times("$PATH", 300), false);
        // The names of several in one line, each as long as all of it.
        check(&format!("ENV A={0} B=$A\nENV C={1}\n", "x".repeat(9000), "$B".repeat(30)), false);
        // An engine sets A by any of these.
        for name in ["\"A\"", "'A'", "\\A", "${N}", "$N", "A\"\"", "\"A", "7A", ""] {
            check(&format!("ENV N=A\nENV {name}=1\n"), false);
            check(&format!("ENV B=1 {name}=1\n"), false);
            check(&format!("ARG {name}=1\n"), false);
        }
        check(
            "ENV A=\"x $B y=1\" C='a \"b\" =' D=\\ e\\=f _x9=7\nENV A some \"text, x=1\"\nARG B\nARG C D=1\n",
            true,
        );
        check("ENV A=\"x\" y\" z=1\n", false);
        check("ENV A='x\\' \"B\"=1\n", false);
        for odd in ["${A//x/yy}", "${A#x}", "${A%x}", "${A?x}", "${A^^}", "${", "${}x", "${!A}"] {
            let is_fine = odd == "${}x";
            check(&format!("ENV A=1 B={odd}\n"), is_fine);
        }
        let (why, _) = look("COPY ${A,,} /x\n").expect_err("refused");
        assert!(why.contains("in different ways"), "{why}");
    }
}

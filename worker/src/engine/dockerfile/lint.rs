use super::expand::Expansion;
use super::{Complaint, Instruction};

/// What a Dockerfile may consist of.
const ALLOWED: [&str; 10] =
    ["FROM", "RUN", "COPY", "ENV", "ARG", "WORKDIR", "USER", "SHELL", "CMD", "ENTRYPOINT"];

/// What engines know beyond that: why it is refused, and what to write instead.
const REFUSED: [(&str, &str, &str); 8] = [
    ("ADD", "it fetches and unpacks what it is given", "write COPY, or RUN tar for an archive"),
    (
        "EXPOSE",
        "nothing reaches a port of it, and a range of ports fills the engine's memory",
        "leave the line out",
    ),
    ("LABEL", "labels tell whose an image is, and only the worker writes them", "leave the line out"),
    ("MAINTAINER", "nothing reads it", "leave the line out"),
    ("ONBUILD", "it would act in builds of others", "write the instruction itself"),
    (
        "VOLUME",
        "its volumes would outlive their containers, and no disk limit counts them",
        "write RUN mkdir",
    ),
    ("HEALTHCHECK", "the engine would run it beside the tests, again and again", "leave the line out"),
    ("STOPSIGNAL", "containers are ended by SIGKILL alone", "leave the line out"),
];

const STAGES_BY_NAME: &str = "name an earlier stage as it stands after AS in its FROM";

/// What is wrong with instructions that every engine reads in the same way.
pub(super) fn complaints(instructions: &[Instruction], bases: &[String]) -> Vec<Complaint> {
    let mut linter = Linter { bases, stages: Vec::new(), complaints: Vec::new() };
    let mut expansion = Expansion::default();
    for instruction in instructions {
        linter.look(instruction);
        if let Err((why, remedy)) = expansion.look(instruction) {
            linter.complain(instruction, &why, remedy);
        }
    }
    if linter.stages.is_empty() {
        let why = "there is no FROM";
        linter.complaints.push(Complaint::new(1, "the file", why, linter.begin_with()));
    }
    linter.complaints
}

/// Whether a name in a FROM is that of a base image.
pub(super) fn is_base(image: &str, bases: &[String]) -> bool {
    let image = image.strip_suffix(":latest").unwrap_or(image);
    bases.iter().any(|base| base.strip_suffix(":latest").unwrap_or(base) == image)
}

struct Linter<'a> {
    bases: &'a [String],
    /// Names of the stages so far, empty for those without.
    stages: Vec<String>,
    complaints: Vec<Complaint>,
}

impl Linter<'_> {
    fn look(&mut self, instruction: &Instruction) {
        let Instruction { keyword, arguments, .. } = instruction;
        if let Some((_, why, remedy)) = REFUSED.iter().find(|(known, ..)| known == keyword) {
            return self.complain(instruction, why, remedy);
        }
        if !ALLOWED.contains(&keyword.as_str()) {
            let remedy = format!("write one of {}", ALLOWED.join(", "));
            return self.complain(instruction, "there is no such instruction", &remedy);
        }
        if self.stages.is_empty() && !matches!(keyword.as_str(), "FROM" | "ARG") {
            self.complain(instruction, "it comes before the first FROM", "begin with FROM");
        }
        match keyword.as_str() {
            "FROM" => self.look_at_from(instruction),
            "COPY" => self.look_at_copy(instruction),
            "ENV" if !arguments.contains('=') && arguments.split_whitespace().count() < 2 => {
                self.complain(instruction, "it gives no value", "write ENV NAME=value");
            }
            _ if arguments.starts_with("--") => {
                let why = "it has a flag: mounts, networks and privileges are the worker's to give";
                self.complain(instruction, why, "leave the flag out");
            }
            _ => {}
        }
    }

    fn look_at_from(&mut self, instruction: &Instruction) {
        let words: Vec<&str> = instruction.arguments.split_whitespace().collect();
        let (image, name) = match words[..] {
            [image] => (image, ""),
            [image, word, name] if word.eq_ignore_ascii_case("as") => (image, name),
            _ => {
                self.complain(instruction, "it is not FROM image, or FROM image AS name", &self.begin_with());
                ("", "")
            }
        };
        if !image.is_empty() && !is_base(image, self.bases) && !self.is_stage(image) {
            let why = format!("{image} is no base image of this node, nor an earlier stage: none is pulled");
            self.complain(instruction, &why, &self.begin_with());
        }
        if !name.is_empty() && (!is_stage_name(name) || is_base(name, self.bases) || self.is_stage(name)) {
            let remedy =
                "name a stage in lower case letters, digits, - and _, otherwise than any image or stage";
            self.complain(instruction, "a stage cannot have this name", remedy);
        }
        self.stages.push(name.to_ascii_lowercase());
    }

    fn look_at_copy(&mut self, instruction: &Instruction) {
        let flags = instruction.arguments.split_whitespace().take_while(|word| word.starts_with("--"));
        for flag in flags {
            let earlier = self.stages.len().saturating_sub(1);
            let source = flag.strip_prefix("--from=");
            let is_earlier = |name: &str| {
                let number = name.parse::<usize>().ok().filter(|number| number.to_string() == name);
                number.is_some_and(|number| number < earlier)
                    || !name.is_empty() && self.stages[..earlier].contains(&name.to_ascii_lowercase())
            };
            let owner = flag.strip_prefix("--chown=");
            let is_owner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
            if source.is_some_and(is_earlier) || owner.is_some_and(|owner| owner.chars().all(is_owner)) {
                continue;
            }
            if source.is_some() {
                self.complain(instruction, "it copies from what is no earlier stage", STAGES_BY_NAME);
            } else {
                let remedy = "use --from=stage and --chown=user:group alone; for modes, RUN chmod";
                self.complain(instruction, "it has a flag that is not taken", remedy);
            }
        }
    }

    fn is_stage(&self, name: &str) -> bool {
        !name.is_empty() && self.stages.contains(&name.to_ascii_lowercase())
    }

    fn begin_with(&self) -> String {
        let some: Vec<String> = self.bases.iter().map(|base| format!("FROM {base}")).collect();
        format!(
            "write {}",
            if some.is_empty() { "FROM and a base image".to_owned() } else { some.join(" or ") }
        )
    }

    fn complain(&mut self, instruction: &Instruction, why: &str, remedy: &str) {
        let shown = format!("{} {}", instruction.keyword, instruction.arguments);
        self.complaints.push(Complaint::new(instruction.line(), &shown, why, remedy));
    }
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::super::check;

    const BASE: &str = "openswe-python-3.11";

    fn lint(dockerfile: &str, expected: &[(usize, &str)]) {
        let bases = [BASE.to_owned(), "openswe-python-3.12".to_owned()];
        let complaints = match check(dockerfile, &bases) {
            Ok(_) => Vec::new(),
            Err(refused) => refused.complaints,
        };
        let holds = |(found, (line, why)): (&super::Complaint, &(usize, &str))| {
            found.line == *line && found.why.contains(why)
        };
        assert!(
            complaints.len() == expected.len() && complaints.iter().zip(expected).all(holds),
            "{dockerfile}\n{complaints:#?}"
        );
    }

    #[test]
    fn honest_ones_pass() {
        for body in [
            "",
            "RUN a --flag && b <<< c",
            "COPY --chown=1000:1000 repo /testbed\nWORKDIR /testbed/\nENV A=\"$B\" C=d\nARG E",
            "RUN [\"a\", \"--b\"]\nSHELL [\"bash\", \"-c\"]\nENTRYPOINT []\nCMD [\"x\"]\nUSER 0",
            "FROM openswe-python-3.12:latest AS two\nFROM two\nCOPY --from=0 /a /b\nCOPY --from=Two /a /b",
        ] {
            lint(&format!("FROM {BASE} AS one\n{body}\n"), &[]);
        }
        lint("ARG A=1\nFROM openswe-python-3.11\n", &[]);
    }

    #[test]
    fn bases_are_those_of_the_node_by_name() {
        for image in [
            "python:3.11",
            "openswe-python-3.9",
            "docker.io/library/openswe-python-3.11",
            "localhost:5000/openswe-python-3.11",
            "openswe-python-3.11@sha256:0000",
            "openswe-python-3.11:other",
            "openswe-python-${V}",
            "$V",
            "\"openswe-python-3.11\"",
            "openswe-pyth\\on-3.11",
            "Openswe-python-3.11",
            "scratch",
            "0",
            "later",
        ] {
            lint(&format!("FROM {image}\nFROM {BASE} AS later\n"), &[(1, "is no base image of this node")]);
        }
        let form = "it is not FROM image";
        lint("ARG V\nFROM --platform=$V openswe-python-3.11\n", &[(2, form)]);
        lint("FROM openswe-python-3.11 x\nFROM\n", &[(1, form), (2, form)]);
        let name = "a stage cannot have this name";
        lint("FROM openswe-python-3.11 AS openswe-python-3.12\n", &[(1, name)]);
        lint(
            "FROM openswe-python-3.11 AS $X\nFROM openswe-python-3.11 AS x\nFROM x AS x",
            &[(1, name), (3, name)],
        );
        lint("", &[(1, "there is no FROM")]);
        lint("RUN x\n", &[(1, "before the first FROM"), (1, "there is no FROM")]);
    }

    #[test]
    fn what_reaches_beyond_the_image_is_refused() {
        let label = "only the worker writes them";
        let none = "there is no such instruction";
        for (body, why) in [
            ("LABEL bottega.object=1", label),
            ("label \"bottega\".object=1", label),
            ("LAB\\\nEL bottega.object=1", label),
            ("RUN a \\\n  b\nLABEL x=1", label),
            ("LABEL\tx=1", label),
            ("ONBUILD LABEL bottega.object=1", "builds of others"),
            ("MAINTAINER x", "nothing reads it"),
            ("\u{13de}ABEL x=1", none),
            ("WOR\u{212a}DIR /x", none),
            ("ADD https://example.org/x /x", "fetches and unpacks"),
            ("ADD git@example.org:x /x", "fetches and unpacks"),
            ("COPY --from=python:3 /a /b", "no earlier stage"),
            ("COPY --from=0 /a /b", "no earlier stage"),
            ("COPY --from=$X /a /b", "no earlier stage"),
            ("COPY --chown=0 --from=me /a /b", "no earlier stage"),
            ("COPY --fr\\om=x /a /b", "flag that is not taken"),
            ("COPY --chmod=777 a /b", "flag that is not taken"),
            ("COPY --from a /b", "flag that is not taken"),
            ("RUN --mount=type=secret,id=x cat /x", "it has a flag"),
            ("RUN --mount=type=cache,target=/x y", "it has a flag"),
            ("RUN \\\n  --mount=type=ssh x", "it has a flag"),
            ("RUN --security=insecure x", "it has a flag"),
            ("RUN --network=host x", "it has a flag"),
            ("VOLUME /x", "outlive"),
            ("HEALTHCHECK CMD x", "beside the tests"),
            ("STOPSIGNAL 1", "SIGKILL"),
            ("EXPOSE 1-65535/sctp", "a port of it"),
            ("ENV A", "gives no value"),
            ("ENV A=${A//x/y}", "in different ways"),
            ("INCLUDE x", none),
        ] {
            let line = if body.starts_with("RUN a") { 4 } else { 2 };
            lint(&format!("FROM {BASE} AS me\n{body}\n"), &[(line, why)]);
        }
    }
}

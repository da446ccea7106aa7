//! The linter and the engine must see the same instructions in a Dockerfile: what only one of them sees gets through.
#![expect(clippy::unwrap_used, reason = "tests")]

use bollard::Docker;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use worker::engine::dockerfile::{check, parse};

/// How many Dockerfiles the engine is asked about.
const CASES: u32 = 150;

/// Lines and ends of lines in which parsers have differed.
const LINES: &[&str] = &[
    "ARG a=b",
    "  aRg\tc=d \t",
    "ARG e=f \\",
    "ARG g=h\\  ",
    "ARG i=\"j \\",
    "ARG k='l' \\\\",
    "\\",
    " \\ ",
    "\\\\",
    "\\\\\\",
    "",
    " \t ",
    "# m",
    "  # n \\",
    "#",
    "# escape=`",
    "#syntax = o",
    "ARG p=q `",
    "AR\\",
    "G r=s",
    "t=u",
    "ARG v=<<EOF",
    "ARG <<EOF",
    "EOF",
    "RUN w",
    "RUN x <<EOF",
    "RUN x << EOF",
    "RUN x <<- EOF",
    "RUN : << 'A\\'",
    "A\\",
    "RUN : ${B:- <\\<'A\\' }",
    "RUN : ${B:- \\<<'A\\' }",
    "RUN : ${B:-<<'A\\'}",
    "RUN <<<EOF",
    "RUN y \\",
    "LABEL z=1",
    "FROM UPPER",
    "\u{a0}ARG aa=1",
    "ARG\u{a0}ab=1",
    "\u{feff}ARG ac=1",
    "ARG ad=1\r",
    "ARG ae=1 \\\r",
    "ARG af=\u{85}RUN",
    "\u{b}ARG ag=1",
    "ARG ah=\u{0}",
    "WOR\u{212a}DIR /",
];

/// Lines as a Dockerfile that an engine reads whole and of which it builds nothing: it must refuse a FROM in it. Podman
/// counts what follows a FROM, and the directives of a file are its first lines.
fn with_from(lines: &[&str], is_podman: bool) -> String {
    if !is_podman {
        return format!("{}\nARG last=1\nFROM UPPER\n", lines.join("\n"));
    }
    let first = lines.iter().take_while(|line| line.starts_with('#')).count();
    let (first, rest) = lines.split_at(first);
    let first: String = first.iter().map(|line| format!("{line}\n")).collect();
    format!("{first}FROM UPPER\n{}\nARG last=1\n", rest.join("\n"))
}

/// What the engine makes of such a Dockerfile: its steps and how many they are, or the sentence that it refuses to read
/// it with.
async fn seen_by_engine(engine: &Docker, dockerfile: &str) -> Result<(usize, Vec<String>), String> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
    let context = bollard::body_full(tar.into_inner().unwrap().into());
    let options = BuildImageOptionsBuilder::new().networkmode("none").build();
    let mut answers = std::pin::pin!(engine.build_image(options, None, Some(context)));
    let (mut said, mut refusal) = (String::new(), String::new());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(info) => said.push_str(&info.stream.unwrap_or_default()),
            Err(error) => refusal = error.to_string(),
        }
    }
    let steps = said.lines().filter_map(|line| {
        // A warning before it ends without a line feed.
        let line = line.trim_start_matches("\u{1b}[0m");
        // Podman has the stage before it.
        let line = line.strip_prefix('[').and_then(|stage| Some(stage.split_once("] ")?.1)).unwrap_or(line);
        let (numbers, step) = line.get(5..)?.split_once(':')?;
        line[..5].eq_ignore_ascii_case("step ").then(|| (numbers.trim(), step))
    });
    let steps: Vec<_> = steps.collect();
    let Some((numbers, _)) = steps.first() else { return Err(refusal) };
    let count = numbers.split_once('/').unwrap().1.parse().unwrap();
    Ok((count, steps.iter().map(|(_, step)| normal(step)).collect()))
}

fn normal(step: &str) -> String {
    let mut words = step.split_whitespace();
    let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
    std::iter::once(keyword.as_str()).chain(words).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_engine_sees_the_instructions_that_we_see() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connected = Docker::connect_with_defaults().unwrap();
    let engine =
        runtime.block_on(connected.negotiate_version()).expect("these tests need a container engine");
    let components = runtime.block_on(engine.version()).unwrap().components.unwrap_or_default();
    let is_podman = components.iter().any(|component| component.name.starts_with("Podman"));
    let lines = proptest::collection::vec(proptest::sample::select(LINES), 0..7);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let agreed = std::cell::Cell::new(0_u32);
    let result = runner.run(&lines, |lines| {
        let dockerfile = with_from(&lines, is_podman);
        let Ok(ours) = parse(&dockerfile) else { return Ok(()) };
        match runtime.block_on(seen_by_engine(&engine, &dockerfile)) {
            Ok((count, steps)) => {
                let last_from = ours.iter().rposition(|one| one.keyword.eq_ignore_ascii_case("FROM"));
                let ours = &ours[last_from.filter(|_| is_podman).unwrap_or(0)..];
                let ours: Vec<_> =
                    ours.iter().map(|one| normal(&format!("{} {}", one.keyword, one.arguments))).collect();
                prop_assert_eq!(count, ours.len(), "{:?}", dockerfile);
                prop_assert_eq!(&steps[..], &ours[..steps.len()], "{:?}", dockerfile);
                agreed.set(agreed.get() + 1);
            }
            // It runs nothing of it. What it names as unknown must be an instruction to us too.
            Err(refusal) => {
                if let Some((_, word)) = refusal.split_once("unknown instruction: ") {
                    let known =
                        ours.iter().any(|one| word.to_lowercase().starts_with(&one.keyword.to_lowercase()));
                    prop_assert!(known, "{:?}: {}", dockerfile, refusal);
                }
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(agreed.get() > CASES / 20, "too few were compared: {}", agreed.get());
}

proptest! {
    #[test]
    fn nothing_that_is_refused_comes_back_by_another_form(
        body in "[ -~]{0,40}",
        cut in 0_usize..60,
    ) {
        // Whatever stands around it, and wherever it is broken: a LABEL line that is seen is refused.
        let label = "LABEL bottega.object=1";
        let (head, tail) = label.split_at(cut.min(label.len()));
        let bases = ["base".to_owned()];
        prop_assume!(check(&format!("FROM base\nRUN x\nRUN {body}\n"), &bases).is_ok());
        for joint in ["", "\\\n", "\\\n# c\n", "\\ \n\n"] {
            let text = format!("FROM base\nRUN x\n{head}{joint}{tail}\nRUN {body}\n");
            let refused = check(&text, &bases).map_err(|refused| refused.to_string());
            let names_it = refused.as_ref().is_err_and(|why| why.contains("only the worker writes them"));
            prop_assert!(names_it, "{:?}: {:?}", text, refused);
        }
    }
}

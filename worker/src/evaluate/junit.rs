use std::borrow::Cow;
use std::collections::BTreeMap;

use queue_format::TestStatus;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::{node_id, telling};

/// The most tests that a report may have.
const TESTS_MAX: usize = 200_000;
/// What is kept of a traceback: its end has the exception.
const TEXT_BYTES_MAX: usize = 1 << 15;

/// What a report says of each test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) tests: BTreeMap<String, TestStatus>,
    /// Files whose import failed, with the exception's line.
    pub(super) collection_errors: BTreeMap<String, String>,
}

/// A case as far as it was read.
struct Case {
    file: Option<String>,
    class_name: String,
    name: String,
    status: TestStatus,
    /// The outcome's text and whether it is about a file's collection.
    text: String,
    is_collection: bool,
}

/// Reads a JUnit XML report. Entities other than XML's own are errors, so that none expands.
///
/// # Errors
/// Why it is not one; nothing of a damaged report counts.
pub(super) fn parse(bytes: &[u8], targets: &[String]) -> Result<Report, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut reader = Reader::from_str(&text);
    let mut report = Report::default();
    let mut case: Option<Case> = None;
    // The element whose text is the outcome's; others (system-out) are passed over.
    let mut in_outcome = false;
    let mut depth = 0_usize;
    loop {
        let event = reader.read_event().map_err(|error| error.to_string())?;
        let is_empty = matches!(event, Event::Empty(_));
        match &event {
            Event::Start(element) | Event::Empty(element) => match element.local_name().as_ref() {
                "testcase" => case = Some(begun(element)?),
                name => {
                    if let Some(case) = &mut case {
                        in_outcome = outcome(case, name, element)? && !is_empty;
                    }
                }
            },
            Event::Text(text) => push(&mut case, in_outcome, text.as_ref()),
            Event::CData(text) => push(&mut case, in_outcome, text.as_ref()),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| error.to_string())?;
                let character = character.map(|c| c.to_string());
                let resolved = character.as_deref().or_else(|| resolve_predefined_entity(reference));
                push(&mut case, in_outcome, resolved.ok_or("it uses an entity of its own")?);
            }
            Event::Eof if depth > 0 => return Err("it ends too early".to_owned()),
            Event::Eof => return Ok(report),
            _ => {}
        }
        match &event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        let ends = |element: &str| match &event {
            Event::End(end) => end.local_name().as_ref() == element,
            Event::Empty(empty) => empty.local_name().as_ref() == element,
            _ => false,
        };
        if ends("testcase") {
            if let Some(case) = case.take() {
                record(&mut report, &case, targets);
            }
            in_outcome = false;
        } else if matches!(event, Event::End(_)) {
            in_outcome = false;
        }
        if report.tests.len() > TESTS_MAX {
            return Err(format!("it has more than {TESTS_MAX} tests"));
        }
    }
}

fn begun(element: &BytesStart<'_>) -> Result<Case, String> {
    Ok(Case {
        file: attribute(element, "file")?,
        class_name: attribute(element, "classname")?.unwrap_or_default(),
        name: attribute(element, "name")?.unwrap_or_default(),
        status: TestStatus::Passed,
        text: String::new(),
        is_collection: false,
    })
}

/// Takes a child of a case; whether it is an outcome.
fn outcome(case: &mut Case, element_name: &str, element: &BytesStart<'_>) -> Result<bool, String> {
    let message = attribute(element, "message")?.unwrap_or_default();
    let status = match element_name {
        "failure" => TestStatus::Failed,
        "error" => TestStatus::Error,
        // Failed as it was expected to; older runners say of an unexpected pass that it was skipped.
        "skipped" if attribute(element, "type")?.as_deref() == Some("pytest.xfail") => TestStatus::Passed,
        "skipped" if message == "xfail-marked test passes unexpectedly" => TestStatus::Passed,
        "skipped" => TestStatus::Skipped,
        _ => return Ok(false),
    };
    case.is_collection |= matches!(message.as_str(), "collection failure" | "collection skipped");
    case.status = worse(case.status, status);
    case.text.clear();
    Ok(true)
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = element.try_get_attribute(name).map_err(|error| error.to_string())?;
    let value = found.map(|found| found.normalized_value(XmlVersion::Implicit1_0).map(Cow::into_owned));
    value.transpose().map_err(|error| error.to_string())
}

fn push(case: &mut Option<Case>, in_outcome: bool, text: &str) {
    let Some(case) = case.as_mut().filter(|_| in_outcome) else { return };
    case.text.push_str(text);
    if case.text.len() > 2 * TEXT_BYTES_MAX {
        let cut = case.text.len() - TEXT_BYTES_MAX;
        let cut = (cut..).find(|&at| case.text.is_char_boundary(at)).unwrap_or(cut);
        case.text.drain(..cut);
    }
}

/// Cases of one name are parts or reruns of one test: the worst counts.
fn record(report: &mut Report, case: &Case, targets: &[String]) {
    if !case.is_collection {
        if case.name.is_empty() {
            // What ends the runner in its middle leaves a case without a name: no test is called so.
            return;
        }
        let id = node_id::of_test(case.file.as_deref(), &case.class_name, &case.name, targets);
        let merged = report.tests.get(&id).map_or(case.status, |&status| worse(status, case.status));
        report.tests.insert(id, merged);
        return;
    }
    let file = node_id::of_file(case.file.as_deref(), &case.class_name, &case.name, targets);
    if case.status == TestStatus::Skipped {
        report.tests.insert(file, TestStatus::Skipped);
    } else {
        report.collection_errors.insert(file, telling::exception_line(&case.text));
    }
}

fn worse(a: TestStatus, b: TestStatus) -> TestStatus {
    let badness = |status| match status {
        TestStatus::Passed => 0,
        TestStatus::Skipped => 1,
        TestStatus::Failed => 2,
        TestStatus::Error => 3,
    };
    if badness(a) >= badness(b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(cases: &str, expected: &[(&str, TestStatus)], expected_errors: &[(&str, &str)]) {
        let xml = format!("<?xml version=\"1.0\"?><testsuites><testsuite>{cases}</testsuite></testsuites>");
        let report = parse(xml.as_bytes(), &[]).unwrap();
        let tests: Vec<_> = report.tests.iter().map(|(id, status)| (id.as_str(), *status)).collect();
        assert_eq!(tests, expected, "{cases}");
        let errors: Vec<_> =
            report.collection_errors.iter().map(|(id, line)| (id.as_str(), line.as_str())).collect();
        assert_eq!(errors, expected_errors, "{cases}");
    }

    #[test]
    fn each_outcome_is_read() {
        use TestStatus::{Error, Failed, Passed, Skipped};
        let case = |children: &str| {
            format!("<testcase classname=\"t\" name=\"n\" file=\"t.py\">{children}</testcase>")
        };
        for (children, expected) in [
            ("", Passed),
            ("<failure message=\"m\">text</failure>", Failed),
            ("<error message=\"failed on setup\"/>", Error),
            ("<skipped type=\"pytest.skip\" message=\"m\"/>", Skipped),
            ("<skipped type=\"pytest.xfail\" message=\"m\"/>", Passed),
            ("<skipped message=\"xfail-marked test passes unexpectedly\"/>", Passed),
            ("<failure message=\"[XPASS(strict)] \"/>", Failed),
            ("<failure/><error/>", Error),
            ("<error/><skipped/>", Error),
            ("<system-out>&lt;failure/&gt;<![CDATA[<failure/>]]></system-out>", Passed),
            ("<properties><property name=\"failure\" value=\"x\"/></properties>", Passed),
        ] {
            check(&case(children), &[("t.py::n", expected)], &[]);
        }
        let twice = |a, b| format!("{}{}", case(a), case(b));
        check(&twice("<failure/>", ""), &[("t.py::n", Failed)], &[]);
        check(&twice("", "<error/>"), &[("t.py::n", Error)], &[]);
        check("<testcase classname=\"t\" name=\"a&quot;&#10;b\"/>", &[("t.py::a\"\\nb", Passed)], &[]);
    }

    #[test]
    fn collection_errors_are_no_tests() {
        let error = "<testcase classname=\"\" name=\"t.x\" file=\"t/x.py\"><error message=\"collection failure\">\
                     import y\nE   ModuleNotFoundError: No module named &apos;y&apos;</error></testcase>";
        check(error, &[], &[("t/x.py", "ModuleNotFoundError: No module named 'y'")]);
        let skip = "<testcase classname=\"\" name=\"t.x\" file=\"t/x.py\"><skipped message=\"collection skipped\">s\
                    </skipped></testcase>";
        check(skip, &[("t/x.py", TestStatus::Skipped)], &[]);
    }

    #[test]
    fn hostile_reports_are_refused() {
        for bad in [
            "<testsuite><testcase name=\"a\">",
            "<testsuite><testcase name=\"a\"></testsuite>",
            "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><testsuite><testcase name=\"&e;\"/></testsuite>",
            "<!DOCTYPE x [<!ENTITY e \"x\">]><testsuite><testcase name=\"a\"><failure>&e;</failure></testcase></testsuite>",
        ] {
            assert!(parse(bad.as_bytes(), &[]).is_err(), "{bad}");
        }
        let deep = "<a>".repeat(200_000);
        assert!(parse(deep.as_bytes(), &[]).is_err());
        assert_eq!(parse(b"", &[]), Ok(Report::default()));
        let long = format!("<testcase name=\"a\"><failure>{}</failure></testcase>", "é".repeat(1 << 20));
        assert_eq!(parse(long.as_bytes(), &[]).map(|report| report.tests.len()), Ok(1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, &[]);
        }

        #[test]
        fn no_xml_panics(pieces in proptest::collection::vec(
            prop::sample::select(vec!["<testcase name=\"a\"", ">", "/>", "<failure>", "</failure>", "</testcase>", "&lt;", "&x;", "]]>", "<![CDATA["]),
            0..20,
        )) {
            let _ = parse(pieces.concat().as_bytes(), &[]);
        }
    }
}

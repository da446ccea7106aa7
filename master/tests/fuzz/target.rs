//! Rows of any bytes: see `queue-format/tests/fuzz/targets.rs`.

use master::ingest::{Rows, Template, task_of};
use queue_format::TaskSpec;

/// Rows after which an input is taken to have no end.
const ROWS_MAX: usize = 100_000;

/// Reads rows to the end of the input; each is a task that is accepted again as it is written, or a refusal in one line.
pub(crate) fn rows(bytes: &[u8]) {
    let template = Template::parse("/mirrors/{owner}+{name}/repo", "/".as_ref()).expect("a template");
    let mut rows = Rows::new(bytes).expect("memory is readable");
    let mut count = 0;
    while let Some(row) = rows.next_row().expect("memory is readable") {
        count += 1;
        assert!(count <= ROWS_MAX, "it does not end");
        let Ok(value) = row.value else { continue };
        match task_of(value, Some(&template)) {
            Ok(task) => {
                let written = serde_json::to_vec(&task).expect("JSON");
                assert_eq!(TaskSpec::parse(&written, &task.id).expect("what was accepted"), task);
            }
            Err(why) => assert!(!why.to_string().contains('\n'), "{why}"),
        }
    }
}

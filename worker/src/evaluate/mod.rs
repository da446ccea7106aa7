//! From an image and an evaluation script to evidence and a verdict, neither of which anything that the code under
//! test prints can change.
//!
//! Each run is a fresh container without network. A wrapper, which holds a nonce that the tests never see, reports
//! the script's exit status; that report, and the engine's own exit code, must agree. Each test's status comes from
//! the runner's report file. [`judge`] is a pure function of the runs.

mod conduct;
mod judge;
mod junit;
mod node_id;
mod record;
mod request;
mod script;
mod telling;
mod transitions;
mod wrapper;

pub use conduct::evaluate;
pub use judge::{Grounds, Judgement, judge};
pub use request::{Evaluated, EvaluationRequest, Policy};
pub use script::{fill_in, normalise_patch};
pub use telling::{strip_escapes, telling_lines};

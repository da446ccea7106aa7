//! Which pull requests become tasks: the four stages of OpenSWE (section 3.2) in its order, then what else a dataset
//! needs. Every row that is turned away has its stage and its reason; the counts are the funnel.
//!
//! A stage asks for what its row may not have: datasets that were filtered elsewhere no longer tell the stars of a
//! repository. Such a row passes, and the funnel counts it as not known there.

mod config;
mod duplicates;
mod evaluation;
mod event;
mod facts;
mod funnel;
mod head;
mod judge;
mod quality;
mod report;
mod run;
mod sight;
mod stage;

pub use config::FilterConfig;
pub use evaluation::EvaluationSet;
pub use funnel::{Funnel, Step};
pub use judge::{Filter, Judged, MISSING_FIELD};
pub use quality::{QUALITY_FIELD, Quality};
pub use report::{FUNNEL_CHART, FUNNEL_FILE, REJECTED_FILE, REPORT_FILE, REPOSITORIES_FILE, ROWS_FILE};
pub use run::{FilterError, Run};
pub use stage::Stage;

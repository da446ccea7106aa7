//! Agents, on a model that says what it is told to: the endpoints' client, and whole attempts on the real engine.

mod attempts;
mod calc;
mod cassette;
mod endpoints;
mod figures;
#[path = "../common/git.rs"]
mod git;
mod hostile;
mod house;
mod keys;
mod life;
mod model;
mod refusals;
mod resume;

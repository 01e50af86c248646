//! Decisions of a run, without I/O, clock or randomness.
pub mod check;
pub mod documents;
pub mod exit;
pub mod framework;
mod place;
pub mod rewrite;

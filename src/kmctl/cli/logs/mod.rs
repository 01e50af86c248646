//! `kmctl logs`: what components, nodes and tasks wrote, read over SSH.
mod component;
mod node;
mod pod;
mod run;
mod source;

pub use run::{Args, run};
pub(crate) use run::{follow_flag, is_file};

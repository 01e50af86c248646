//! `kmctl logs`: what components, nodes and tasks wrote, through SSH.
mod component;
mod node;
mod pod;
mod run;
mod source;

pub use run::{Args, run};
pub(crate) use run::{follow_flag, is_file};

//! `kmctl init`: a commented cluster.yaml, out of flags or questions.
mod ask;
mod run;
mod write;

pub use run::{Args, run};

//! `kmctl init`: writes a commented cluster.yaml from flags or answers.
mod ask;
mod run;
mod write;

pub use run::{Args, run};

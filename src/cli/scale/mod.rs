//! `kmctl scale`: how few and how many nodes there may be, while the cluster lives.
mod bounds;
mod decide;
mod run;
mod show;

pub(crate) use bounds::Bounds;
pub use run::{Args, run};

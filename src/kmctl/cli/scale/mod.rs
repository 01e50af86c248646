//! `kmctl scale`: how few and how many nodes there may be, while the cluster lives.
mod arguments;
mod bounds;
mod decide;
mod run;
mod show;

pub use arguments::Args;
pub(crate) use bounds::Bounds;
pub use run::run;

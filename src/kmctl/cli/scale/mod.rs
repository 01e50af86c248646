//! `kmctl scale`: the minimum and maximum number of nodes, while the cluster runs.
mod arguments;
mod bounds;
mod decide;
mod run;
mod show;

pub use arguments::Args;
pub(crate) use bounds::Bounds;
pub use run::run;

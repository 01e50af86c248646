//! `kmctl scale`: the minimum and maximum number of nodes, while the cluster runs.
mod arguments;
mod run;
mod show;

pub use arguments::Args;
pub use run::run;

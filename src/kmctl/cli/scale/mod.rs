//! `kmctl scale`: the minimum and maximum number of nodes, while the cluster runs.
mod arguments;
mod run;

pub use arguments::Args;
pub use run::run;

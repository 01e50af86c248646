//! The operator's tool: [`cli`] → [`inventory`] (observed) and cluster.yaml (desired) → [`plan`] (pure) → [`apply`],
//! over [`host`]s, with [`render`]; [`provision`] has the phases. [`upstream`] creates bundles, [`over_host`] queries APIs through
//! a host, and `diagnose` judges what was observed of a running cluster.
pub mod apply;
pub mod cli;
mod diagnose;
pub mod failure;
pub mod host;
pub mod inventory;
pub mod over_host;
pub mod plan;
pub mod provision;
pub mod render;
pub mod upstream;

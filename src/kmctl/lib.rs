//! The operator's tool: [`cli`] → [`inventory`] (observed) and cluster.yaml (desired) → [`plan`] (pure) → [`apply`],
//! over [`host`]s, with [`render`]. [`upstream`] creates bundles, and [`over_host`] queries APIs through a host.
pub mod apply;
pub mod cli;
pub mod failure;
pub mod host;
pub mod inventory;
pub mod over_host;
pub mod plan;
pub mod provision;
pub mod render;
pub mod upstream;

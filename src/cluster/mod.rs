//! Desired state: cluster.yaml, its types, defaults and validation.
mod check;
mod load;
mod network;
mod problem;
pub mod quantity;
mod schema;
mod spec;
mod tree;

pub use check::{host_port, port_range};
pub use load::{LoadError, Loaded, load};
pub use network::{Network, Route, clash, routes};
pub use problem::{Place, Problem};
pub use spec::*;

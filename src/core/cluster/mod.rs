//! Desired state: cluster.yaml, its types, defaults and validation.
mod check;
mod edit;
mod load;
mod network;
mod problem;
pub mod quantity;
mod schema;
mod spec;
mod tree;

pub use check::{host_port, jump_host, port_range};
pub use edit::{EditError, set_bounds};
pub use load::{LoadError, Loaded, load, load_mesos};
pub use network::{Network, Route, clash, routes};
pub use problem::{Place, Problem};
pub use schema::{KeyReference, json_schema, reference};
pub use spec::*;

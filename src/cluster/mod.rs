//! Desired state: cluster.yaml, its types, defaults and validation.
mod load;
mod problem;
pub mod quantity;
mod spec;

pub use load::{LoadError, Loaded, load};
pub use problem::{Place, Problem};
pub use spec::*;

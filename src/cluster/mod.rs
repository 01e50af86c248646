//! Desired state: cluster.yaml, its types, defaults and validation.
mod spec;

pub use spec::*;

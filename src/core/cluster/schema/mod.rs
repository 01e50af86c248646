//! The keys of cluster.yaml as one table ([`keys`]): the loader compares a file with it ([`walk`](mod@walk)), editors get it as a JSON
//! Schema ([`json_schema`]), and docs/reference/cluster-yaml.md is written from it ([`reference`](mod@reference)).
mod json_schema;
mod keys;
mod reference;
#[cfg(test)]
mod tests;
mod walk;

pub use json_schema::json_schema;
pub use reference::{KeyReference, reference};
pub(super) use walk::{Walked, walk};

//! The cluster's DNS, on every node: Kubernetes' DNS-based service discovery, schema 1.1.0, and everything else from
//! the host's own resolvers, with a cache.
//!
//! It listens on the node's bridge address only, where a resolver of the host does not, and answers the same on every
//! node: headless Services' endpoints are node addresses and granted host ports, which work from everywhere, so an SRV
//! record's port is one that really works.
//!
//! [`records`] keeps what the API says, and [`answer`] answers from it: both are pure. [`serve`] listens, [`forward`]
//! asks others.
pub mod answer;
pub mod forward;
pub mod records;
pub mod serve;

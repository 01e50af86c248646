//! The cluster's DNS, on every node: Kubernetes' DNS-based service discovery, schema 1.1.0. All other names are
//! forwarded to the host's own resolvers, with a cache.
//!
//! It listens only on the node's bridge address, where no resolver of the host listens. It gives the same answers on
//! every node: endpoints of headless Services are node addresses and granted host ports, which are reachable from
//! everywhere, so an SRV record's port is the one that works.
//!
//! [`records`] keeps the data from the API, and [`answer`] answers from it: both are pure. [`serve`] listens,
//! [`forward`] queries the host's resolvers.
pub mod answer;
pub mod forward;
pub mod records;
pub mod serve;

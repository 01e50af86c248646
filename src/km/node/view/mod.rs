//! The local view: a small API server on loopback through which this node's stock kube-proxy reads the cluster.
//!
//! Everything is passed on unchanged, except that endpoints of this node appear with pod address and container port.
//! kube-proxy rewrites a connection's destination once, and the rules that map a granted host port to its pod would
//! have to rewrite it again. With the view, one rewrite is correct everywhere, also from a pod to itself, and the
//! caller's address is preserved where Kubernetes preserves it.
//!
//! [`translate`] rewrites objects, [`store`] keeps them with versions and a history of its own: both are pure.
//! [`lists`] fills stores from [`upstream`] (on a real API server: [`api`]) and notifies watches of changes, [`serve`]
//! is the HTTP server.
pub mod api;
pub mod lists;
pub mod serve;
pub mod store;
pub mod translate;
pub mod upstream;

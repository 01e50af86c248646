//! The local view: a small API server on loopback through which the stock kube-proxy of this node reads the cluster.
//!
//! Everything is handed on as the API server says it, except that endpoints of this very node appear as pod address
//! and container port. kube-proxy rewrites a connection's destination once, and the rules that map a granted host port
//! to its pod would have to rewrite it again: with the view, the one rewrite is right everywhere, also from a pod to
//! itself, and the caller's address is kept where Kubernetes keeps it.
//!
//! [`translate`] rewrites objects, [`store`] keeps them with versions and a history of its own: both are pure.
//! [`lists`] fills stores from what [`upstream`] says (on a real API server: [`api`]) and tells watches of changes,
//! [`serve`] is the HTTP server.
pub mod api;
pub mod lists;
pub mod serve;
pub mod store;
pub mod translate;
pub mod upstream;

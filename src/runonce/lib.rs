//! `kmctl runonce`: pods of a file, run to completion by a node agent without an API server.
//!
//! [`decide`] is the pure half: reading and checking the file ([`decide::documents`], [`decide::check`]), what km
//! makes of a pod before the kubelet sees it ([`decide::rewrite`]), the exit code ([`decide::exit`]), and the
//! framework that places the pods on Mesos ([`decide::framework`]). [`run`] carries the framework out, [`artifacts`]
//! finds what nodes fetch, [`wire`] is what kmctl and km say to each other. The node's side is
//! [`node::once`](km::node::once).
pub mod artifacts;
pub mod decide;
pub mod run;

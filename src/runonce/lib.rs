//! `kmctl runonce`: pods of a file, run to completion by a node agent without an API server.
//!
//! [`decide`] is the pure half: reading and checking the file ([`decide::documents`], [`decide::check`]), the changes
//! that km makes to a pod before the kubelet sees it ([`decide::rewrite`]), the exit code ([`decide::exit`]), and the
//! framework that places the pods on Mesos ([`decide::framework`]). [`run`] executes the framework, [`artifacts`]
//! provides what nodes fetch, and [`kmctl_core::protocol::runonce`] is the protocol between kmctl and km. The node's
//! side is `km::node::once`.
pub mod artifacts;
pub mod decide;
pub mod run;

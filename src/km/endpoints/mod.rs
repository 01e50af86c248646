//! `km endpoints`: Endpoints and EndpointSlices for Services, with node addresses and granted host ports.
//!
//! With `network.mode: hostPorts` a pod's own address means nothing outside its node. The stock endpoint and
//! endpointslice controllers are therefore off, and this part writes the same objects with the node's address and the
//! host port that Mesos granted in place of the pod's address and port. [`model`] holds what is known of the API's
//! objects, [`read`] parses them, [`wanted`] computes the bodies of one Service's objects, [`decide`] turns events into
//! writes, and [`run`] watches and writes. It runs on one host at a time and, through
//! [`HostLock`](kmctl_core::k8s::seat::Seat), in one process of that host.
pub mod decide;
pub mod model;
pub mod read;
pub mod run;
mod selectors;
pub mod wanted;
mod watch;
mod write;

//! A node without an API server, for `kmctl runonce`: the same agent, with a stock kubelet that reads its pods from a
//! directory. [`pods`] replaces the API client, [`kubelet`] starts and queries the kubelet, [`logs`] reads the
//! containers' output, [`voice`] sends it to kmctl, [`session`] is the run on Mesos, and [`local`] the run that kmctl
//! starts on a machine directly.
pub mod kubelet;
pub mod local;
pub mod logs;
pub mod pods;
pub mod session;
pub mod view;
pub mod voice;

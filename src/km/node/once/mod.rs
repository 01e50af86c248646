//! A node without an API server, for `kmctl runonce`: the same agent, with a stock kubelet that reads its pods from a
//! folder. [`pods`] stands where the API client is elsewhere, [`kubelet`] starts and asks the kubelet, [`logs`] reads
//! what containers say, [`voice`] carries it to kmctl, [`session`] is the run on Mesos, and [`local`] the run that
//! kmctl starts on a machine itself.
pub mod kubelet;
pub mod local;
pub mod logs;
pub mod pods;
pub mod session;
pub mod view;
pub mod voice;

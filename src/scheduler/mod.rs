//! `km scheduler`: the Mesos framework, an extender of the stock kube-scheduler, and the owner of Node objects.
pub mod config;

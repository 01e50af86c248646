//! `km node`: the node agent, a Mesos executor that supervises containerd, kubelet and kube-proxy.
pub mod launch;

//! Host ports on this machine: the kubelet's own, and those that Mesos granted to pods.
use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::super::cni::GrantedPorts;
use super::super::deps::{DepError, PortAllocator};
use super::super::launch::{PodLaunch, PortMapping};

/// Ports of one node.
pub struct RealPorts {
    address: IpAddr,
    /// Port and protocol → the pod's UID.
    taken: Mutex<BTreeMap<(u16, String), String>>,
    /// By UID: what the CNI plugin asks for.
    pods: Mutex<BTreeMap<String, PodLaunch>>,
}

impl RealPorts {
    /// At the node's address.
    pub fn new(address: IpAddr) -> Self {
        RealPorts { address, taken: Mutex::default(), pods: Mutex::default() }
    }
}

impl PortAllocator for RealPorts {
    fn own(&self, preferred: u16) -> Result<u16, DepError> {
        // Another cluster's kubelet on the same agent may have it; the Node's status tells the API which port it is.
        let listener = TcpListener::bind((self.address, preferred))
            .or_else(|_| TcpListener::bind((self.address, 0)))
            .map_err(DepError::io(format!("find a free port at {}", self.address)))?;
        listener.local_addr().map(|address| address.port()).map_err(DepError::io("find a free port"))
    }

    fn assign(&self, pod: &PodLaunch) -> Result<(), DepError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for mapping in &pod.ports {
            let key = (mapping.host_port, mapping.protocol.clone());
            if let Some(holder) = taken.get(&key).filter(|holder| **holder != pod.uid) {
                return Err(DepError::Refused(format!(
                    "host port {}/{} belongs to pod {holder}",
                    mapping.host_port, mapping.protocol
                )));
            }
        }
        for mapping in &pod.ports {
            taken.insert((mapping.host_port, mapping.protocol.clone()), pod.uid.clone());
        }
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.uid.clone(), pod.clone());
        Ok(())
    }

    fn release(&self, uid: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, holder| holder != uid);
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

impl GrantedPorts for RealPorts {
    fn granted(&self, uid: Option<&str>, namespace: &str, name: &str) -> Option<Vec<PortMapping>> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let pod = match uid {
            Some(uid) => pods.get(uid),
            None => pods.values().find(|pod| pod.namespace == namespace && pod.name == name),
        };
        pod.map(|pod| pod.ports.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::launch::FORMAT;

    fn pod(uid: &str, port: u16) -> PodLaunch {
        let ports = vec![PortMapping { container_port: 80, host_port: port, protocol: "TCP".to_owned() }];
        PodLaunch { format: FORMAT, namespace: "default".into(), name: uid.into(), uid: uid.into(), ports }
    }

    #[test]
    fn a_granted_port_has_one_pod_until_it_is_released() {
        let ports = RealPorts::new(IpAddr::from([127, 0, 0, 1]));
        ports.assign(&pod("a", 31000)).unwrap();
        ports.assign(&pod("a", 31000)).unwrap();
        assert!(ports.assign(&pod("b", 31000)).unwrap_err().to_string().contains("pod a"));
        ports.release("a");
        ports.assign(&pod("b", 31000)).unwrap();
    }

    #[test]
    fn another_port_is_taken_when_the_preferred_one_is_in_use() {
        let ports = RealPorts::new(IpAddr::from([127, 0, 0, 1]));
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let preferred = busy.local_addr().unwrap().port();
        assert_ne!(ports.own(preferred).unwrap(), preferred);
        drop(busy);
        assert_eq!(ports.own(preferred).unwrap(), preferred);
    }
}

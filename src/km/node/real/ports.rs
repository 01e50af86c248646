//! Host ports on this machine: the kubelet's own, those that Mesos granted to pods, and their destinations.
use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::super::cni::GrantedPorts;
use super::super::deps::{DepError, PortAllocator};
use super::super::view::translate::{NodePort, Translations};
use crate::cni::wire::{PortsRequest, Sandbox};
use kmctl_core::protocol::launch::{PodLaunch, PortMapping};

/// Ports of one node.
pub struct RealPorts {
    address: IpAddr,
    pods: Mutex<Pods>,
    translations: watch::Sender<Translations>,
}

#[derive(Default)]
struct Pods {
    /// Port and protocol → the pod's UID.
    taken: BTreeMap<(u16, String), String>,
    /// By UID: the pods that the CNI plugin queries.
    launched: BTreeMap<String, PodLaunch>,
    /// By UID: the sandbox that holds the pod's network.
    sandboxes: BTreeMap<String, Sandbox>,
}

impl RealPorts {
    /// At the node's address.
    pub fn new(address: IpAddr) -> Self {
        RealPorts { address, pods: Mutex::default(), translations: watch::Sender::default() }
    }

    /// The destinations of granted ports, for pods that have an address.
    pub fn translations(&self) -> watch::Receiver<Translations> {
        self.translations.subscribe()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Pods) -> T) -> T {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut pods);
        let now = pods.translations();
        // Under the lock, so that the last change is also the last one published.
        self.translations.send_if_modified(|told| {
            let modified = *told != now;
            *told = now;
            modified
        });
        result
    }
}

impl Pods {
    fn of(&self, pod: &PortsRequest) -> Option<&PodLaunch> {
        match &pod.uid {
            Some(uid) => self.launched.get(uid),
            None => self.launched.values().find(|one| one.namespace == pod.namespace && one.name == pod.name),
        }
    }

    fn translations(&self) -> Translations {
        let pods = self.sandboxes.iter().filter_map(|(uid, sandbox)| Some((self.launched.get(uid)?, sandbox.address)));
        pods.flat_map(|(pod, address)| {
            pod.ports.iter().map(move |mapping| {
                let port = NodePort { number: mapping.host_port, protocol: mapping.protocol.clone() };
                (port, (address, mapping.container_port))
            })
        })
        .collect()
    }
}

impl PortAllocator for RealPorts {
    fn own(&self, preferred: u16) -> Result<u16, DepError> {
        // Another cluster's kubelet on the same agent may use the preferred port. The API learns the actual port from
        // the Node's status.
        let listener = TcpListener::bind((self.address, preferred))
            .or_else(|_| TcpListener::bind((self.address, 0)))
            .map_err(DepError::io(format!("find a free port at {}", self.address)))?;
        listener.local_addr().map(|address| address.port()).map_err(DepError::io("find a free port"))
    }

    fn assign(&self, pod: &PodLaunch) -> Result<(), DepError> {
        self.change(|pods| {
            for mapping in &pod.ports {
                let key = (mapping.host_port, mapping.protocol.clone());
                if let Some(holder) = pods.taken.get(&key).filter(|holder| **holder != pod.uid) {
                    return Err(DepError::Refused(format!(
                        "host port {}/{} is allocated to pod {holder}",
                        mapping.host_port, mapping.protocol
                    )));
                }
            }
            for mapping in &pod.ports {
                pods.taken.insert((mapping.host_port, mapping.protocol.clone()), pod.uid.clone());
            }
            pods.launched.insert(pod.uid.clone(), pod.clone());
            Ok(())
        })
    }

    fn release(&self, uid: &str) {
        self.change(|pods| {
            pods.taken.retain(|_, holder| holder != uid);
            pods.launched.remove(uid);
            pods.sandboxes.remove(uid);
        });
    }
}

impl GrantedPorts for RealPorts {
    fn granted(&self, pod: &PortsRequest) -> Option<Vec<PortMapping>> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.of(pod).map(|pod| pod.ports.clone())
    }

    fn attach(&self, pod: &PortsRequest, sandbox: Sandbox) {
        self.change(|pods| {
            if let Some(uid) = pods.of(pod).map(|pod| pod.uid.clone()) {
                pods.sandboxes.insert(uid, sandbox);
            }
        });
    }

    fn detach(&self, container: &str) {
        self.change(|pods| pods.sandboxes.retain(|_, sandbox| sandbox.container != container));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::protocol::launch::FORMAT;

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

    #[test]
    fn granted_ports_lead_to_the_newest_sandbox_of_their_pod() {
        let ports = RealPorts::new(IpAddr::from([127, 0, 0, 1]));
        let told = ports.translations();
        let lead = || told.borrow().iter().map(|(port, to)| format!("{} {to:?}", port.number)).collect::<Vec<_>>();
        let name = |uid: &str| PortsRequest { uid: None, namespace: "default".into(), name: uid.into() };
        let sandbox =
            |container: &str, last| Sandbox { container: container.into(), address: [172, 30, 0, last].into() };
        ports.assign(&pod("a", 31000)).unwrap();
        assert_eq!(lead(), [""; 0], "no address yet");
        ports.attach(&name("a"), sandbox("one", 5));
        ports.attach(&name("stranger"), sandbox("two", 6));
        assert_eq!(lead(), ["31000 (172.30.0.5, 80)"]);
        ports.attach(&name("a"), sandbox("three", 7));
        ports.detach("one");
        assert_eq!(lead(), ["31000 (172.30.0.7, 80)"], "the old one's end does not take the new one's address");
        ports.detach("three");
        assert_eq!(lead(), [""; 0]);
        ports.attach(&name("a"), sandbox("four", 8));
        ports.release("a");
        assert_eq!(lead(), [""; 0]);
    }
}

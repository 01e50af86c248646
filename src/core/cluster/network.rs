//! IPv4 networks: those of pods and Services, and those that a machine has routes to. Pure.
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u32,
    /// Length of the prefix, in bits.
    pub prefix: u8,
}

impl Network {
    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }

    /// The network of `prefix` bits that contains `address`.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Network { address: u32::from(address) & Network::mask(prefix), prefix }
    }

    /// Whether the network contains `address`.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & Self::mask(self.prefix) == self.address
    }

    /// Whether the networks overlap.
    pub fn meets(&self, other: &Network) -> bool {
        let mask = Self::mask(self.prefix.min(other.prefix));
        self.address & mask == other.address & mask
    }

    /// The address with this number, counted from the network's first address; `None` if it is outside the network.
    pub fn host(&self, number: u32) -> Option<Ipv4Addr> {
        let address = self.address.checked_add(number).map(Ipv4Addr::from)?;
        self.contains(address).then_some(address)
    }

    /// The first private network (RFC 1918, free to use without assignment) of the same size that overlaps none of
    /// `taken`.
    pub fn free_like(&self, taken: &[Network]) -> Option<Network> {
        let private = [([172, 16, 0, 0], 12), ([10, 0, 0, 0], 8), ([192, 168, 0, 0], 16)];
        private.into_iter().filter(|(_, prefix)| *prefix <= self.prefix).find_map(|(address, prefix)| {
            let whole = Network::around(address.into(), prefix);
            let count = 1_u32 << u32::from(self.prefix - prefix).min(16);
            let step = 1_u64 << (32 - u32::from(self.prefix));
            // Search from the end: addresses are usually assigned from the beginning.
            (0..count).rev().find_map(|index| {
                let offset = u32::try_from(u64::from(index) * step).ok()?;
                let one = Network { address: whole.address.checked_add(offset)?, prefix: self.prefix };
                (!taken.iter().any(|other| one.meets(other))).then_some(one)
            })
        })
    }
}

/// A route of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The destination.
    pub network: Network,
    /// The network device.
    pub device: String,
}

/// Parses `/proc/net/route`. Routes for everything that has no other route are left out: prefixes below 8 bits, because
/// a default route may be split into parts.
pub fn routes(text: &str) -> Vec<Route> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (device, destination) = (fields.next()?, fields.next()?);
        let mask = fields.nth(5)?;
        // The kernel prints them in the machine's byte order.
        let number = |text: &str| u32::from_str_radix(text, 16).map(u32::from_be).ok();
        let prefix = u8::try_from(number(mask)?.leading_ones()).ok()?;
        let network = Network::around(Ipv4Addr::from(number(destination)?), prefix);
        Some(Route { network, device: device.to_owned() })
    });
    lines.filter(|route| route.network.prefix >= 8).collect()
}

/// The route that conflicts with using `pods` as the pod network on a machine, and a network of the same size that does
/// not conflict. Routes of `bridge`, which holds the gateway's address, belong to the pods. If that bridge exists, so
/// do routes to a single pod address.
pub fn clash<'a>(pods: &Network, routes: &'a [Route], bridge: &str) -> Option<(&'a Route, Option<Network>)> {
    let runs = routes.iter().any(|route| route.device == bridge);
    let own =
        |route: &Route| route.device == bridge || (runs && route.network.prefix == 32 && route.network.meets(pods));
    let others: Vec<&Route> = routes.iter().filter(|route| !own(route)).collect();
    let route = others.iter().copied().find(|route| route.network.meets(pods))?;
    let taken: Vec<Network> = others.iter().map(|route| route.network).collect();
    Some((route, pods.free_like(&taken)))
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is not an IPv4 network such as `10.96.0.0/16`".to_owned();
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: u32 = address.parse::<Ipv4Addr>().map_err(|_| wrong())?.into();
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if prefix > 32 {
            return Err(wrong());
        }
        let first = address & Network::mask(prefix);
        if first != address {
            return Err(format!("is not the start of its network; did you mean `{}/{prefix}`?", Ipv4Addr::from(first)));
        }
        Ok(Network { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.address), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_counted_from_the_first_and_end_with_the_network() {
        let pods = network("172.30.0.0/16");
        assert_eq!(pods.host(1), Some([172, 30, 0, 1].into()));
        assert_eq!(network("10.0.0.0/30").host(4), None);
        assert_eq!(network("255.255.255.252/30").host(9), None);
        assert_eq!(Network::around([10, 1, 2, 3].into(), 16).to_string(), "10.1.0.0/16");
    }

    #[test]
    fn a_free_network_of_the_same_size_is_found() {
        let cases = [
            ("172.30.0.0/16", vec!["172.30.0.0/16"], Some("172.31.0.0/16")),
            ("172.30.0.0/16", vec!["172.16.0.0/12"], Some("10.255.0.0/16")),
            ("172.30.0.0/16", vec!["172.31.4.0/24", "172.30.0.0/15"], Some("172.29.0.0/16")),
            ("172.30.0.0/16", vec!["0.0.0.0/0"], None),
            ("10.0.0.0/8", vec!["192.168.1.0/24"], Some("10.0.0.0/8")),
        ];
        for (own, taken, expected) in cases {
            let taken: Vec<Network> = taken.into_iter().map(network).collect();
            let free = network(own).free_like(&taken).map(|free| free.to_string());
            assert_eq!(free.as_deref(), expected, "{own} beside {taken:?}");
        }
    }

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
        eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        docker0\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";

    #[test]
    fn a_route_that_meets_the_pods_network_is_found_with_a_free_one() {
        let told = |pods: &str, bridge: &str| {
            let routes = routes(ROUTES);
            let (route, free) = clash(&network(pods), &routes, bridge)?;
            let free = free.map(|free| free.to_string()).unwrap_or_default();
            Some(format!("{} by {}, free {free}", route.network, route.device))
        };
        let docker = Some("172.30.0.0/16 by docker0, free 172.31.0.0/16".to_owned());
        assert_eq!(told("172.30.0.0/16", "km0"), docker);
        assert_eq!(told("172.16.0.0/12", "km0").as_deref(), Some("172.30.0.0/16 by docker0, free 10.240.0.0/12"));
        assert_eq!(told("10.0.0.0/8", "km0").as_deref(), Some("10.0.0.0/24 by eth0, free "));
        assert_eq!(told("172.31.0.0/16", "km0"), None, "default routes do not count");
        assert_eq!(told("172.30.0.0/16", "docker0"), None, "pods' own");
    }

    #[test]
    fn routes_to_single_pods_are_theirs_where_their_bridge_is() {
        let route = |text: &str, device: &str| Route { network: network(text), device: device.to_owned() };
        let pods = network("172.30.0.0/16");
        let pod = route("172.30.0.5/32", "veth1");
        let with_bridge = [pod.clone(), route("172.30.0.0/16", "km0")];
        assert!(clash(&pods, &with_bridge, "km0").is_none());
        assert!(clash(&pods, std::slice::from_ref(&pod), "km0").is_some(), "somebody else's");
        let smaller = [route("172.30.1.0/24", "tun0"), route("172.30.0.0/16", "km0")];
        assert!(clash(&pods, &smaller, "km0").is_some());
    }
}

//! A separate subnet for a run without an API server: several runs, and a node, may be on one machine at a time.
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::super::deps::DepError;

/// Prefix length of a run's subnet: it has more addresses than a kubelet accepts pods.
const PREFIX: u32 = 24;

/// A subnet that no other run on this machine uses while this value lives.
#[derive(Debug)]
pub struct Claimed {
    /// `a.b.c.d/24`.
    pub subnet: String,
    // An abstract socket's name is per network namespace, like the routes, and is released however its holder ends.
    _name: UnixListener,
}

/// Claims a part of `network` that is neither routed here nor claimed by another run.
pub fn claim_subnet(network: &str) -> Result<Claimed, DepError> {
    let table = std::fs::read_to_string("/proc/net/route").map_err(DepError::io("read /proc/net/route"))?;
    claim(network, &routes(&table), "kmctl/subnet")
}

fn claim(network: &str, routed: &[(u32, u32)], name: &str) -> Result<Claimed, DepError> {
    for subnet in free(network, routed)? {
        let text = format!("{}/{PREFIX}", Ipv4Addr::from(subnet));
        let what = format!("claim {text}");
        let address = SocketAddr::from_abstract_name(format!("{name}/{text}")).map_err(DepError::io(what.clone()))?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(Claimed { subnet: text, _name: listener }),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(DepError::Io { what, source }),
        }
    }
    Err(DepError::Refused(format!("all subnets of {network} are routed or in use on this machine")))
}

/// The subnets of `network` that overlap no route.
fn free(network: &str, routed: &[(u32, u32)]) -> Result<Vec<u32>, DepError> {
    let wrong = || DepError::Refused(format!("`{network}` is not an IPv4 network of at least /{PREFIX}"));
    let (address, prefix) = network.split_once('/').ok_or_else(wrong)?;
    let address = u32::from(address.parse::<Ipv4Addr>().map_err(|_| wrong())?);
    let prefix: u32 = prefix.parse().ok().filter(|prefix| (1..=PREFIX).contains(prefix)).ok_or_else(wrong)?;
    let own = mask(PREFIX);
    let count = 1u32 << (PREFIX - prefix);
    let meets = |subnet: u32| routed.iter().any(|(to, mask)| to & mask & own == subnet & mask & own);
    Ok((0..count)
        .map(|index| (address & mask(prefix)) + (index << (32 - PREFIX)))
        .filter(|subnet| !meets(*subnet))
        .collect())
}

fn mask(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}

/// Destination and mask of every route except the default one, from the text of /proc/net/route (hexadecimal, in the
/// machine's byte order, which is little-endian on km's targets).
fn routes(table: &str) -> Vec<(u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((number(fields.get(1)?)?, number(fields.get(7)?)?))
        })
        .filter(|(_, mask)| *mask != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        km0\t00001FAC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        x\t05011FAC\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";

    #[test]
    fn a_subnet_that_meets_a_route_is_not_taken() {
        let free = free("172.31.0.0/16", &routes(TABLE)).unwrap();
        assert_eq!(free.len(), 254);
        assert_eq!(Ipv4Addr::from(free[0]), Ipv4Addr::new(172, 31, 2, 0), "the first two have routes");
        assert!(super::free("172.31.0.0/16", &[(0xac1f_0000, 0xffff_0000)]).unwrap().is_empty());
        assert!(super::free("172.31.0.0/30", &[]).is_err());
    }

    #[test]
    fn two_runs_get_different_subnets_until_one_ends() {
        let name = format!("kmctl-test-{}", std::process::id());
        let first = claim("172.31.0.0/16", &[], &name).unwrap();
        let second = claim("172.31.0.0/16", &[], &name).unwrap();
        assert_eq!([first.subnet.as_str(), second.subnet.as_str()], ["172.31.0.0/24", "172.31.1.0/24"]);
        drop(first);
        assert_eq!(claim("172.31.0.0/16", &[], &name).unwrap().subnet, "172.31.0.0/24");
        assert!(claim("172.31.0.0/24", &[(0xac1f_0000, 0xffff_ff00)], &name).is_err());
    }
}

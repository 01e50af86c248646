//! IPv4 networks: pods', Services' and those that a machine has routes to. Pure.
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

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

    /// The network of `prefix` bits that `address` lies in.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Network { address: u32::from(address) & Network::mask(prefix), prefix }
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & Self::mask(self.prefix) == self.address
    }

    /// Whether an address lies in both.
    pub fn meets(&self, other: &Network) -> bool {
        let mask = Self::mask(self.prefix.min(other.prefix));
        self.address & mask == other.address & mask
    }

    /// Its address with this number, counted from its first; none beyond its end.
    pub fn host(&self, number: u32) -> Option<Ipv4Addr> {
        let address = self.address.checked_add(number).map(Ipv4Addr::from)?;
        self.contains(address).then_some(address)
    }

    /// The first network of the same size, among those that nobody has to ask for (RFC 1918), that meets none of
    /// `taken`.
    pub fn free_like(&self, taken: &[Network]) -> Option<Network> {
        let private = [([172, 16, 0, 0], 12), ([10, 0, 0, 0], 8), ([192, 168, 0, 0], 16)];
        private.into_iter().filter(|(_, prefix)| *prefix <= self.prefix).find_map(|(address, prefix)| {
            let whole = Network::around(address.into(), prefix);
            let count = 1_u32 << u32::from(self.prefix - prefix).min(16);
            let step = 1_u64 << (32 - u32::from(self.prefix));
            // From the end: the beginning is where everybody starts to give addresses out.
            (0..count).rev().find_map(|index| {
                let offset = u32::try_from(u64::from(index) * step).ok()?;
                let one = Network { address: whole.address.checked_add(offset)?, prefix: self.prefix };
                (!taken.iter().any(|other| one.meets(other))).then_some(one)
            })
        })
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
}

//! Names outside the cluster, resolved by the host's own resolvers, with a cache.
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};

use super::super::deps::DepError;

/// Size of the cache in answers. One takes some hundred bytes.
const CACHE: u64 = 4096;
/// After this time the query is repeated, to the same resolver or the next one.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest time that an answer is cached, whatever its TTL: the answers of the host's resolvers may change.
const KEEP: Duration = Duration::from_secs(300);

/// The host's resolvers.
pub struct Forward {
    /// None if the host has no resolvers.
    resolver: Option<TokioResolver>,
}

/// The answer of the host's resolvers.
#[derive(Debug)]
pub struct Forwarded {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    /// The SOA record, which limits how long a negative answer may be cached.
    pub authority: Option<Record>,
}

impl Forward {
    /// Uses the resolvers of a resolv.conf, except this server itself: forwarding to itself would loop indefinitely.
    pub fn new(resolv_conf: &str, own: IpAddr) -> Result<Forward, DepError> {
        let servers: Vec<NameServerConfig> = name_servers(resolv_conf)
            .into_iter()
            .filter(|server| *server != own)
            .map(NameServerConfig::udp_and_tcp)
            .collect();
        Forward::to(servers)
    }

    pub(super) fn to(servers: Vec<NameServerConfig>) -> Result<Forward, DepError> {
        if servers.is_empty() {
            return Ok(Forward { resolver: None });
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = PATIENCE;
        options.cache_size = CACHE;
        options.positive_max_ttl = Some(KEEP);
        options.negative_max_ttl = Some(KEEP);
        // Pods must not see the host's /etc/hosts.
        options.use_hosts_file = ResolveHosts::Never;
        // Clients need the whole chain of CNAME records.
        options.preserve_intermediates = true;
        options.try_tcp_on_error = true;
        let resolver = builder.build().map_err(DepError::other("set up the resolvers of the host"))?;
        Ok(Forward { resolver: Some(resolver) })
    }

    /// Looks up `name` with the host's resolvers.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Forwarded {
        let failed = |code| Forwarded { code, answers: Vec::new(), authority: None };
        let Some(resolver) = &self.resolver else { return failed(ResponseCode::Refused) };
        let mut name = name.clone();
        // Otherwise the host's search domains would be tried, too.
        name.set_fqdn(true);
        match resolver.lookup(name, kind).await {
            Ok(lookup) => {
                Forwarded { code: ResponseCode::NoError, answers: lookup.answers().to_vec(), authority: None }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let authority =
                    none.soa.map(|soa| Record::from_rdata(soa.name.clone(), soa.ttl, RData::SOA(soa.data.clone())));
                Forwarded { code: none.response_code, answers: Vec::new(), authority }
            }
            Err(error) => {
                tracing::debug!(%error, "no response from the resolvers of the host");
                failed(ResponseCode::ServFail)
            }
        }
    }
}

/// Addresses on `nameserver` lines.
fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let lines = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    });
    // glibc allows a zone in link-local addresses (`fe80::1%eth0`); such a server is left out.
    lines.filter_map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_from_their_lines_and_we_are_none() {
        let text = "# nameserver 1.1.1.1\nsearch example.com\nnameserver 10.0.0.2\nnameserver  10.0.0.3 # second\n\
                    nameserver fe80::1%eth0\nnameserver ::1\n";
        let addresses: Vec<String> = name_servers(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["10.0.0.2", "10.0.0.3", "::1"]);
        let own = IpAddr::from([172, 30, 0, 1]);
        assert!(Forward::new("nameserver 172.30.0.1\n", own).unwrap().resolver.is_none());
    }

    #[tokio::test]
    async fn a_host_without_resolvers_refuses() {
        let forward = Forward::new("", IpAddr::from([172, 30, 0, 1])).unwrap();
        let forwarded = forward.ask(&Name::from_ascii("example.com.").unwrap(), RecordType::A).await;
        assert_eq!(forwarded.code, ResponseCode::Refused);
    }
}

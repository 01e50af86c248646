//! The tools for a node's firewall rules: which `iptables` to use, and whether kube-proxy can run in nftables mode.
//! [`decide`] chooses from the results of trials on this machine; [`PacketFilter`] runs these trials, once per run.
//!
//! All of a node's rules have one back end: kube-proxy's, the stock plugins', and those of `km cni` and `km node`. The
//! latter are written by `iptables` in either mode; in nftables mode by the variant that writes nft's tables.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;
use tracing::{info, warn};

use super::super::deps::DepError;
use super::cleanup::run_program;
use kmctl_core::cluster::{NetworkMode, ProxyMode};
use kmctl_core::node::programs::HOST_PATH;
use kmctl_core::node::spec::DepsSpec;

/// Required by kube-proxy: earlier versions read the rules of all programs at their start, and fail on unknown ones.
const NFT: [u32; 3] = [1, 0, 1];

/// Required by kube-proxy.
const KERNEL: [u32; 3] = [5, 13, 0];

/// The binaries that plugins, kubelet, kube-proxy and km call.
const PROGRAMS: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// The kernel tables that an `iptables` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Tables of nftables.
    Nft,
    /// The legacy tables of iptables.
    Legacy,
}

impl Variant {
    const fn word(self) -> &'static str {
        match self {
            Variant::Nft => "nft",
            Variant::Legacy => "legacy",
        }
    }
}

/// An `iptables` of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iptables {
    /// The path of the binary.
    pub path: PathBuf,
    /// The kernel tables that it writes.
    pub variant: Variant,
}

impl Iptables {
    /// Whether its name differs from the usual `iptables`.
    fn renamed(&self) -> bool {
        !self.path.ends_with("iptables")
    }
}

/// An `iptables`, and whether it can read the kernel's NAT table.
pub type Tried = (Iptables, Result<(), String>);

/// The chosen tools for a node's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// kube-proxy's mode.
    pub mode: ProxyMode,
    /// None only if no part of the node needs it.
    pub iptables: Option<Iptables>,
    /// Why it is not the requested mode.
    pub why: Option<String>,
}

impl Choice {
    /// Human-readable: `iptables (nft)`, `iptables (legacy)`, `nftables`.
    pub fn shown(&self) -> String {
        match (self.mode, &self.iptables) {
            (ProxyMode::Nftables, _) => "nftables".to_owned(),
            (ProxyMode::Iptables, Some(iptables)) => format!("iptables ({})", iptables.variant.word()),
            (ProxyMode::Iptables, None) => "iptables".to_owned(),
        }
    }
}

/// Chooses. `nftables`: why that mode is impossible, if it is. Fails if the machine cannot run a node at all.
pub fn decide(
    asked: ProxyMode,
    pods: NetworkMode,
    tried: &[Tried],
    nftables: &Result<(), String>,
) -> Result<Choice, String> {
    let working = || tried.iter().filter(|(_, works)| works.is_ok()).map(|(iptables, _)| iptables);
    let nft = working().find(|iptables| iptables.variant == Variant::Nft).cloned();
    let why = match (asked, nftables, &nft, pods) {
        (ProxyMode::Iptables, ..) => None,
        (ProxyMode::Nftables, Err(why), ..) => Some(why.clone()),
        // One back end for all rules: with two, the order of rules and chains would be unpredictable.
        (ProxyMode::Nftables, Ok(()), None, NetworkMode::HostPorts) => {
            Some("no iptables for nf_tables found, which host ports require".to_owned())
        }
        (ProxyMode::Nftables, Ok(()), ..) => return Ok(Choice { mode: asked, iptables: nft, why: None }),
    };
    match working().next().cloned() {
        Some(iptables) => Ok(Choice { mode: ProxyMode::Iptables, iptables: Some(iptables), why }),
        None if tried.is_empty() => Err("iptables is not installed".to_owned()),
        None => {
            let said = tried.iter().map(|(iptables, works)| {
                let said = works.as_ref().err().map_or("", String::as_str);
                format!("{}: {said}", iptables.path.display())
            });
            Err(format!("no iptables works on this kernel: {}", said.collect::<Vec<_>>().join("; ")))
        }
    }
}

/// Whether another `iptables` must be tried.
fn goes_on(asked: ProxyMode, tried: &[Tried]) -> bool {
    !tried
        .iter()
        .any(|(iptables, works)| works.is_ok() && (asked == ProxyMode::Iptables || iptables.variant == Variant::Nft))
}

/// From `iptables --version`: versions before the two variants print only the number.
fn variant(version: &str) -> Variant {
    if version.contains("nf_tables") { Variant::Nft } else { Variant::Legacy }
}

/// The first dotted version number in a text.
fn number(text: &str) -> Option<[u32; 3]> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split(|letter: char| !letter.is_ascii_digit());
        let (first, second) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some([first, second, parts.next().and_then(|patch| patch.parse().ok()).unwrap_or(0)])
    })
}

fn at_least(what: &str, said: &str, least: [u32; 3]) -> Result<(), String> {
    let found = number(said).ok_or_else(|| format!("unknown version of {what}: `{}`", said.trim()))?;
    let dotted = |number: [u32; 3]| number.map(|part| part.to_string()).join(".");
    if found < least { Err(format!("{what} {} is older than {}", dotted(found), dotted(least))) } else { Ok(()) }
}

/// A ruleset with every kernel feature that kube-proxy's nftables mode uses. It is only checked, not applied.
fn rehearsal(v6: bool) -> String {
    let (family, address, target) =
        if v6 { ("ip6", "ipv6_addr", "2001:db8::1") } else { ("ip", "ipv4_addr", "192.0.2.1") };
    format!(
        "table {family} kmctl-rehearsal {{
  map to {{ type {address} . inet_proto . inet_service : verdict; }}
  chain none {{ reject; }}
  chain services {{
    {family} daddr . meta l4proto . th dport vmap @to
    fib daddr type local numgen random mod 2 vmap {{ 0 : goto none, 1 : goto none }}
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; dnat to {target}; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & 0x4000 != 0 masquerade fully-random;
  }}
  chain forward {{ type filter hook forward priority filter; policy accept; ct state new jump services; }}
}}
"
    )
}

/// A binary of this machine, in the search path of the node's children.
fn find(name: &str) -> Option<PathBuf> {
    HOST_PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

async fn try_iptables(path: PathBuf) -> Tried {
    let program = path.display().to_string();
    let version = run_program(&program, &["--version"], None).await;
    let iptables = Iptables { path, variant: variant(&version.unwrap_or_default()) };
    let listed = run_program(&program, &["-w", "5", "-t", "nat", "-S"], None).await;
    (iptables, listed.map(drop).map_err(|error| error.chain()))
}

async fn try_nftables(v6: bool) -> Result<(), String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    at_least("kernel", &kernel, KERNEL)?;
    let Some(nft) = find("nft").map(|path| path.display().to_string()) else {
        return Err("nft is not installed".to_owned());
    };
    let version = run_program(&nft, &["--version"], None).await.map_err(|error| error.chain())?;
    at_least("nft", &version, NFT)?;
    let listed = run_program(&nft, &["--json", "list", "tables"], None).await.map_err(|error| error.chain())?;
    if serde_json::from_str::<serde_json::Value>(&listed).is_err() {
        return Err("nft does not support JSON".to_owned());
    }
    let checked = run_program(&nft, &["--check", "-f", "-"], Some(rehearsal(v6))).await;
    checked.map(drop).map_err(|error| {
        // On one line, because it is written to an annotation.
        let said = error.chain().split_whitespace().collect::<Vec<_>>().join(" ");
        format!("the kernel rejects the nft rules of kube-proxy: {said}")
    })
}

/// The tools for a run's rules, determined on first use.
#[derive(Clone)]
pub struct PacketFilter {
    spec: DepsSpec,
    choice: Arc<OnceCell<Choice>>,
}

impl PacketFilter {
    /// For one run.
    pub fn new(spec: DepsSpec) -> Self {
        PacketFilter { spec, choice: Arc::default() }
    }

    /// The choice. The first call also links the run's `iptables`, so the run's directories must exist.
    pub async fn choice(&self) -> Result<&Choice, DepError> {
        self.choice.get_or_try_init(|| self.find_out()).await
    }

    async fn find_out(&self) -> Result<Choice, DepError> {
        let (asked, pods) = (self.spec.network.proxy_mode, self.spec.network.mode);
        let mut tried = Vec::new();
        for name in ["iptables", "iptables-nft", "iptables-legacy"] {
            if let (true, Some(path)) = (goes_on(asked, &tried), find(name)) {
                tried.push(try_iptables(path).await);
            }
        }
        let nftables = match asked {
            ProxyMode::Iptables => Ok(()),
            ProxyMode::Nftables => try_nftables(self.spec.node.ip.is_ipv6()).await,
        };
        let choice = match decide(asked, pods, &tried, &nftables) {
            Ok(choice) => choice,
            // Without Services, pods in the machine's network need no rules.
            Err(why) if self.spec.once.is_some() => {
                warn!("pods without hostNetwork will fail: {why}");
                Choice { mode: ProxyMode::Iptables, iptables: None, why: None }
            }
            // May be temporary: a module may still be loaded, a lock be released.
            Err(why) => return Err(DepError::NotNow(why)),
        };
        match &choice.why {
            None => info!("using {} for firewall rules", choice.shown()),
            Some(why) => warn!("kube-proxy uses {}, not nftables: {why}", choice.shown()),
        }
        if let Some(iptables) = choice.iptables.as_ref().filter(|iptables| iptables.renamed()) {
            link(&self.spec.folders.programs(), iptables)?;
        }
        Ok(choice)
    }

    /// The path of one of iptables' binaries, in the variant that works.
    pub fn program(&self, name: &str) -> String {
        let own = self.spec.folders.programs().join(name);
        if own.exists() { own.display().to_string() } else { name.to_owned() }
    }
}

/// Links this variant under the usual names for all processes of the run: the binaries select their function by the
/// name they are called with.
fn link(programs: &Path, iptables: &Iptables) -> Result<(), DepError> {
    for name in PROGRAMS {
        let (family, rest) =
            name.split_once('-').map_or((name, String::new()), |(family, rest)| (family, format!("-{rest}")));
        let target = iptables.path.with_file_name(format!("{family}-{}{rest}", iptables.variant.word()));
        let place = programs.join(name);
        let _ = std::fs::remove_file(&place);
        std::os::unix::fs::symlink(&target, &place).map_err(DepError::io(format!("create {}", place.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(name: &str, variant: Variant, works: bool) -> Tried {
        let works = if works { Ok(()) } else { Err("table does not exist".to_owned()) };
        (Iptables { path: Path::new("/usr/sbin").join(name), variant }, works)
    }

    #[test]
    fn the_mode_is_the_one_that_was_asked_for_wherever_the_machine_can() {
        use NetworkMode::{Cni, HostPorts};
        use ProxyMode::{Iptables, Nftables};
        let nft = || vec![tried("iptables", Variant::Nft, true)];
        let legacy = || vec![tried("iptables", Variant::Legacy, true)];
        let only_legacy =
            || vec![tried("iptables", Variant::Nft, false), tried("iptables-legacy", Variant::Legacy, true)];
        let beside = || vec![tried("iptables", Variant::Legacy, true), tried("iptables-nft", Variant::Nft, true)];
        let no = || Err("nft is not installed".to_owned());
        let table = [
            (Iptables, HostPorts, nft(), Ok(()), "iptables (nft) by iptables"),
            (Iptables, HostPorts, legacy(), Ok(()), "iptables (legacy) by iptables"),
            (Iptables, HostPorts, only_legacy(), Ok(()), "iptables (legacy) by iptables-legacy"),
            (Nftables, HostPorts, nft(), Ok(()), "nftables by iptables"),
            (Nftables, HostPorts, beside(), Ok(()), "nftables by iptables-nft"),
            (Nftables, HostPorts, nft(), no(), "iptables (nft) by iptables: nft is not installed"),
            (Nftables, HostPorts, only_legacy(), no(), "iptables (legacy) by iptables-legacy: nft is not installed"),
            (
                Nftables,
                HostPorts,
                legacy(),
                Ok(()),
                "iptables (legacy) by iptables: no iptables for nf_tables found, which host ports require",
            ),
            (Nftables, Cni, legacy(), Ok(()), "nftables by nothing"),
            (Nftables, Cni, Vec::new(), Ok(()), "nftables by nothing"),
        ];
        for (asked, pods, tried, nftables, expected) in table {
            let choice = decide(asked, pods, &tried, &nftables).unwrap();
            let by = choice
                .iptables
                .as_ref()
                .map_or("nothing".into(), |one| one.path.file_name().unwrap().to_string_lossy());
            let why = choice.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            assert_eq!(format!("{} by {by}{why}", choice.shown()), expected);
        }
    }

    #[test]
    fn a_machine_without_any_iptables_that_works_is_told_so() {
        let none = decide(ProxyMode::Iptables, NetworkMode::HostPorts, &[], &Ok(())).unwrap_err();
        assert_eq!(none, "iptables is not installed");
        let broken = [tried("iptables", Variant::Nft, false)];
        let broken = decide(ProxyMode::Iptables, NetworkMode::Cni, &broken, &Ok(())).unwrap_err();
        assert_eq!(broken, "no iptables works on this kernel: /usr/sbin/iptables: table does not exist");
    }

    #[test]
    fn another_iptables_is_tried_only_where_the_usual_one_does_not_do() {
        let (nft, legacy) = (tried("iptables", Variant::Nft, true), tried("iptables", Variant::Legacy, true));
        assert!(!goes_on(ProxyMode::Iptables, std::slice::from_ref(&legacy)));
        assert!(goes_on(ProxyMode::Nftables, &[legacy]) && !goes_on(ProxyMode::Nftables, &[nft]));
        assert!(goes_on(ProxyMode::Iptables, &[tried("iptables", Variant::Nft, false)]));
    }

    #[test]
    fn versions_are_read_as_programs_print_them() {
        assert_eq!(variant("iptables v1.8.9 (nf_tables)\n"), Variant::Nft);
        assert_eq!(variant("iptables v1.8.9 (legacy)\n"), Variant::Legacy);
        assert_eq!(variant("iptables v1.6.1\n"), Variant::Legacy);
        assert_eq!(at_least("nft", "nftables v1.0.6 (Lester Gooch #5)\n", NFT), Ok(()));
        assert_eq!(at_least("nft", "nftables v0.9.8 (E.D.S.)\n", NFT), Err("nft 0.9.8 is older than 1.0.1".to_owned()));
        assert_eq!(at_least("kernel", "6.1.0-32-amd64\n", KERNEL), Ok(()));
        assert_eq!(at_least("kernel", "5.10.0-8-amd64", KERNEL), Err("kernel 5.10.0 is older than 5.13.0".to_owned()));
        assert!(at_least("nft", "what?", NFT).is_err());
    }

    #[test]
    fn whoever_calls_iptables_gets_the_variant_that_works() {
        let folder = tempfile::tempdir().unwrap();
        let legacy = Iptables { path: PathBuf::from("/usr/sbin/iptables-legacy"), variant: Variant::Legacy };
        for _ in 0..2 {
            link(folder.path(), &legacy).unwrap();
        }
        let target = |name: &str| std::fs::read_link(folder.path().join(name)).unwrap();
        assert_eq!(target("iptables"), Path::new("/usr/sbin/iptables-legacy"));
        assert_eq!(target("ip6tables-restore"), Path::new("/usr/sbin/ip6tables-legacy-restore"));
    }
}

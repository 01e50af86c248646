//! Approves certificates of nodes. Nothing else approves them. A client certificate is approved only for the holder of
//! the token that was handed to that node, a serving certificate only for the node itself and for no name but its own.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api as Objects, Client, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::api::Api;
use kmctl_core::backoff::{Backoff, Retries};
use kmctl_core::k8s::names::BOOTSTRAP_GROUP;
use kmctl_core::k8s::names::MANAGER;
use kmctl_core::model::nodes::{NodeFacts, NodePhase};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
const NODES_GROUP: &str = "system:nodes";
const NODE_USER: &str = "system:node:";
const TOKEN_USER: &str = "system:bootstrap:";

/// Pause before a request that could not be approved is judged again: the kubelet may report its Node's address a
/// moment later. Retries end with the request, which the cluster removes after a day.
const AGAIN: Backoff = Backoff::doubling(Duration::from_secs(2), Duration::from_secs(120));

/// Limit for one request's judgement and approval.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The fields of a request that the judgement needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub signer: String,
    /// The requesting user.
    pub user: String,
    /// The requesting user's groups.
    pub groups: Vec<String>,
    /// Requested usages.
    pub usages: Vec<String>,
    /// Requested common name.
    pub common_name: String,
    /// Requested organizations.
    pub organizations: Vec<String>,
    /// Requested DNS names.
    pub dns_names: BTreeSet<String>,
    /// Requested addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Names of other kinds are requested.
    pub other_names: bool,
}

/// Decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Approve. If a token is named, it is no longer needed.
    Approve {
        /// Id of the token to delete.
        spent_token: Option<String>,
    },
    /// Not a request of our nodes.
    Ignore,
    /// Not approvable for now, with the reason.
    Refuse(&'static str),
}

impl Request {
    /// Reads a request. None if it is unreadable.
    pub fn read(csr: &CertificateSigningRequest) -> Option<Request> {
        let spec = &csr.spec;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&spec.request.0).ok()?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        request.verify_signature().ok()?;
        let subject = &request.certification_request_info.subject;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().ok().map(str::to_owned);
        let mut read = Request {
            signer: spec.signer_name.clone(),
            user: spec.username.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            usages: spec.usages.clone().unwrap_or_default(),
            common_name: subject.iter_common_name().filter_map(text).collect(),
            organizations: subject.iter_organization().filter_map(text).collect(),
            ..Request::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => {
                        read.dns_names.insert((*name).to_owned());
                    }
                    GeneralName::IPAddress(bytes) => {
                        match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                            (Ok(four), _) => {
                                read.addresses.insert(IpAddr::from(four));
                            }
                            (_, Ok(sixteen)) => {
                                read.addresses.insert(IpAddr::from(sixteen));
                            }
                            _ => read.other_names = true,
                        }
                    }
                    _ => read.other_names = true,
                }
            }
        }
        Some(read)
    }

    /// Reads a request. None if it is unreadable or its signature is invalid.
    pub fn node(&self) -> Option<&str> {
        self.common_name.strip_prefix(NODE_USER).filter(|node| !node.is_empty())
    }
}

/// Judges a request, given the node as the API shows it.
pub fn judge(request: &Request, node: Option<&NodeFacts>) -> Verdict {
    let only = |allowed: &[&str]| request.usages.iter().all(|usage| allowed.contains(&usage.as_str()));
    if request.organizations != [NODES_GROUP] || request.node().is_none() {
        return Verdict::Ignore;
    }
    let plain = request.dns_names.is_empty() && request.addresses.is_empty() && !request.other_names;
    match request.signer.as_str() {
        CLIENT_SIGNER => {
            let Some(token) = request.user.strip_prefix(TOKEN_USER) else { return Verdict::Ignore };
            if !request.groups.iter().any(|group| group == BOOTSTRAP_GROUP) {
                return Verdict::Ignore;
            }
            let Some(node) = node else { return Verdict::Refuse("node not found") };
            if node.token_id.as_deref() != Some(token) {
                return Verdict::Refuse("the token belongs to another node");
            }
            if node.phase != NodePhase::Starting || node.kubelet {
                return Verdict::Refuse("the node is not starting");
            }
            if !plain || !only(&["digital signature", "key encipherment", "client auth"]) {
                return Verdict::Refuse("requests more than a client certificate");
            }
            // The kubelet downloads the certificate with the token, so the token has to live a little longer.
            Verdict::Approve { spent_token: None }
        }
        SERVING_SIGNER => {
            if request.user != request.common_name {
                return Verdict::Refuse("requests a certificate for another node");
            }
            let Some(node) = node else { return Verdict::Refuse("node not found") };
            let address: BTreeSet<IpAddr> = node.address.iter().filter_map(|address| address.parse().ok()).collect();
            let hostname = node.labels.get("kubernetes.io/hostname");
            let own = |name: &String| *name == node.name || Some(name) == hostname;
            if plain
                || request.other_names
                || !request.dns_names.iter().all(own)
                || !request.addresses.is_subset(&address)
            {
                return Verdict::Refuse("requests names or addresses that are not those of the node");
            }
            if !only(&["digital signature", "key encipherment", "server auth"]) {
                return Verdict::Refuse("requests more than a serving certificate");
            }
            Verdict::Approve { spent_token: node.token_id.clone() }
        }
        _ => Verdict::Ignore,
    }
}

/// Approves requests until cancelled.
pub async fn run(client: Client, api: Api) {
    let requests = Objects::<CertificateSigningRequest>::all(client.clone());
    let nodes = Objects::<Node>::all(client);
    let mut watched = pin!(watcher(requests.clone(), watcher::Config::default()).default_backoff());
    let mut open = Open::default();
    loop {
        let next = open.next();
        tokio::select! {
            biased;
            watched = watched.next() => match watched {
                Some(Ok(event)) => open.take_in(event, Instant::now()),
                Some(Err(error)) => tracing::warn!(%error, "watch of certificate requests failed, restarting"),
                None => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        for csr in open.due(Instant::now()) {
            let name = csr.name_any();
            match tokio::time::timeout(REQUEST_TIMEOUT, settle(&requests, &nodes, &api, csr)).await {
                Ok(Ok(None)) => open.settled(&name),
                Ok(Ok(Some(why))) => open.put_off(&name, Instant::now(), why.to_owned()),
                Ok(Err(error)) => open.put_off(&name, Instant::now(), error.to_string()),
                Err(_) => open.put_off(&name, Instant::now(), "no response from the API server in time".to_owned()),
            }
        }
    }
}

/// Undecided requests, and when each is judged next.
#[derive(Default)]
struct Open(BTreeMap<String, Waiting>);

struct Waiting {
    csr: CertificateSigningRequest,
    due: Instant,
    retries: Retries,
    /// The last logged reason, so that only a change is logged.
    said: String,
}

impl Open {
    fn take_in(&mut self, event: watcher::Event<CertificateSigningRequest>, now: Instant) {
        match event {
            watcher::Event::Init => self.0.clear(),
            watcher::Event::InitDone => {}
            watcher::Event::Delete(csr) => self.settled(&csr.name_any()),
            watcher::Event::InitApply(csr) | watcher::Event::Apply(csr) => {
                if undecided(&csr) {
                    let waiting = Waiting { csr, due: now, retries: Retries::new(AGAIN), said: String::new() };
                    self.0.entry(waiting.csr.name_any()).or_insert(waiting);
                } else {
                    self.settled(&csr.name_any());
                }
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().map(|waiting| waiting.due).min()
    }

    fn due(&self, now: Instant) -> Vec<CertificateSigningRequest> {
        self.0.values().filter(|waiting| waiting.due <= now).map(|waiting| waiting.csr.clone()).collect()
    }

    fn settled(&mut self, name: &str) {
        self.0.remove(name);
    }

    fn put_off(&mut self, name: &str, now: Instant, why: String) {
        let Some(waiting) = self.0.get_mut(name) else { return };
        waiting.due = now + waiting.retries.wait();
        if waiting.said != why {
            tracing::info!(csr = name, "not approved, checking again: {why}");
            waiting.said = why;
        }
    }
}

fn undecided(csr: &CertificateSigningRequest) -> bool {
    csr.status.as_ref().and_then(|status| status.conditions.as_ref()).is_none_or(Vec::is_empty)
}

/// Approves a request, or returns why it cannot be approved for now.
async fn settle(
    requests: &Objects<CertificateSigningRequest>,
    nodes: &Objects<Node>,
    api: &Api,
    csr: CertificateSigningRequest,
) -> Result<Option<&'static str>, kube::Error> {
    let Some(request) = Request::read(&csr) else { return Ok(None) };
    let Some(name) = request.node() else { return Ok(None) };
    let node = nodes.get_opt(name).await?.as_ref().and_then(NodeFacts::new);
    match judge(&request, node.as_ref()) {
        Verdict::Ignore => {}
        Verdict::Refuse(why) => return Ok(Some(why)),
        Verdict::Approve { spent_token } => {
            let now = k8s_openapi::jiff::Timestamp::now().to_string();
            let condition = json!({"type": "Approved", "status": "True", "reason": "KmScheduler",
                "message": "requested by a node that km-scheduler launched", "lastUpdateTime": now});
            let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
            let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            requests.patch_approval(&csr.name_any(), &parameters, &patch).await?;
            tracing::info!(node = name, signer = request.signer, "certificate approved");
            if let Some(id) = spent_token {
                api.delete_token(&id).await?;
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;
    use kmctl_core::model::resources::Amount;

    fn node() -> NodeFacts {
        NodeFacts {
            name: "n1".into(),
            agent: "S0".into(),
            labels: std::collections::BTreeMap::from([("kubernetes.io/hostname".into(), "n1".into())]),
            taints: Vec::new(),
            phase: NodePhase::Starting,
            why: String::new(),
            executor: None,
            task: None,
            token_id: Some("abcdef".into()),
            kubelet: false,
            ready: false,
            allocatable: Amount::default(),
            most_pods: 0,
            address: Some("10.0.0.7".into()),
        }
    }

    fn client() -> Request {
        Request {
            signer: CLIENT_SIGNER.into(),
            user: "system:bootstrap:abcdef".into(),
            groups: vec!["system:bootstrappers".into(), BOOTSTRAP_GROUP.into()],
            usages: vec!["digital signature".into(), "client auth".into()],
            common_name: "system:node:n1".into(),
            organizations: vec![NODES_GROUP.into()],
            ..Request::default()
        }
    }

    fn serving() -> Request {
        Request {
            signer: SERVING_SIGNER.into(),
            user: "system:node:n1".into(),
            groups: vec![NODES_GROUP.into()],
            usages: vec!["digital signature".into(), "server auth".into()],
            common_name: "system:node:n1".into(),
            organizations: vec![NODES_GROUP.into()],
            dns_names: BTreeSet::from(["n1".into()]),
            addresses: BTreeSet::from(["10.0.0.7".parse().unwrap()]),
            other_names: false,
        }
    }

    fn approved(request: &Request, node: Option<&NodeFacts>) -> bool {
        matches!(judge(request, node), Verdict::Approve { .. })
    }

    #[test]
    fn a_client_certificate_needs_the_token_of_that_very_node() {
        assert!(approved(&client(), Some(&node())));
        let others: [(&str, Request, Option<NodeFacts>); 7] = [
            ("another token", Request { user: "system:bootstrap:zzzzzz".into(), ..client() }, Some(node())),
            ("no token", Request { user: "system:node:n2".into(), ..client() }, Some(node())),
            ("no group", Request { groups: vec!["system:bootstrappers".into()], ..client() }, Some(node())),
            ("no node", client(), None),
            ("joined already", client(), Some(NodeFacts { kubelet: true, ..node() })),
            ("not launched", client(), Some(NodeFacts { phase: NodePhase::Candidate, ..node() })),
            ("as a server", Request { usages: vec!["server auth".into()], ..client() }, Some(node())),
        ];
        for (what, request, node) in others {
            assert!(!approved(&request, node.as_ref()), "{what}");
        }
        assert!(!approved(&Request { organizations: vec!["system:masters".into()], ..client() }, Some(&node())));
    }

    #[test]
    fn a_serving_certificate_is_for_the_nodes_own_names_and_spends_the_token() {
        assert_eq!(judge(&serving(), Some(&node())), Verdict::Approve { spent_token: Some("abcdef".into()) });
        let others = [
            ("another user", Request { user: "system:node:n2".into(), ..serving() }),
            ("another name", Request { dns_names: BTreeSet::from(["kubernetes".into()]), ..serving() }),
            ("another address", Request { addresses: BTreeSet::from(["10.96.0.1".parse().unwrap()]), ..serving() }),
            ("a URI", Request { other_names: true, ..serving() }),
            ("as a client", Request { usages: vec!["client auth".into()], ..serving() }),
        ];
        for (what, request) in others {
            assert!(!approved(&request, Some(&node())), "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_cannot_be_approved_is_judged_again_after_growing_waits_until_it_is_gone() {
        let csr: CertificateSigningRequest =
            serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {"request": "", "signerName": "s"}}))
                .unwrap();
        let (start, mut open) = (Instant::now(), Open::default());
        open.take_in(watcher::Event::Apply(csr.clone()), start);
        let mut judged = Vec::new();
        for second in 0..200 {
            let now = start + Duration::from_secs(second);
            if !open.due(now).is_empty() {
                judged.push(second);
                open.put_off("c", now, "node not found".into());
            }
        }
        assert_eq!(judged, [0, 2, 6, 14, 30, 62, 126]);
        let mut approved = csr.clone();
        approved.status = serde_json::from_value(json!({"conditions": [{"type": "Approved", "status": "True"}]})).ok();
        for end in [watcher::Event::Delete(csr.clone()), watcher::Event::Apply(approved)] {
            let mut open = Open::default();
            open.take_in(watcher::Event::Apply(csr.clone()), start);
            open.take_in(end, start);
            assert_eq!(open.next(), None, "nothing is open, and nothing is asked for");
        }
    }

    #[test]
    fn a_request_is_read_from_its_pem() {
        let mut parameters = CertificateParams::new(vec!["n1".to_owned(), "10.0.0.7".to_owned()]).unwrap();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, NODES_GROUP);
        subject.push(DnType::CommonName, "system:node:n1");
        parameters.distinguished_name = subject;
        let pem = parameters.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let csr = CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: SERVING_SIGNER.into(),
                username: Some("system:node:n1".into()),
                groups: Some(vec![NODES_GROUP.into()]),
                usages: Some(vec!["digital signature".into(), "server auth".into()]),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        };
        assert_eq!(Request::read(&csr), Some(serving()));
    }
}

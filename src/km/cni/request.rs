//! Input of a CNI plugin from a container runtime, CNI specification 0.3.0 to 1.0.0. Pure.
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::wire::PortsRequest;

/// Supported versions. The parts of a result that are used here have the same form in all of them.
pub const VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// The environment variables that a runtime sets.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_ARGS`.
    pub arguments: String,
}

/// The requested operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Print the supported versions.
    Version,
    /// Map the pod's ports.
    Add(Box<Attachment>, Settings),
    /// Verify that the pod's ports are mapped.
    Check(Box<Attachment>, Settings),
    /// Unmap. May be repeated, and may name a container that was never mapped.
    Delete {
        /// The container's id, as in `CNI_CONTAINERID`.
        container: String,
        settings: Settings,
    },
}

/// A pod's sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// The container's id.
    pub container: String,
    /// Identifies the pod when its ports are queried.
    pub pod: PortsRequest,
    /// The host end of the pod's link, from the result of the previous plugins.
    pub link: String,
    /// The pod's addresses with the subnet's prefix length, from the result of the previous plugins.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The result of the previous plugins, passed on unchanged.
    pub previous: Value,
}

/// The plugin's settings in the network configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// CNI version of the configuration and the result.
    #[serde(default)]
    pub cni_version: String,
    /// The cluster's name; chain names derive from it.
    #[serde(default)]
    pub cluster: String,
    /// `km node`'s socket.
    #[serde(default)]
    pub socket: PathBuf,
}

/// A failure, as CNI defines it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// CNI's code.
    pub code: u32,
    /// What failed.
    pub message: String,
}

impl CniError {
    /// The CNI version is not supported.
    pub const VERSION: u32 = 1;
    /// The environment is invalid.
    pub const ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// The configuration is not JSON of the right form.
    pub const DECODE: u32 = 6;
    /// The configuration is invalid.
    pub const SETTINGS: u32 = 7;
    /// A later retry may succeed.
    pub const LATER: u32 = 11;
    /// The firewall does not have the expected rules.
    pub const FIREWALL: u32 = 100;

    pub fn new(code: u32, message: impl Into<String>) -> Self {
        CniError { code, message: message.into() }
    }

    /// The document that a plugin prints when it fails.
    pub fn to_document(&self, version: &str) -> String {
        json!({ "cniVersion": version, "code": self.code, "msg": self.message }).to_string()
    }
}

/// The document that a plugin prints for `VERSION`.
pub fn versions() -> String {
    json!({ "cniVersion": VERSIONS[VERSIONS.len() - 1], "supportedVersions": VERSIONS }).to_string()
}

/// Parses the environment and standard input.
pub fn parse(environment: &Environment, input: &str) -> Result<Request, CniError> {
    let Environment { command, container, arguments } = environment;
    if command == "VERSION" {
        return Ok(Request::Version);
    }
    let configuration: Value = serde_json::from_str(input)
        .map_err(|error| CniError::new(CniError::DECODE, format!("the configuration is not JSON: {error}")))?;
    let settings: Settings = serde_json::from_value(configuration.clone())
        .map_err(|error| CniError::new(CniError::DECODE, format!("invalid configuration: {error}")))?;
    if !VERSIONS.contains(&settings.cni_version.as_str()) {
        let text = format!("unsupported version {}; supported: {}", settings.cni_version, VERSIONS.join(", "));
        return Err(CniError::new(CniError::VERSION, text));
    }
    if settings.cluster.is_empty() {
        return Err(CniError::new(CniError::SETTINGS, "the configuration has no cluster"));
    }
    if container.is_empty() {
        return Err(CniError::new(CniError::ENVIRONMENT, "CNI_CONTAINERID is empty"));
    }
    if command == "DEL" {
        return Ok(Request::Delete { container: container.clone(), settings });
    }
    if command != "ADD" && command != "CHECK" {
        return Err(CniError::new(CniError::ENVIRONMENT, format!("unknown CNI_COMMAND {command}")));
    }
    if settings.socket.as_os_str().is_empty() {
        return Err(CniError::new(CniError::SETTINGS, "the configuration has no socket"));
    }
    let previous = configuration.get("prevResult").filter(|previous| previous.is_object()).cloned();
    let previous = previous.ok_or_else(|| {
        CniError::new(CniError::SETTINGS, "prevResult is missing: this plugin must be chained after another")
    })?;
    let (link, addresses) = (link(&previous)?, addresses(&previous)?);
    let attachment = Attachment { container: container.clone(), pod: pod(arguments)?, link, addresses, previous };
    match command.as_str() {
        "ADD" => Ok(Request::Add(Box::new(attachment), settings)),
        _ => Ok(Request::Check(Box::new(attachment), settings)),
    }
}

/// `K8S_POD_NAMESPACE=…;K8S_POD_NAME=…;K8S_POD_UID=…`.
fn pod(arguments: &str) -> Result<PortsRequest, CniError> {
    let value = |key: &str| {
        let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(name, value)| *name == key && !value.is_empty()).map(|(_, value)| value.to_owned()).next()
    };
    let needed =
        |key: &str| value(key).ok_or_else(|| CniError::new(CniError::ENVIRONMENT, format!("CNI_ARGS lack {key}")));
    Ok(PortsRequest {
        uid: value("K8S_POD_UID"),
        namespace: needed("K8S_POD_NAMESPACE")?,
        name: needed("K8S_POD_NAME")?,
    })
}

/// The interface outside any sandbox. A routing plugin has exactly one.
fn link(previous: &Value) -> Result<String, CniError> {
    let interfaces = previous["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let outside = interfaces.iter().find(|interface| interface["sandbox"].as_str().unwrap_or_default().is_empty());
    let name = outside.and_then(|interface| interface["name"].as_str()).filter(|name| !name.is_empty());
    let missing = || CniError::new(CniError::SETTINGS, "prevResult has no host interface");
    name.map(str::to_owned).ok_or_else(missing)
}

fn addresses(previous: &Value) -> Result<Vec<(IpAddr, u8)>, CniError> {
    let ips = previous["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parsed = ips.iter().map(|ip| {
        let text = ip["address"].as_str().unwrap_or_default();
        let parts =
            text.split_once('/').and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
        parts.ok_or_else(|| CniError::new(CniError::SETTINGS, format!("prevResult has an invalid address {text:?}")))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> Value {
        json!({
            "cniVersion": "0.4.0", "name": "kmctl-demo", "type": "km-cni",
            "cluster": "demo", "socket": "/run/km/ports.sock",
            "prevResult": {
                "cniVersion": "0.4.0",
                "interfaces": [{ "name": "veth1" }, { "name": "eth0", "sandbox": "/run/netns/x" }],
                "ips": [{ "version": "4", "interface": 1, "address": "172.30.0.5/16", "gateway": "172.30.0.1" }],
            },
        })
    }

    fn environment(command: &str) -> Environment {
        Environment {
            command: command.to_owned(),
            container: "c1".to_owned(),
            arguments: "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_UID=u".to_owned(),
        }
    }

    #[test]
    fn an_add_names_the_pod_and_its_address_in_every_version() {
        for version in VERSIONS {
            let mut configuration = configuration();
            configuration["cniVersion"] = json!(version);
            let request = parse(&environment("ADD"), &configuration.to_string()).unwrap();
            let Request::Add(attachment, settings) = request else { panic!("{request:?}") };
            let pod = PortsRequest { uid: Some("u".into()), namespace: "ns".into(), name: "web".into() };
            assert_eq!((attachment.pod, attachment.container.as_str()), (pod, "c1"));
            assert_eq!(attachment.addresses, [("172.30.0.5".parse::<IpAddr>().unwrap(), 16)]);
            assert_eq!(attachment.previous, configuration["prevResult"]);
            assert_eq!((attachment.link.as_str(), settings.cluster.as_str()), ("veth1", "demo"));
        }
    }

    #[test]
    fn a_runtime_that_tells_no_uid_is_understood() {
        let mut environment = environment("ADD");
        environment.arguments = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web".to_owned();
        let Ok(Request::Add(attachment, _)) = parse(&environment, &configuration().to_string()) else { panic!() };
        assert_eq!(attachment.pod.uid, None);
    }

    #[test]
    fn a_delete_needs_neither_pod_nor_result_nor_socket() {
        let input = json!({ "cniVersion": "0.4.0", "cluster": "demo" }).to_string();
        let environment = Environment { arguments: String::new(), ..environment("DEL") };
        assert!(matches!(parse(&environment, &input), Ok(Request::Delete { container, .. }) if container == "c1"));
    }

    #[test]
    fn versions_are_told_without_any_input() {
        let environment = Environment { command: "VERSION".to_owned(), ..Environment::default() };
        assert_eq!(parse(&environment, ""), Ok(Request::Version));
        let document: Value = serde_json::from_str(&versions()).unwrap();
        assert_eq!(document["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0"]));
    }

    #[test]
    fn what_is_wrong_has_its_code() {
        type Change = fn(&mut Value, &mut Environment);
        let cases: [(u32, Change); 9] = [
            (CniError::VERSION, |configuration, _| configuration["cniVersion"] = json!("0.2.0")),
            (CniError::SETTINGS, |configuration, _| configuration["cluster"] = json!("")),
            (CniError::SETTINGS, |configuration, _| configuration["prevResult"]["interfaces"] = json!([])),
            (CniError::SETTINGS, |configuration, _| configuration["socket"] = json!("")),
            (CniError::SETTINGS, |configuration, _| configuration["prevResult"] = Value::Null),
            (CniError::SETTINGS, |configuration, _| configuration["prevResult"]["ips"] = json!([{ "address": "x" }])),
            (CniError::DECODE, |configuration, _| configuration["cluster"] = json!(5)),
            (CniError::ENVIRONMENT, |_, environment| environment.command = "NOISE".to_owned()),
            (CniError::ENVIRONMENT, |_, environment| environment.arguments = "K8S_POD_NAMESPACE=ns".to_owned()),
        ];
        for (index, (code, change)) in cases.into_iter().enumerate() {
            let (mut configuration, mut environment) = (configuration(), environment("ADD"));
            change(&mut configuration, &mut environment);
            let error = parse(&environment, &configuration.to_string()).unwrap_err();
            assert_eq!(error.code, code, "case {index}: {error}");
        }
        assert_eq!(parse(&environment("ADD"), "no json").unwrap_err().code, CniError::DECODE);
    }
}

//! Runs the plugin: reads standard input, queries `km node`, writes firewall rules, prints the result.
//!
//! All of this is synchronous, since the runtime starts a short-lived plugin process for each pod.
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::request::{Attachment, CniError, Environment, Request, Settings, parse, versions};
use super::rules::{Chains, Mapped};
use super::wire::{LINE_LIMIT, PortsAnswer, PortsRequest, Question, Sandbox};
use kmctl_core::protocol::launch::PortMapping;

/// Timeout of the exchange with `km node`, which answers from memory.
const TALK_LIMIT: Duration = Duration::from_secs(5);

/// Carries out the request in the environment and `input`, and returns the text to print.
pub fn run(environment: &Environment, mut input: impl Read) -> Result<String, (CniError, String)> {
    let mut text = String::new();
    // Invalid UTF-8 fails to parse below.
    let read = input.read_to_string(&mut text);
    let version = serde_json::from_str::<Settings>(&text).map(|settings| settings.cni_version).unwrap_or_default();
    read.map_err(|error| CniError::new(CniError::IO, format!("failed to read standard input: {error}")))
        .and_then(|_| parse(environment, &text))
        .and_then(carry_out)
        .map_err(|error| (error, version))
}

fn carry_out(request: Request) -> Result<String, CniError> {
    match request {
        Request::Version => Ok(versions()),
        Request::Add(attachment, settings) => {
            let chains = Chains::new(&settings.cluster);
            if let Some((address, prefix)) = address(&attachment) {
                // Sent before the pod's address is known anywhere else: kube-proxy learns of an endpoint only after the
                // kubelet, and the kubelet only after this plugin has exited.
                let sandbox = Sandbox { container: attachment.container.clone(), address: address.into() };
                let question = Question::Attach(attachment.pod.clone(), sandbox);
                let ports = ports(&settings.socket, &attachment.pod, &question)?;
                let pod = format!("{}/{}", attachment.pod.namespace, attachment.pod.name);
                let container = attachment.container.as_str();
                let link = attachment.link.as_str();
                let mapped = Mapped { container, pod: &pod, link, address, prefix, ports: &ports };
                allow_localhost(link);
                locked(&settings, |saved| Some(chains.add(saved, &mapped)))?;
                forget_udp(&ports);
            }
            Ok(attachment.previous.to_string())
        }
        Request::Check(attachment, settings) => {
            let question = Question::Ports(attachment.pod.clone());
            let ports = ports(&settings.socket, &attachment.pod, &question)?;
            let Some((address, prefix)) = address(&attachment) else { return Ok(String::new()) };
            let pod = format!("{}/{}", attachment.pod.namespace, attachment.pod.name);
            let container = attachment.container.as_str();
            let link = attachment.link.as_str();
            let mapped = Mapped { container, pod: &pod, link, address, prefix, ports: &ports };
            match Chains::new(&settings.cluster).check(&saved()?, &mapped) {
                None => Ok(String::new()),
                Some(missing) => Err(CniError::new(CniError::FIREWALL, format!("pod {pod}: {missing}"))),
            }
        }
        Request::Delete { container, settings } => {
            // Best effort: the node may no longer run, and the rules must be removed anyway.
            if !settings.socket.as_os_str().is_empty() {
                let _ = ask(&settings.socket, &Question::Detach(container.clone()));
            }
            let chains = Chains::new(&settings.cluster);
            locked(&settings, |saved| chains.delete(saved, &container))?;
            Ok(String::new())
        }
    }
}

/// Granted ports are IPv4, as the node-local subnet is.
fn address(attachment: &Attachment) -> Option<(Ipv4Addr, u8)> {
    attachment.addresses.iter().find_map(|(address, prefix)| match address {
        IpAddr::V4(address) => Some((*address, *prefix)),
        IpAddr::V6(_) => None,
    })
}

fn ports(socket: &Path, pod: &PortsRequest, question: &Question) -> Result<Vec<PortMapping>, CniError> {
    match ask(socket, question)? {
        PortsAnswer::Ports(ports) => Ok(ports),
        PortsAnswer::Unknown | PortsAnswer::Noted => {
            let text = format!("pod {}/{} has no Mesos task on this node", pod.namespace, pod.name);
            Err(CniError::new(CniError::LATER, text))
        }
    }
}

fn ask(socket: &Path, question: &Question) -> Result<PortsAnswer, CniError> {
    let later = |what: &str, error: &dyn std::error::Error| {
        CniError::new(CniError::LATER, format!("failed to {what} the node agent at {}: {error}", socket.display()))
    };
    let mut stream = UnixStream::connect(socket).map_err(|error| later("connect to", &error))?;
    stream.set_read_timeout(Some(TALK_LIMIT)).map_err(|error| later("set time limits for", &error))?;
    stream.set_write_timeout(Some(TALK_LIMIT)).map_err(|error| later("set time limits for", &error))?;
    let line = serde_json::to_string(question).map_err(|error| later("query", &error))?;
    stream.write_all(format!("{line}\n").as_bytes()).map_err(|error| later("query", &error))?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_LIMIT))
        .read_line(&mut answer)
        .map_err(|error| later("read the response of", &error))?;
    serde_json::from_str(&answer).map_err(|error| later("parse the response of", &error))
}

/// Reads the rules and applies the script that `script` computes from them. One plugin of the cluster runs this at a
/// time: between reading and writing, another one could remove the chains.
fn locked(settings: &Settings, script: impl FnOnce(&str) -> Option<String>) -> Result<(), CniError> {
    // Beside the socket, in the run's own directory, so that it is removed with the node.
    let path = settings.socket.with_extension("lock");
    let io = |error: &dyn std::error::Error| {
        CniError::new(CniError::IO, format!("failed to lock {}: {error}", path.display()))
    };
    let file = File::create(&path).map_err(|error| io(&error))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| io(&error))?;
    match script(&saved()?) {
        Some(script) => restore(&script),
        None => Ok(()),
    }
}

fn saved() -> Result<String, CniError> {
    let output = Command::new("iptables-save").stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| CniError::new(CniError::FIREWALL, format!("failed to start iptables-save: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(CniError::new(CniError::FIREWALL, format!("iptables-save: {}", text.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn restore(script: &str) -> Result<(), CniError> {
    let failed = |text: String| CniError::new(CniError::FIREWALL, format!("iptables-restore: {text}"));
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait", "5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // If the process has already exited, its error is reported below.
        let _ = input.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Lets the machine's own processes reach pods by 127.0.0.1. If it fails (read-only /proc/sys), everything else works.
fn allow_localhost(link: &str) {
    let path = format!("/proc/sys/net/ipv4/conf/{link}/route_localnet");
    if let Err(error) = std::fs::write(&path, "1") {
        eprintln!("km cni: 127.0.0.1 is not mapped: failed to write {path}: {error}");
    }
}

/// The kernel's connection tracking keeps the old destination of a UDP port. Deletes these entries where `conntrack` is
/// installed.
fn forget_udp(ports: &[PortMapping]) {
    for mapping in ports.iter().filter(|mapping| mapping.protocol == "UDP") {
        let port = mapping.host_port.to_string();
        let arguments = ["-D", "-p", "udp", "--orig-port-dst", &port];
        let _ = Command::new("conntrack").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

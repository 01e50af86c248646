//! Health checks.
use std::time::{Duration, Instant};

use reqwest::Method;

use super::{Inspection, OnHost, Run};
use crate::host::AgentError;
use crate::host::access;
use crate::host::events::Reporter;
use crate::host::files::Root;
use crate::host::http::{Http, Pause};
use kmctl_core::protocol::HELD_PREFIX;
use kmctl_core::protocol::host::{Change, Event, HealthSpec, Observed};

impl OnHost for HealthSpec {
    /// In a private root nothing runs that could answer.
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        if !host.root.is_host() {
            return Ok(Observed::Same);
        }
        Ok(match probe(host.root, self) {
            Ok(None) => Observed::Same,
            Ok(Some(answer)) => Observed::different(answer),
            // The certificates do not exist yet.
            Err(_) => Observed::Missing,
        })
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        if !run.host.root.is_host() {
            return Ok(Change::Unchanged);
        }
        run.reporter.send(&Event::Started { item: self.name.clone() })?;
        wait(run.host.root, self, run.reporter)?;
        Ok(Change::Healthy)
    }
}

fn client_for(root: &Root, spec: &HealthSpec) -> Result<Http, AgentError> {
    if let Some(path) = &spec.kubeconfig {
        let access = access::read(root, path)?;
        let access = access.ok_or_else(|| AgentError::Refused(format!("{path} cannot be read")))?;
        return Http::with_access(&access);
    }
    let read = |path: String| -> Result<String, AgentError> { Ok(root.text(&path)?.unwrap_or_default()) };
    let authority = match &spec.authority {
        Some(path) => Some(read(format!("{path}.crt"))?),
        None => None,
    };
    let identity = match &spec.client {
        Some(path) => Some((read(format!("{path}.crt"))?, read(format!("{path}.key"))?)),
        None => None,
    };
    Http::new(authority.as_deref(), identity.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str())))
}

/// Sends one request: none if healthy, otherwise the answer.
fn probe(root: &Root, spec: &HealthSpec) -> Result<Option<String>, AgentError> {
    let client = client_for(root, spec)?;
    Ok(ask(&client, spec))
}

fn ask(client: &Http, spec: &HealthSpec) -> Option<String> {
    match client.request(Method::GET, &spec.url, None) {
        Ok((200, _)) => None,
        Ok((status, body)) => Some(format!("status {status} {}", body.lines().last().unwrap_or_default())),
        Err(error) => Some(error),
    }
}

/// Waits until the address answers 200.
fn wait(root: &Root, spec: &HealthSpec, reporter: &mut Reporter<'_>) -> Result<(), AgentError> {
    let client = client_for(root, spec)?;
    let started = Instant::now();
    let (mut told, mut pause) = (Instant::now(), Pause::new());
    loop {
        let Some(last) = ask(&client, spec) else { return Ok(()) };
        let seconds = started.elapsed().as_secs();
        // It waits for an operator.
        let is_held = last.contains(HELD_PREFIX);
        if is_held || seconds >= spec.seconds {
            return Err(AgentError::Unhealthy { what: spec.name.clone(), seconds, last });
        }
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
            reporter.send(&Event::Waiting { item: spec.name.clone(), seconds, last })?;
        }
        pause.wait();
    }
}

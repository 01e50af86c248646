//! Kubeconfigs with a client certificate of their own.
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::access;
use crate::host::keys::{KEY_MODE, issue, paths};
use kmctl_core::pki;
use kmctl_core::protocol::host::{Change, Differences, KubeconfigSpec, Observed};

impl OnHost for KubeconfigSpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let Some(text) = host.root.text(&self.path)? else { return Ok(Observed::Missing) };
        let Some(authority) = host.root.text(&paths(&self.authority).1)? else {
            return Ok(Observed::different("its authority is missing"));
        };
        let Some(access) = access::parse(&text) else { return Ok(Observed::different("it cannot be read")) };
        let problems = pki::problems_of_leaf(&self.leaf, &access.certificate, &access.key, &authority, host.now);
        let mut differences = Differences::from(problems);
        if access.server != self.server {
            differences.content(format!("its server is {}, wanted {}", access.server, self.server));
        }
        if access.authority != authority {
            differences.content("its authority differs");
        }
        // Everything else in the file derives from the spec, so one comparison finds any other edit.
        if differences.is_empty() && render(self, &authority, &access.key, &access.certificate) != text {
            differences.content("its text differs");
        }
        if host.root.mode(&self.path) != Some(KEY_MODE) {
            differences.mode("its mode is not 0600");
        }
        Ok(differences.observed())
    }

    /// Creates it with a new key and certificate.
    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        converge(self, run, |host| {
            let (key, certificate) = issue(host.root, &self.leaf, &self.authority, &self.path, host.now)?;
            let authority = host.root.text(&paths(&self.authority).1)?.unwrap_or_default();
            host.root.write(&self.path, KEY_MODE, render(self, &authority, &key, &certificate).as_bytes())
        })
    }
}

fn render(spec: &KubeconfigSpec, authority: &str, key: &str, certificate: &str) -> String {
    let user = &spec.leaf.common_name;
    let cluster = &spec.cluster;
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {cluster}\n  cluster:\n    server: {}\n    \
         certificate-authority-data: {}\ncontexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    \
         user: {user}\ncurrent-context: {cluster}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {}\n    \
         client-key-data: {}\n",
        spec.server,
        BASE64_STANDARD.encode(authority),
        BASE64_STANDARD.encode(certificate),
        BASE64_STANDARD.encode(key),
    )
}

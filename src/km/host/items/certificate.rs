//! Leaf certificates and their keys.
use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::keys::{KEY_MODE, PUBLIC_MODE, compare_modes, issue, pair, paths};
use kmctl_core::pki;
use kmctl_core::protocol::host::{CertificateSpec, Change, Differences, Observed};

impl OnHost for CertificateSpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let (key, certificate) = pair(host.root, &self.path)?;
        let (Some(key), Some(certificate)) = (key, certificate) else { return Ok(Observed::Missing) };
        let Some(authority) = host.root.text(&paths(&self.authority).1)? else {
            return Ok(Observed::different("its authority is missing"));
        };
        let problems = pki::problems_of_leaf(&self.leaf, &certificate, &key, &authority, host.now);
        let mut differences = Differences::from(problems);
        compare_modes(host.root, &paths(&self.path), &mut differences);
        Ok(differences.observed())
    }

    /// Creates a leaf with a new key. The key is written first: a certificate that does not match its key is detected
    /// and recreated.
    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        converge(self, run, |host| {
            let (key_path, certificate_path) = paths(&self.path);
            let (key, certificate) = issue(host.root, &self.leaf, &self.authority, &certificate_path, host.now)?;
            host.root.write(&key_path, KEY_MODE, key.as_bytes())?;
            host.root.write(&certificate_path, PUBLIC_MODE, certificate.as_bytes())
        })
    }
}

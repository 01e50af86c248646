//! Secrets that the operator sends.
use sha2::{Digest, Sha256};

use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::files::compare_mode;
use crate::host::run::decode;
use kmctl_core::protocol::host::{Change, Differences, Observed, SecretSpec};

/// Readable by root only.
const MODE: u32 = 0o600;

impl OnHost for SecretSpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let Some(bytes) = host.root.bytes(&self.path)? else { return Ok(Observed::Missing) };
        let mut differences = Differences::default();
        compare_mode(host.root.mode(&self.path).unwrap_or_default(), MODE, &mut differences);
        let found = hex::encode(Sha256::digest(&bytes));
        if self.sha256.as_ref().is_some_and(|wanted| *wanted != found) {
            differences.content("its content differs");
        }
        Ok(differences.observed())
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        let SecretSpec { path, sha256 } = self;
        let header = run.header;
        converge(self, run, |host| match (header.secrets.get(path), sha256) {
            (Some(text), Some(_)) => host.root.write(path, MODE, &decode(path, text)?),
            _ if host.root.mode(path).is_some() => host.root.set_mode(path, MODE),
            _ => Err(AgentError::Refused(format!("{path} is missing and was not sent"))),
        })
    }
}

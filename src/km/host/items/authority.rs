//! Certificate authorities: created once, and never replaced.
use jiff::Timestamp;

use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::files::Root;
use crate::host::keys::{KEY_MODE, PUBLIC_MODE, compare_modes, failed, pair, paths, repair_modes};
use kmctl_core::pki;
use kmctl_core::protocol::host::{AuthoritySpec, Change, Differences, Observed};

impl OnHost for AuthoritySpec {
    /// A defect is refused later, not repaired: a new authority would cut off every node.
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let (key, certificate) = pair(host.root, &self.path)?;
        Ok(match (key, certificate) {
            (None, None) => Observed::Missing,
            (Some(_), None) => Observed::different("its certificate is missing"),
            (None, Some(_)) => Observed::different("its key is missing"),
            (Some(key), Some(certificate)) => {
                let problems = pki::problems_of_authority(&certificate, &key, &self.common_name, host.now);
                let mut differences = Differences::from(problems);
                compare_modes(host.root, &paths(&self.path), &mut differences);
                differences.observed()
            }
        })
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        converge(self, run, |host| create(host.root, self, host.now))
    }
}

/// Creates the missing parts of an authority.
fn create(root: &Root, spec: &AuthoritySpec, now: Timestamp) -> Result<(), AgentError> {
    let (key_path, certificate_path) = paths(&spec.path);
    let (key, certificate) = pair(root, &spec.path)?;
    let key = match (key, &certificate) {
        (Some(key), _) => key,
        (None, None) => {
            let key = pki::new_key().map_err(failed(&key_path))?;
            root.write(&key_path, KEY_MODE, key.as_bytes())?;
            key
        }
        (None, Some(_)) => {
            return Err(AgentError::Refused(format!(
                "{certificate_path} is there but its key {key_path} is not; a new authority would cut off every \
                 node: put the key back, or remove the certificate too if it was never used"
            )));
        }
    };
    match certificate {
        None => {
            let text = pki::authority(&spec.common_name, &key, now).map_err(failed(&certificate_path))?;
            root.write(&certificate_path, PUBLIC_MODE, text.as_bytes())?;
        }
        Some(text) => {
            let problems = pki::problems_of_authority(&text, &key, &spec.common_name, now);
            if !problems.is_empty() {
                return Err(AgentError::Refused(format!(
                    "{certificate_path}: {}; it is not replaced, since that would cut off every node",
                    problems.join("; ")
                )));
            }
        }
    }
    repair_modes(root, &paths(&spec.path))
}

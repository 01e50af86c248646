//! The API server's encryption configuration.
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::RngCore;

use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::files::Root;
use crate::host::keys::KEY_MODE;
use kmctl_core::protocol::host::{Change, Differences, EncryptionKeySpec, Observed};

impl OnHost for EncryptionKeySpec {
    /// Only checks that it exists, and its mode: the key in it is secret.
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let Some(mode) = host.root.mode(&self.path) else { return Ok(Observed::Missing) };
        let mut differences = Differences::default();
        if mode != KEY_MODE {
            differences.mode(format!("its mode is {mode:04o}"));
        }
        Ok(differences.observed())
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        converge(self, run, |host| create(host.root, &self.path))
    }
}

/// Creates an encryption key, or repairs the mode of the existing one.
fn create(root: &Root, path: &str) -> Result<(), AgentError> {
    if root.mode(path).is_some() {
        return root.set_mode(path, KEY_MODE);
    }
    let mut key = [0_u8; 32];
    rand::rng().fill_bytes(&mut key);
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers:\n  - secretbox:\n      keys:\n      - name: key1\n        secret: {}\n  - identity: {{}}\n",
        BASE64_STANDARD.encode(key)
    );
    root.write(path, KEY_MODE, text.as_bytes())
}

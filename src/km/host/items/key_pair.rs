//! Key pairs: the private key is created once, the public key derives from it.
use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::files::Root;
use crate::host::keys::{KEY_MODE, PUBLIC_MODE, compare_modes, failed, repair_modes};
use kmctl_core::pki;
use kmctl_core::protocol::host::{Change, Differences, KeyPairSpec, Observed};

impl OnHost for KeyPairSpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let paths = public_paths(&self.path);
        let Some(key) = host.root.text(&paths.0)? else { return Ok(Observed::Missing) };
        let mut differences = Differences::default();
        if host.root.text(&paths.1)? != pki::public_key(&key).ok() {
            differences.content("its public key is missing or differs");
        }
        compare_modes(host.root, &paths, &mut differences);
        Ok(differences.observed())
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        converge(self, run, |host| create(host.root, &self.path))
    }
}

/// Creates the missing parts of a key pair.
fn create(root: &Root, path: &str) -> Result<(), AgentError> {
    let paths = public_paths(path);
    let (key_path, public_path) = &paths;
    let key = match root.text(key_path)? {
        Some(key) => key,
        None => {
            let key = pki::new_key().map_err(failed(key_path))?;
            root.write(key_path, KEY_MODE, key.as_bytes())?;
            key
        }
    };
    let public = pki::public_key(&key).map_err(failed(key_path))?;
    root.write(public_path, PUBLIC_MODE, public.as_bytes())?;
    repair_modes(root, &paths)
}

fn public_paths(path: &str) -> (String, String) {
    (format!("{path}.key"), format!("{path}.pub"))
}

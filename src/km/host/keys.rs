//! Files with keys and certificates, as the kinds of items that hold them share them.
use jiff::Timestamp;

use super::AgentError;
use super::files::Root;
use kmctl_core::pki::{self, LeafSpec, PkiError};
use kmctl_core::protocol::host::Differences;

/// Keys are readable by root only; certificates and public keys are world-readable.
pub(super) const KEY_MODE: u32 = 0o600;
pub(super) const PUBLIC_MODE: u32 = 0o644;

/// The mode of a file that another host may have created.
pub(super) fn mode_of_shared(path: &str) -> u32 {
    if path.ends_with(".crt") || path.ends_with(".pub") { PUBLIC_MODE } else { KEY_MODE }
}

pub(super) fn failed(path: &str) -> impl FnOnce(PkiError) -> AgentError {
    let path = path.into();
    move |source| AgentError::Material { path, source }
}

/// Creates a key, and a leaf certificate for it. `path` is the file that it is for.
pub(super) fn issue(
    root: &Root,
    leaf: &LeafSpec,
    authority: &str,
    path: &str,
    now: Timestamp,
) -> Result<(String, String), AgentError> {
    let (Some(authority_key), Some(authority)) = pair(root, authority)? else {
        return Err(AgentError::Refused(format!("{path} cannot be signed: its authority {authority} is missing")));
    };
    let key = pki::new_key().map_err(failed(path))?;
    let certificate = pki::leaf(leaf, &key, &authority, &authority_key, now).map_err(failed(path))?;
    Ok((key, certificate))
}

/// Paths of a key and its certificate.
pub(super) fn paths(path: &str) -> (String, String) {
    (format!("{path}.key"), format!("{path}.crt"))
}

/// A key and its certificate.
pub(super) fn pair(root: &Root, path: &str) -> Result<(Option<String>, Option<String>), AgentError> {
    let (key, certificate) = paths(path);
    Ok((root.text(&key)?, root.text(&certificate)?))
}

/// Adds the modes of a key and its public part that differ from what they should be.
pub(super) fn compare_modes(root: &Root, (key, public): &(String, String), differences: &mut Differences) {
    for (path, wanted) in [(key, KEY_MODE), (public, PUBLIC_MODE)] {
        if let Some(mode) = root.mode(path).filter(|mode| *mode != wanted) {
            differences.mode(format!("the mode of {path} is {mode:04o}, wanted {wanted:04o}"));
        }
    }
}

pub(super) fn repair_modes(root: &Root, (key, public): &(String, String)) -> Result<(), AgentError> {
    root.set_mode(key, KEY_MODE)?;
    root.set_mode(public, PUBLIC_MODE)
}

//! Keys, certificates and the files that embed them: compared with their specs, and created where they are missing.
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use rand::RngCore;
use serde::Deserialize;

use super::AgentError;
use super::files::Root;
use kmctl_core::pki::{self, LeafSpec, PkiError};
use kmctl_core::protocol::host::Observed;
use kmctl_core::protocol::host::{AuthoritySpec, CertificateSpec, KubeconfigSpec};

/// Keys are readable by root only; certificates and public keys are world-readable.
const KEY_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// The mode of a file that another host may have created.
pub(crate) fn mode_of_shared(path: &str) -> u32 {
    if path.ends_with(".crt") || path.ends_with(".pub") { PUBLIC_MODE } else { KEY_MODE }
}

fn failed(path: &str) -> impl FnOnce(PkiError) -> AgentError {
    let path = path.into();
    move |source| AgentError::Material { path, source }
}

/// Compares an authority. A defect is refused later, not repaired: a new authority would cut off every node.
pub(crate) fn observe_authority(root: &Root, spec: &AuthoritySpec, now: Timestamp) -> Result<Observed, AgentError> {
    let (key, certificate) = pair(root, &spec.path)?;
    Ok(match (key, certificate) {
        (None, None) => Observed::Missing,
        (Some(_), None) => Observed::different("its certificate is missing"),
        (None, Some(_)) => Observed::different("its key is missing"),
        (Some(key), Some(certificate)) => {
            let mut why = pki::problems_of_authority(&certificate, &key, &spec.common_name, now);
            why.extend(wrong_modes(root, &paths(&spec.path)));
            Observed::from_problems(why)
        }
    })
}

/// Creates the missing parts of an authority.
pub(crate) fn apply_authority(root: &Root, spec: &AuthoritySpec, now: Timestamp) -> Result<(), AgentError> {
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

/// Compares a leaf and its key.
pub(crate) fn observe_certificate(root: &Root, spec: &CertificateSpec, now: Timestamp) -> Result<Observed, AgentError> {
    let (key, certificate) = pair(root, &spec.path)?;
    let (Some(key), Some(certificate)) = (key, certificate) else { return Ok(Observed::Missing) };
    let Some(authority) = root.text(&paths(&spec.authority).1)? else {
        return Ok(Observed::different("its authority is missing"));
    };
    let mut why = pki::problems_of_leaf(&spec.leaf, &certificate, &key, &authority, now);
    why.extend(wrong_modes(root, &paths(&spec.path)));
    Ok(Observed::from_problems(why))
}

/// Creates a leaf with a new key. The key is written first: a certificate that does not match its key is detected and
/// recreated.
pub(crate) fn apply_certificate(root: &Root, spec: &CertificateSpec, now: Timestamp) -> Result<(), AgentError> {
    let (key_path, certificate_path) = paths(&spec.path);
    let (key, certificate) = issue(root, &spec.leaf, &spec.authority, &certificate_path, now)?;
    root.write(&key_path, KEY_MODE, key.as_bytes())?;
    root.write(&certificate_path, PUBLIC_MODE, certificate.as_bytes())
}

fn issue(
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

/// The service-account key pair: the private key is created once, the public key derives from it.
pub(crate) fn observe_key_pair(root: &Root, path: &str) -> Result<Observed, AgentError> {
    let Some(key) = root.text(&format!("{path}.key"))? else { return Ok(Observed::Missing) };
    let paths = public_paths(path);
    let mut why = Vec::new();
    if root.text(&paths.1)? != pki::public_key(&key).ok() {
        why.push("its public key is missing or differs".to_owned());
    }
    why.extend(wrong_modes(root, &paths));
    Ok(Observed::from_problems(why))
}

/// Creates the missing parts of a key pair.
pub(crate) fn apply_key_pair(root: &Root, path: &str) -> Result<(), AgentError> {
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

/// Only checks that the encryption configuration exists and its mode: the key in it is secret.
pub(crate) fn observe_encryption_key(root: &Root, path: &str) -> Result<Observed, AgentError> {
    Ok(match root.mode(path) {
        None => Observed::Missing,
        Some(KEY_MODE) => Observed::Same,
        Some(mode) => Observed::different(format!("its mode is {mode:04o}")),
    })
}

/// Creates an encryption key, or repairs the mode of the existing one.
pub(crate) fn apply_encryption_key(root: &Root, path: &str) -> Result<(), AgentError> {
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

/// The parts of a kubeconfig that are read back; the rest is compared as text.
#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<ClusterEntry>,
    users: Vec<UserEntry>,
}

#[derive(Deserialize)]
struct ClusterEntry {
    cluster: ClusterData,
}

#[derive(Deserialize)]
struct ClusterData {
    server: String,
    #[serde(rename = "certificate-authority-data")]
    authority: String,
}

#[derive(Deserialize)]
struct UserEntry {
    user: UserData,
}

#[derive(Deserialize)]
struct UserData {
    #[serde(rename = "client-certificate-data")]
    certificate: String,
    #[serde(rename = "client-key-data")]
    key: String,
}

/// A client's access to the API server, extracted from a kubeconfig.
pub(crate) struct Access {
    pub(crate) server: String,
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Reads a kubeconfig that kmctl wrote.
pub(crate) fn access(root: &Root, path: &str) -> Result<Option<Access>, AgentError> {
    let Some(text) = root.text(path)? else { return Ok(None) };
    Ok(parse_access(&text))
}

fn parse_access(text: &str) -> Option<Access> {
    let file: Kubeconfig = serde_yaml::from_str(text).ok()?;
    let cluster = file.clusters.into_iter().next()?.cluster;
    let user = file.users.into_iter().next()?.user;
    let decode = |text: String| String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok();
    Some(Access {
        server: cluster.server,
        authority: decode(cluster.authority)?,
        certificate: decode(user.certificate)?,
        key: decode(user.key)?,
    })
}

/// Compares a kubeconfig with its spec.
pub(crate) fn observe_kubeconfig(root: &Root, spec: &KubeconfigSpec, now: Timestamp) -> Result<Observed, AgentError> {
    let Some(text) = root.text(&spec.path)? else { return Ok(Observed::Missing) };
    let Some(authority) = root.text(&paths(&spec.authority).1)? else {
        return Ok(Observed::different("its authority is missing"));
    };
    let Some(access) = parse_access(&text) else { return Ok(Observed::different("it cannot be read")) };
    let mut why = pki::problems_of_leaf(&spec.leaf, &access.certificate, &access.key, &authority, now);
    if access.server != spec.server {
        why.push(format!("its server is {}, wanted {}", access.server, spec.server));
    }
    if access.authority != authority {
        why.push("its authority differs".to_owned());
    }
    // Everything else in the file derives from the spec, so one comparison finds any other edit.
    if why.is_empty() && render_kubeconfig(spec, &authority, &access.key, &access.certificate) != text {
        why.push("its text differs".to_owned());
    }
    if root.mode(&spec.path) != Some(KEY_MODE) {
        why.push("its mode is not 0600".to_owned());
    }
    Ok(Observed::from_problems(why))
}

/// Creates a kubeconfig with a new key and certificate.
pub(crate) fn apply_kubeconfig(root: &Root, spec: &KubeconfigSpec, now: Timestamp) -> Result<(), AgentError> {
    let (key, certificate) = issue(root, &spec.leaf, &spec.authority, &spec.path, now)?;
    let authority = root.text(&paths(&spec.authority).1)?.unwrap_or_default();
    root.write(&spec.path, KEY_MODE, render_kubeconfig(spec, &authority, &key, &certificate).as_bytes())
}

fn render_kubeconfig(spec: &KubeconfigSpec, authority: &str, key: &str, certificate: &str) -> String {
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

fn paths(path: &str) -> (String, String) {
    (format!("{path}.key"), format!("{path}.crt"))
}

fn public_paths(path: &str) -> (String, String) {
    (format!("{path}.key"), format!("{path}.pub"))
}

fn pair(root: &Root, path: &str) -> Result<(Option<String>, Option<String>), AgentError> {
    let (key, certificate) = paths(path);
    Ok((root.text(&key)?, root.text(&certificate)?))
}

fn wrong_modes(root: &Root, (key, public): &(String, String)) -> Vec<String> {
    [(key, KEY_MODE), (public, PUBLIC_MODE)]
        .into_iter()
        .filter_map(|(path, wanted)| {
            let mode = root.mode(path)?;
            (mode != wanted).then(|| format!("the mode of {path} is {mode:04o}, wanted {wanted:04o}"))
        })
        .collect()
}

fn repair_modes(root: &Root, (key, public): &(String, String)) -> Result<(), AgentError> {
    root.set_mode(key, KEY_MODE)?;
    root.set_mode(public, PUBLIC_MODE)
}

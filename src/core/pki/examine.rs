//! Parses certificates and reports what is wrong with them.
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{LeafSpec, PkiError, RENEW_DAYS};

/// The parts of a certificate that are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Subject CN.
    pub common_name: String,
    /// Subject O.
    pub organization: Option<String>,
    /// Issuer CN.
    pub issuer: String,
    /// Subject alternative names: DNS names and addresses, in order.
    pub names: Vec<String>,
    /// Whether TLS server is an extended key usage.
    pub server: bool,
    /// Whether TLS client is an extended key usage.
    pub client: bool,
    /// Whether it may sign certificates.
    pub authority: bool,
    /// End of validity.
    pub expires: Timestamp,
    der: Vec<u8>,
}

impl Certificate {
    /// Parses the first certificate of a PEM text.
    pub fn parse(pem: &str) -> Result<Self, PkiError> {
        let der = rustls_pemfile::certs(&mut pem.as_bytes())
            .next()
            .and_then(Result::ok)
            .ok_or_else(|| PkiError::Unreadable("no PEM certificate".to_owned()))?
            .to_vec();
        let certificate = x509(&der)?;
        let first = |name: &x509_parser::x509::X509Name<'_>| {
            name.iter_common_name().next().and_then(|part| part.as_str().ok()).unwrap_or_default().to_owned()
        };
        let mut names = Vec::new();
        if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
            for name in &alternatives.value.general_names {
                match name {
                    GeneralName::DNSName(name) => names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => names.push(match bytes.len() {
                        4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).unwrap_or_default()).to_string(),
                        16 => IpAddr::from(<[u8; 16]>::try_from(*bytes).unwrap_or_default()).to_string(),
                        _ => "?".to_owned(),
                    }),
                    other => names.push(other.to_string()),
                }
            }
        }
        let usage = certificate.extended_key_usage().ok().flatten();
        let expires = Timestamp::from_second(certificate.validity().not_after.timestamp())
            .map_err(|error| PkiError::Unreadable(format!("invalid end of validity: {error}")))?;
        Ok(Certificate {
            common_name: first(certificate.subject()),
            organization: certificate
                .subject()
                .iter_organization()
                .next()
                .and_then(|part| part.as_str().ok())
                .map(str::to_owned),
            issuer: first(certificate.issuer()),
            names,
            server: usage.as_ref().is_some_and(|usage| usage.value.server_auth),
            client: usage.as_ref().is_some_and(|usage| usage.value.client_auth),
            authority: certificate.is_ca(),
            expires,
            der: der.clone(),
        })
    }

    fn holds_key(&self, key: &str) -> bool {
        let Ok(key) = rcgen::KeyPair::from_pem(key) else { return false };
        x509(&self.der)
            .is_ok_and(|certificate| certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
    }

    fn is_signed_by(&self, authority: &Certificate) -> bool {
        let (Ok(leaf), Ok(issuer)) = (x509(&self.der), x509(&authority.der)) else { return false };
        leaf.verify_signature(Some(issuer.public_key())).is_ok()
    }
}

fn x509(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|error| PkiError::Unreadable(format!("not a certificate: {error}")))
}

/// Problems that prevent an existing authority from being used; empty if there are none.
pub fn problems_of_authority(certificate: &str, key: &str, common_name: &str, now: Timestamp) -> Vec<String> {
    let certificate = match Certificate::parse(certificate) {
        Ok(certificate) => certificate,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    if !certificate.authority {
        problems.push("not a certificate authority".to_owned());
    }
    if certificate.common_name != common_name {
        problems.push(format!("name is {}, not {common_name}", certificate.common_name));
    }
    if !certificate.holds_key(key) {
        problems.push("key does not match".to_owned());
    }
    if certificate.expires < now {
        problems.push(format!("expired at {}", certificate.expires));
    }
    problems
}

/// Reasons to issue a leaf again; empty if it matches its spec and has enough time left.
pub fn problems_of_leaf(spec: &LeafSpec, certificate: &str, key: &str, authority: &str, now: Timestamp) -> Vec<String> {
    let LeafSpec { common_name, organization, names, server, client } = spec;
    let (certificate, authority) = match (Certificate::parse(certificate), Certificate::parse(authority)) {
        (Ok(certificate), Ok(authority)) => (certificate, authority),
        (Err(error), _) => return vec![error.to_string()],
        (_, Err(error)) => return vec![format!("authority: {error}")],
    };
    let mut problems = Vec::new();
    if certificate.common_name != *common_name || certificate.organization != *organization {
        let shown =
            |organization: &Option<String>| organization.as_deref().map(|o| format!(", {o}")).unwrap_or_default();
        problems.push(format!(
            "subject is {}{}, expected {common_name}{}",
            certificate.common_name,
            shown(&certificate.organization),
            shown(organization)
        ));
    }
    if certificate.names != *names {
        problems.push(format!("names are {}, expected {}", certificate.names.join(", "), names.join(", ")));
    }
    if (certificate.server, certificate.client) != (*server, *client) {
        problems.push("usages differ".to_owned());
    }
    if !certificate.is_signed_by(&authority) {
        problems.push(format!("not signed by the authority {}", authority.common_name));
    }
    if !certificate.holds_key(key) {
        problems.push("key does not match".to_owned());
    }
    if certificate.expires < now + SignedDuration::from_hours(24 * RENEW_DAYS) {
        problems.push(format!("expires at {}", certificate.expires));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{authority, leaf, new_key, public_key};

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().unwrap()
    }

    fn spec() -> LeafSpec {
        LeafSpec {
            common_name: "kube-apiserver".to_owned(),
            organization: Some("system:masters".to_owned()),
            names: vec!["kubernetes".to_owned(), "10.96.0.1".to_owned()],
            server: true,
            client: false,
        }
    }

    #[test]
    fn a_leaf_made_from_a_spec_satisfies_it_until_its_last_ninety_days() {
        let (ca_key, key) = (new_key().unwrap(), new_key().unwrap());
        let ca = authority("kubernetes", &ca_key, now()).unwrap();
        let certificate = leaf(&spec(), &key, &ca, &ca_key, now()).unwrap();
        let at = |days: i64| {
            problems_of_leaf(&spec(), &certificate, &key, &ca, now() + SignedDuration::from_hours(24 * days))
        };
        assert_eq!(at(0), Vec::<String>::new());
        assert_eq!(at(270), Vec::<String>::new());
        assert_eq!(at(276).len(), 1);
        assert_eq!(problems_of_authority(&ca, &ca_key, "kubernetes", now()), Vec::<String>::new());
    }

    #[test]
    fn every_difference_from_the_spec_is_named() {
        let (ca_key, other_ca_key, key) = (new_key().unwrap(), new_key().unwrap(), new_key().unwrap());
        let ca = authority("kubernetes", &ca_key, now()).unwrap();
        let other_ca = authority("kubernetes", &other_ca_key, now()).unwrap();
        let certificate = leaf(&spec(), &key, &ca, &ca_key, now()).unwrap();
        let with = |change: &dyn Fn(&mut LeafSpec)| {
            let mut spec = spec();
            change(&mut spec);
            problems_of_leaf(&spec, &certificate, &key, &ca, now()).join("; ")
        };
        assert!(with(&|spec| spec.common_name = "x".to_owned()).contains("subject"));
        assert!(with(&|spec| spec.organization = None).contains("subject"));
        assert!(with(&|spec| spec.names.push("b".to_owned())).contains("names"));
        assert!(with(&|spec| spec.client = true).contains("usages"));
        assert_eq!(problems_of_leaf(&spec(), &certificate, &key, &other_ca, now()).len(), 1);
        assert_eq!(problems_of_leaf(&spec(), &certificate, &ca_key, &ca, now()), ["key does not match"]);
        assert_eq!(problems_of_authority(&ca, &key, "kubernetes", now()).len(), 1);
        assert_eq!(problems_of_authority(&certificate, &key, "kube-apiserver", now()).len(), 1);
    }

    #[test]
    fn the_public_key_is_pem() {
        assert!(public_key(&new_key().unwrap()).unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
    }
}

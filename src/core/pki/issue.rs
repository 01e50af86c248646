//! Creates keys and certificates.
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::{AUTHORITY_DAYS, LEAF_DAYS, LeafSpec, PkiError};

/// A new private key, PKCS#8 PEM.
pub fn new_key() -> Result<String, PkiError> {
    let key = KeyPair::generate().map_err(|source| PkiError::Issue { what: "failed to generate a key", source })?;
    Ok(key.serialize_pem())
}

/// The public key of a private key, PEM.
pub fn public_key(key: &str) -> Result<String, PkiError> {
    Ok(parse_key(key)?.public_key_pem())
}

/// A self-signed certificate of an authority with the key `key`.
pub fn authority(common_name: &str, key: &str, now: Timestamp) -> Result<String, PkiError> {
    let mut params = params(common_name, None, now, AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params
        .self_signed(&parse_key(key)?)
        .map_err(|source| PkiError::Issue { what: "failed to sign the certificate of an authority", source })?;
    Ok(certificate.pem())
}

/// A certificate for `key`, signed by the authority.
pub fn leaf(
    spec: &LeafSpec,
    key: &str,
    authority_certificate: &str,
    authority_key: &str,
    now: Timestamp,
) -> Result<String, PkiError> {
    let LeafSpec { common_name, organization, names, server, client } = spec;
    let mut params = params(common_name, organization.as_deref(), now, LEAF_DAYS);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if *server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if *client {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                name.as_str()
                    .try_into()
                    .map_err(|source| PkiError::Issue { what: "invalid DNS name for a certificate", source })?,
            ),
        });
    }
    let issuer = Issuer::from_ca_cert_pem(authority_certificate, parse_key(authority_key)?)
        .map_err(|source| PkiError::Issue { what: "failed to read the certificate of the authority", source })?;
    let certificate = params
        .signed_by(&parse_key(key)?, &issuer)
        .map_err(|source| PkiError::Issue { what: "failed to sign a certificate", source })?;
    Ok(certificate.pem())
}

fn parse_key(key: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(key).map_err(|source| PkiError::Issue { what: "failed to read a private key", source })
}

/// The validity starts one day in the past, because the clocks of hosts differ.
fn params(common_name: &str, organization: Option<&str>, now: Timestamp, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    let day = |offset: i64| {
        let date = (now + SignedDuration::from_hours(24 * offset)).to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(-1);
    params.not_after = day(days);
    params
}

//! The certificates of a control-plane host, and when they expire. Keys are not read.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;

use crate::host::{Command, Host, HostError};
use kmctl_core::pki::Certificate;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// The file that contains it.
    pub path: String,
    /// Its common name.
    pub name: String,
    #[serde(serialize_with = "as_text")]
    pub expires: Timestamp,
    /// Whether it signs others. `up` does not renew such a certificate.
    pub authority: bool,
}

fn as_text<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_string())
}

/// Prints every certificate after a line with its file. Of a kubeconfig only the line with the certificate is read.
const LOOK: &str = r#"
cd /etc/kubernetes 2>/dev/null || exit 0
for file in pki/*.crt pki/etcd/*.crt; do
  [ -e "$file" ] && printf 'file /etc/kubernetes/%s\n' "$file" && cat "$file"
done
for file in *.conf; do
  [ -e "$file" ] && printf 'file /etc/kubernetes/%s\n' "$file" && sed -n 's/^ *client-certificate-data: */data /p' "$file"
done
exit 0
"#;

/// Reads all certificates. Changes nothing.
pub async fn look(host: &dyn Host) -> Result<Vec<CertificateFacts>, HostError> {
    let output = host.run(Command::new(["sh", "-c", LOOK]).privileged()).await?;
    if !output.success() {
        return Err(HostError::Unsupported(format!("failed to read certificates: {}", output.last_words())));
    }
    Ok(read(&output.text()))
}

fn read(text: &str) -> Vec<CertificateFacts> {
    let mut found = Vec::new();
    for block in text.split("file ").filter(|block| !block.trim().is_empty()) {
        let Some((path, body)) = block.split_once('\n') else { continue };
        let pem = match body.lines().find_map(|line| line.strip_prefix("data ")) {
            Some(data) => {
                let bytes = STANDARD.decode(data.trim().trim_matches('"')).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            None => body.to_owned(),
        };
        // `up` repairs files that are not valid certificates.
        if let Ok(Certificate { common_name, expires, authority, .. }) = Certificate::parse(&pem) {
            found.push(CertificateFacts { path: path.trim().to_owned(), name: common_name, expires, authority });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;
    use kmctl_core::pki::{authority, new_key};

    #[tokio::test]
    async fn files_and_kubeconfigs_are_read_and_broken_ones_are_passed_over() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let pem = authority("kubernetes", &new_key().unwrap(), now).unwrap();
        let text = format!(
            "file /etc/kubernetes/pki/ca.crt\n{pem}file /etc/kubernetes/pki/broken.crt\nhello\n\
             file /etc/kubernetes/admin.conf\ndata {}\n",
            STANDARD.encode(&pem)
        );
        let host = FakeHost::new("cp1").answers("/etc/kubernetes", 0, &text);
        let found = look(&host).await.unwrap();
        let seen: Vec<_> = found.iter().map(|one| (one.path.as_str(), one.name.as_str(), one.authority)).collect();
        let expected =
            [("/etc/kubernetes/pki/ca.crt", "kubernetes", true), ("/etc/kubernetes/admin.conf", "kubernetes", true)];
        assert_eq!(seen, expected);
        assert!(host.calls()[0].privileged && !host.calls()[0].line.contains("key"), "no key is read");
    }
}

//! YAML documents without types.
use serde_json::Value;

/// A file that holds no objects.
#[derive(Debug, thiserror::Error)]
#[error("read the objects in {file}: {why}")]
pub struct ManifestsError {
    /// Its name.
    pub file: String,
    /// Where, and what was wrong.
    pub why: String,
}

/// Every document of a file; `file` names it in an error. Read as kubectl reads YAML: `on` and `yes` are texts,
/// `0644` is octal.
pub fn manifests(file: &str, text: &str) -> Result<Vec<Value>, ManifestsError> {
    let options = serde_yaml::options! { strict_booleans: true, legacy_octal_numbers: true };
    serde_yaml::from_multiple_with_options(text, options)
        .map_err(|error| ManifestsError { file: file.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_as_kubectl_reads_them() {
        let read = manifests("x", "a: on\nb: 0644\n---\nc: \"1\"\n").unwrap();
        assert_eq!(read, [serde_json::json!({"a": "on", "b": 420}), serde_json::json!({"c": "1"})]);
        assert!(manifests("x", "a: [").is_err());
    }
}

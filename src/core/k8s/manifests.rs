//! Reads YAML documents as untyped objects.
use serde_json::Value;

/// A file whose objects could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the objects in {file}: {why}")]
pub struct ManifestsError {
    /// Name of the file.
    pub file: String,
    /// What is wrong, with its place.
    pub why: String,
}

/// Reads every document of a file; `file` names it in an error. YAML is read as kubectl reads it: `on` and `yes` are
/// strings, `0644` is octal.
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

//! Where a node's binaries are, and their search path.
use std::path::Path;

use super::spec::DepsSpec;

/// Search path of the host's binaries.
pub const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Binaries of the run precede the host's: shims, runc and plugins must be the bundle's, and `iptables` must be
/// the variant that works.
pub fn search_path(spec: &DepsSpec) -> String {
    format!("{}:{HOST_PATH}", spec.folders.programs().display())
}

/// A path as an argument.
pub fn path(path: &Path) -> String {
    path.display().to_string()
}

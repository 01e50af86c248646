//! Where the programs of a node are, and where they find others.
use std::path::Path;

use super::spec::DepsSpec;

/// Where programs of the host are looked for.
pub const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Programs of the run come before the host's: shims, runc and plugins must be the bundle's, `iptables` the variant that
/// works.
pub fn search_path(spec: &DepsSpec) -> String {
    format!("{}:{HOST_PATH}", spec.folders.programs().display())
}

/// As an argument.
pub fn path(path: &Path) -> String {
    path.display().to_string()
}

//! Reads and changes files below a root. Every write creates a temporary file, syncs it and renames it.
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kmctl_core::protocol::host::EMPTY_FILE_SYSTEM;
use sha2::{Digest, Sha256};

use super::AgentError;
use kmctl_core::protocol::host::Differences;

/// Suffix of temporary files. The lock allows one run at a time, so the name needs no unique part.
const PARTIAL: &str = ".kmctl-new";

/// The root of a manifest's paths: `/`, or a private directory in tests. Also counts durable steps, so that a test can
/// end the process after each of them.
#[derive(Debug)]
pub struct Root {
    folder: PathBuf,
    steps_left: Option<std::cell::Cell<u32>>,
    /// In a simulated fleet only the run on this root ends, not the process.
    #[cfg(any(test, feature = "simulation"))]
    unwinds: bool,
}

/// The panic payload with which a killed run on a simulated host unwinds.
#[cfg(any(test, feature = "simulation"))]
pub struct Killed;

impl Root {
    pub fn new(folder: &Path, stop_after: Option<u32>) -> Self {
        Root {
            folder: folder.to_owned(),
            steps_left: stop_after.map(std::cell::Cell::new),
            #[cfg(any(test, feature = "simulation"))]
            unwinds: false,
        }
    }

    /// For a simulated host that is killed after `steps` durable steps.
    #[cfg(any(test, feature = "simulation"))]
    pub fn simulated(folder: &Path, steps: u32) -> Self {
        Root { unwinds: true, ..Root::new(folder, Some(steps)) }
    }

    /// How many steps are left before it is killed.
    #[cfg(any(test, feature = "simulation"))]
    pub fn steps_left(&self) -> u32 {
        self.steps_left.as_ref().map_or(u32::MAX, std::cell::Cell::get)
    }

    /// Whether this is the host itself, where systemd and the components run.
    pub(crate) fn is_host(&self) -> bool {
        self.folder == Path::new("/")
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    /// A point at which a killed run leaves something incomplete.
    pub(crate) fn step(&self) {
        if let Some(left) = &self.steps_left {
            if left.get() == 0 {
                #[cfg(any(test, feature = "simulation"))]
                if self.unwinds {
                    std::panic::resume_unwind(Box::new(Killed));
                }
                // As abrupt as kill -9: no destructors, no flush.
                std::process::abort();
            }
            left.set(left.get() - 1);
        }
    }

    /// The file's text, or none if there is no such file.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, AgentError> {
        Ok(self.bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(crate) fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, AgentError> {
        let path = self.at(path);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(AgentError::file("read", &path)(error)),
        }
    }

    /// Permission bits, or none if the path does not exist.
    pub(crate) fn mode(&self, path: &str) -> Option<u32> {
        fs::symlink_metadata(self.at(path)).ok().map(|found| found.permissions().mode() & 0o7777)
    }

    /// Permission bits of what the path is, or of what it links to.
    pub(crate) fn directory_mode(&self, path: &str) -> Option<u32> {
        fs::metadata(self.at(path)).ok().map(|found| found.permissions().mode() & 0o7777)
    }

    /// Whether it is a directory, or a symbolic link to one: operators put data on other disks that way.
    pub(crate) fn is_directory(&self, path: &str) -> bool {
        fs::metadata(self.at(path)).is_ok_and(|found| found.is_dir())
    }

    pub(crate) fn set_mode(&self, path: &str, mode: u32) -> Result<(), AgentError> {
        let path = self.at(path);
        fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(AgentError::file("change the mode of", &path))
    }

    pub(crate) fn make_directory(&self, path: &str, mode: u32) -> Result<(), AgentError> {
        let at = self.at(path);
        fs::create_dir_all(&at).map_err(AgentError::file("make the folder", &at))?;
        self.step();
        self.set_mode(path, mode)
    }

    /// Creates or replaces a file atomically.
    pub(crate) fn write(&self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), AgentError> {
        self.write_from(path, mode, &mut &bytes[..], None)
    }

    /// As [`Root::write`], from a reader. With an expected sha256 the file gets its name only if its bytes match.
    pub(crate) fn write_from(
        &self,
        path: &str,
        mode: u32,
        source: &mut dyn Read,
        expected: Option<&str>,
    ) -> Result<(), AgentError> {
        let path = self.at(path);
        let partial = partial(&path);
        if let Some(folder) = path.parent().filter(|_| !self.is_host()) {
            // A private root is empty at first. On a host, a directory that no item creates must be the system's.
            fs::create_dir_all(folder).map_err(AgentError::file("make the folder", folder))?;
        }
        (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            let mut digest = Sha256::new();
            let mut buffer = vec![0; 1 << 18];
            loop {
                let read = source.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                if expected.is_some() {
                    digest.update(&buffer[..read]);
                }
                file.write_all(&buffer[..read])?;
            }
            let found = hex::encode(digest.finalize());
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                drop(file);
                fs::remove_file(&partial)?;
                return Err(io::Error::other(format!("its sha256 is {found}, expected {expected}")));
            }
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()
        })()
        .map_err(AgentError::file("write", &path))?;
        self.step();
        fs::rename(&partial, &path).map_err(AgentError::file("write", &path))?;
        if let Some(parent) = path.parent() {
            // The rename itself must survive a power failure.
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(AgentError::file("sync", parent))?;
        }
        self.step();
        Ok(())
    }

    /// Removes temporary files that a killed run left in a directory.
    pub(crate) fn remove_partials(&self, folder: &str) -> Result<(), AgentError> {
        let folder = self.at(folder);
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') && name.to_string_lossy().ends_with(PARTIAL) {
                fs::remove_file(entry.path()).map_err(AgentError::file("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// Removes a file; returns whether it existed.
    pub(crate) fn remove(&self, path: &str) -> Result<bool, AgentError> {
        let path = self.at(path);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(AgentError::file("remove", &path)(error)),
        }
    }

    /// Removes a directory and its contents; returns whether it existed. A mount point, or a symbolic link to a directory,
    /// is the operator's: it is emptied.
    pub(crate) fn remove_tree(&self, path: &str) -> Result<bool, AgentError> {
        let path = self.at(path);
        if is_mount_point_or_link(&path) {
            return empty(&path);
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(AgentError::file("remove", &path)(error)),
        }
    }

    /// Removes a directory if it is empty; returns whether it was removed.
    pub(crate) fn remove_if_empty(&self, path: &str) -> bool {
        fs::remove_dir(self.at(path)).is_ok()
    }
}

fn is_mount_point_or_link(path: &Path) -> bool {
    let (Ok(found), Some(parent)) = (fs::symlink_metadata(path), path.parent()) else { return false };
    let links_to_directory = found.is_symlink() && fs::metadata(path).is_ok_and(|target| target.is_dir());
    let is_mount_point = found.is_dir() && fs::metadata(parent).is_ok_and(|parent| parent.dev() != found.dev());
    links_to_directory || is_mount_point
}

/// Removes everything in a directory, except for what a new file system contains. Returns whether there was anything.
fn empty(folder: &Path) -> Result<bool, AgentError> {
    let mut removed = false;
    for entry in fs::read_dir(folder).map_err(AgentError::file("list", folder))?.flatten() {
        if entry.file_name() == EMPTY_FILE_SYSTEM {
            continue;
        }
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let outcome = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        outcome.map_err(AgentError::file("remove", &path))?;
        removed = true;
    }
    Ok(removed)
}

fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{PARTIAL}"))
}

/// Adds the mode of a file or directory, unless it is the wanted one.
pub(crate) fn compare_mode(found: u32, wanted: u32, differences: &mut Differences) {
    if found != wanted {
        differences.mode(format!("its mode is {found:04o}, wanted {wanted:04o}"));
    }
}

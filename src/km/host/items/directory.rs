//! Directories on the host.
use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::files::compare_mode;
use kmctl_core::protocol::host::{Change, Differences, DirectorySpec, Observed};

impl OnHost for DirectorySpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        // A symbolic link to a directory is one: operators put data on other disks that way.
        let Some(mode) = host.root.directory_mode(&self.path) else {
            return Ok(match host.root.mode(&self.path) {
                None => Observed::Missing,
                Some(_) => Observed::different("it is a symbolic link to nothing"),
            });
        };
        if !host.root.is_directory(&self.path) {
            return Ok(Observed::different("it is no folder"));
        }
        let mut differences = Differences::default();
        compare_mode(mode, self.mode, &mut differences);
        Ok(differences.observed())
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        converge(self, run, |host| host.root.make_directory(&self.path, self.mode))
    }
}

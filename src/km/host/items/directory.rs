//! Directories on the host.
use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::files::compare_mode;
use kmctl_core::protocol::host::{Change, Differences, DirectorySpec, Observed};

impl OnHost for DirectorySpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let Some(mode) = host.root.mode(&self.path) else { return Ok(Observed::Missing) };
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

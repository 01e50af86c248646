//! Files with known text.
use super::{Inspection, OnHost, Run, converge};
use crate::host::AgentError;
use crate::host::files::compare_mode;
use kmctl_core::protocol::host::{Change, Differences, FileSpec, Observed};

impl OnHost for FileSpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let Some(current) = host.root.text(&self.path)? else { return Ok(Observed::Missing) };
        let mut differences = Differences::default();
        compare_mode(host.root.mode(&self.path).unwrap_or_default(), self.mode, &mut differences);
        if current == self.text {
            return Ok(differences.observed());
        }
        differences.content("its text differs");
        Ok(differences.observed_in(current))
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        converge(self, run, |host| host.root.write(&self.path, self.mode, self.text.as_bytes()))
    }
}

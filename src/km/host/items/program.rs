//! Files of the bundle, unpacked from the stream.
use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use super::{Inspection, OnHost, Run};
use crate::host::AgentError;
use crate::host::files::compare_mode;
use kmctl_core::protocol::host::{Change, Differences, Event, Observed, ProgramSpec};

impl OnHost for ProgramSpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let Some(found) = host.digests.of(host.root, &self.path)? else { return Ok(Observed::Missing) };
        let mut differences = Differences::default();
        compare_mode(host.root.mode(&self.path).unwrap_or_default(), self.mode, &mut differences);
        if found != self.sha256 {
            differences.content(format!("its sha256 is {found}"));
        }
        Ok(differences.observed())
    }

    /// Its bytes must be read from the stream even if they are no longer needed.
    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        let ProgramSpec { path, mode, sha256, size: _ } = self;
        let root = run.host.root;
        let sent = run.next_payload(path);
        let found = run.host.digests.of(root, path)?;
        if let Some(payload) = sent {
            run.reporter.send(&Event::Started { item: path.clone() })?;
            let unread = |source| AgentError::Input { what: format!("read {path} from the stream"), source };
            if found.as_ref() != Some(sha256) {
                run.outdate(std::slice::from_ref(path))?;
                let mut packed = (&mut *run.stream).take(payload.packed);
                root.write_from(path, *mode, &mut GzDecoder::new(&mut packed), Some(sha256))?;
                run.host.digests.remember(root, path, sha256);
                io::copy(&mut packed, &mut io::sink()).map_err(unread)?;
                return Ok(if found.is_none() { Change::Created } else { Change::Updated });
            }
            io::copy(&mut (&mut *run.stream).take(payload.packed), &mut io::sink()).map_err(unread)?;
        } else if found.as_ref() != Some(sha256) {
            return Err(AgentError::Refused(format!("{path} differs from the bundle and was not sent: run again")));
        }
        if root.mode(path) != Some(*mode) {
            root.set_mode(path, *mode)?;
            return Ok(Change::Updated);
        }
        Ok(Change::Unchanged)
    }
}

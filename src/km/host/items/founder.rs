//! The founder of etcd's cluster, as recorded on the control-plane hosts.
//!
//! A host creates a cluster only after a majority of all hosts has recorded its name, and no host changes its record on
//! its own. So a run that reaches a majority of the hosts knows of every cluster that may have been created, even by a
//! host that does not answer: two runs that reach different hosts never create two clusters.
use super::{Inspection, OnHost, Run};
use crate::host::AgentError;
use crate::host::files::Root;
use kmctl_core::protocol::host::{BootstrapClaim, Change, FOUNDER, Founder, Observed};

impl OnHost for Founder {
    /// The right founder is known only to a run that sees all hosts.
    fn observe(&self, _: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        Ok(Observed::Same)
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        record(run.host.root, run.header.etcd.founding.as_ref())
    }
}

/// The recorded founder.
pub(in crate::host) fn read(root: &Root) -> Result<Option<String>, AgentError> {
    Ok(root.text(FOUNDER)?.map(|text| text.trim().to_owned()))
}

/// Records the founder, if one is given.
fn record(root: &Root, founding: Option<&BootstrapClaim>) -> Result<Change, AgentError> {
    let Some(BootstrapClaim { name, instead_of }) = founding else { return Ok(Change::Unchanged) };
    let found = read(root)?;
    if found.as_ref() == Some(name) {
        return Ok(Change::Unchanged);
    }
    if found != *instead_of {
        let found = found.unwrap_or_else(|| "nobody".to_owned());
        return Err(AgentError::Refused(format!(
            "another run has changed who begins etcd's cluster: {FOUNDER} says {found}, and this run wants {name}"
        )));
    }
    root.write(FOUNDER, 0o644, format!("{name}\n").as_bytes())?;
    Ok(if found.is_none() { Change::Created } else { Change::Updated })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_once_and_replaced_only_by_who_has_seen_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path(), None);
        let founding = |name: &str, instead_of: Option<&str>| {
            let founding = BootstrapClaim { name: name.to_owned(), instead_of: instead_of.map(str::to_owned) };
            record(&root, Some(&founding))
        };
        assert_eq!(record(&root, None).unwrap(), Change::Unchanged);
        assert_eq!(read(&root).unwrap(), None);
        assert_eq!(founding("cp1", None).unwrap(), Change::Created);
        assert_eq!(founding("cp1", None).unwrap(), Change::Unchanged);
        let refused = founding("cp2", None).unwrap_err().to_string();
        assert!(refused.contains("says cp1, and this run wants cp2"), "{refused}");
        assert_eq!(founding("cp2", Some("cp1")).unwrap(), Change::Updated);
        assert_eq!(read(&root).unwrap().as_deref(), Some("cp2"));
    }
}

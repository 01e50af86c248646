//! What the kinds of items work with.
use std::collections::BTreeMap;
use std::io::{self, BufRead};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;

use super::digests::Digests;
use super::events::Reporter;
use super::files::Root;
use super::{AgentError, units};
use kmctl_core::protocol::host::{EtcdMember, Header, Payload, UnitState};

/// A host that is compared.
pub(crate) struct Inspection<'a> {
    pub(crate) root: &'a Root,
    pub(crate) digests: Digests,
    pub(crate) now: Timestamp,
    /// The units' states, queried from systemd all at once.
    pub(crate) units: BTreeMap<String, UnitState>,
    /// etcd's answer, or none if etcd does not run.
    pub(crate) members: Option<Result<Vec<EtcdMember>, String>>,
}

/// A host that is changed. The current state decides, not an earlier observation.
pub(crate) struct Run<'a, 'out> {
    pub(crate) host: Inspection<'a>,
    pub(crate) header: &'a Header,
    /// The packed files, in the order of the header's payload.
    pub(crate) stream: &'a mut dyn BufRead,
    pub(crate) reporter: &'a mut Reporter<'out>,
    next_payload: usize,
}

impl<'a> Inspection<'a> {
    /// Before systemd and etcd were queried.
    pub(crate) fn new(root: &'a Root, now: Timestamp) -> Self {
        Inspection { root, digests: Digests::load(root), now, units: BTreeMap::new(), members: None }
    }
}

impl<'a, 'out> Run<'a, 'out> {
    pub(crate) fn new(
        host: Inspection<'a>,
        header: &'a Header,
        stream: &'a mut dyn BufRead,
        reporter: &'a mut Reporter<'out>,
    ) -> Self {
        Run { host, header, stream, reporter, next_payload: 0 }
    }

    /// The file that is next in the stream, if it is the one for `path`. Its bytes must then be read.
    pub(crate) fn next_payload(&mut self, path: &str) -> Option<&'a Payload> {
        let next = self.header.payload.get(self.next_payload).filter(|payload| payload.path == path);
        self.next_payload += usize::from(next.is_some());
        next
    }

    /// Has this run, or the next one, restart every unit that runs.
    pub(crate) fn outdate_units(&self) -> Result<(), AgentError> {
        self.header.units.iter().try_for_each(|spec| units::outdate(self.host.root, &spec.name))
    }

    /// A unit may be running with the file that is about to be replaced. This is recorded first, so that the unit is
    /// restarted by this run, or by the next one if this one is killed in between.
    pub(crate) fn outdate(&self, paths: &[String]) -> Result<(), AgentError> {
        for spec in &self.header.units {
            if spec.reads.iter().any(|path| paths.contains(path)) {
                units::outdate(self.host.root, &spec.name)?;
            }
        }
        Ok(())
    }
}

/// The bytes of a file that was sent as text.
pub(crate) fn decode(path: &str, text: &str) -> Result<Vec<u8>, AgentError> {
    BASE64_STANDARD
        .decode(text)
        .map_err(|error| AgentError::Input { what: format!("decode {path}"), source: io::Error::other(error) })
}

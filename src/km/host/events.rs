//! Events that `km host apply` and `km host remove` print while they work: one JSON object per line.
use kmctl_core::protocol::host::Change;
use kmctl_core::protocol::host::Event;
use std::io::Write;

use super::AgentError;

/// Writes events as lines.
pub(crate) struct Reporter<'a> {
    out: &'a mut dyn Write,
    /// Counts of changed and unchanged items.
    pub(crate) counts: (usize, usize),
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Reporter { out, counts: (0, 0) }
    }

    /// Fails if the reader is gone, which ends the run: the operator's next run must not find the host locked.
    pub(crate) fn send(&mut self, event: &Event) -> Result<(), AgentError> {
        if let Event::Done { change, .. } = event {
            if change.is_change() {
                self.counts.0 += 1;
            } else {
                self.counts.1 += 1;
            }
        }
        let mut line = serde_json::to_vec(event).map_err(|_| AgentError::Deserted)?;
        line.push(b'\n');
        self.out.write_all(&line).and_then(|()| self.out.flush()).map_err(|_| AgentError::Deserted)
    }

    pub(crate) fn done(&mut self, item: String, change: Change) -> Result<(), AgentError> {
        self.send(&Event::Done { item, change })
    }
}

//! Events as lines of JSON, for other programs. `docs/operations.md` documents them; names and fields are stable.
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::event::{Draw, Event, Outcome};

/// Draws each event as one line.
pub struct Ndjson<W: Write + Send> {
    out: Mutex<W>,
    quiet: bool,
}

impl<W: Write + Send> Ndjson<W> {
    /// Draws to `out`; if `quiet`, errors only.
    pub fn new(out: W, quiet: bool) -> Self {
        Ndjson { out: Mutex::new(out), quiet }
    }
}

/// An event as a JSON object; `at` is the time of the event.
pub fn encode(event: &Event, at: Timestamp) -> Value {
    let (name, fields) = match event {
        Event::Started { step, scope, text } => ("step.started", json!({ "step": step, "scope": scope, "text": text })),
        Event::At { step, text } => ("step.at", json!({ "step": step, "text": text })),
        Event::Bytes { step, done, total } => ("step.bytes", json!({ "step": step, "done": done, "total": total })),
        Event::Finished { step, outcome } => {
            let (outcome, text) = match outcome {
                Outcome::Done(text) => ("done", text),
                Outcome::Unchanged(text) => ("unchanged", text),
                Outcome::Failed(text) => ("failed", text),
            };
            ("step.finished", json!({ "step": step, "outcome": outcome, "text": text }))
        }
        Event::Note { scope, text } => ("note", json!({ "scope": scope, "text": text })),
        Event::Message { text } => ("message", json!({ "text": text })),
        Event::Error { code, error, causes, hint } => {
            ("error", json!({ "code": code, "error": error, "causes": causes, "hint": hint }))
        }
    };
    let mut line = Map::new();
    line.insert("event".to_owned(), json!(name));
    line.insert("time".to_owned(), json!(at.to_string()));
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    Value::Object(line)
}

impl<W: Write + Send> Draw for Ndjson<W> {
    fn draw(&self, event: &Event) {
        if self.quiet && !matches!(event, Event::Error { .. }) {
            return;
        }
        let line = encode(event, Timestamp::now());
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Continue to work if standard error is closed.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    fn suspend(&self, print: &mut dyn FnMut()) {
        let _held = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        print();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_one_line_with_a_name_that_stays() {
        let at: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let text = |text: &str| text.to_owned();
        let events = [
            Event::Started { step: 1, scope: text("cp1"), text: text("look") },
            Event::At { step: 1, text: text("two\nlines") },
            Event::Bytes { step: 1, done: 3, total: 7 },
            Event::Finished { step: 1, outcome: Outcome::Done(text("3 files")) },
            Event::Finished { step: 2, outcome: Outcome::Unchanged(String::new()) },
            Event::Finished { step: 3, outcome: Outcome::Failed(text("no space")) },
            Event::Note { scope: String::new(), text: text("nothing to do") },
            Event::Message { text: text("Kubernetes is up") },
            Event::Error {
                code: 4,
                error: text("reach cp2"),
                causes: vec![text("refused")],
                hint: Some(text("`ssh cp2`")),
            },
        ];
        let lines: Vec<String> = events.iter().map(|event| encode(event, at).to_string()).collect();
        assert!(lines.iter().all(|line| !line.contains('\n')));
        insta::assert_snapshot!(lines.join("\n"));
        // Each of them is documented.
        let documented =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md")).unwrap();
        for event in &events {
            let line = encode(event, at);
            let name = line["event"].as_str().unwrap();
            let row = documented.lines().find(|row| row.starts_with(&format!("| `{name}` |"))).unwrap_or_default();
            for field in line.as_object().unwrap().keys().filter(|field| !["event", "time"].contains(&field.as_str())) {
                assert!(row.contains(&format!("`{field}`")), "{name}: {field} is not documented: {row}");
            }
        }
    }

    #[test]
    fn lines_are_written_as_they_come() {
        let mut out = Vec::new();
        Ndjson::new(&mut out, false).draw(&Event::Message { text: "a".to_owned() });
        Ndjson::new(&mut out, true).draw(&Event::Message { text: "b".to_owned() });
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((line["event"].as_str(), line["text"].as_str()), (Some("message"), Some("a")));
    }
}

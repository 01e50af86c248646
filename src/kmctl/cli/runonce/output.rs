//! Container output on kmctl's own standard output and error. With one container the bytes are passed through, else
//! whole lines are printed, each with its pod and container as a prefix.
use std::collections::BTreeMap;
use std::io::Write;

use kmctl_core::progress::Progress;
use runonce::decide::framework::Wanted;
use runonce::run::Listener;

/// Prints what pods write, and messages for the operator.
pub struct Printer {
    progress: Progress,
    names: Vec<String>,
    /// `None` with only one container, whose output needs no prefix.
    lines: Option<Lines>,
}

/// Unfinished lines, by pod, container and stream.
#[derive(Default)]
struct Lines(BTreeMap<(usize, String, bool), Vec<u8>>);

impl Printer {
    pub fn new(pods: &[Wanted], progress: Progress) -> Self {
        let containers: usize = pods
            .iter()
            .filter_map(|pod| pod.given.pod.spec.as_ref())
            .map(|spec| spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len))
            .sum();
        let names = pods.iter().map(|pod| pod.name.clone()).collect();
        Printer { progress, names, lines: (containers > 1).then(Lines::default) }
    }

    fn print(&self, error: bool, bytes: &[u8]) {
        // A reader that closes the pipe early is no failure: the pods continue.
        let _ = self.progress.suspend(|| {
            if error {
                std::io::stderr().write_all(bytes)
            } else {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
        });
    }
}

impl Listener for Printer {
    fn output(&mut self, pod: usize, container: &str, error: bool, data: &[u8]) {
        let Some(lines) = &mut self.lines else { return self.print(error, data) };
        let name = self.names.get(pod).map_or("?", String::as_str);
        let text = lines.take(&format!("[{name} {container}] "), (pod, container.to_owned(), error), data);
        self.print(error, &text);
    }

    fn note(&mut self, text: &str) {
        self.progress.note("", text);
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        for ((pod, container, error), rest) in self.lines.take().unwrap_or_default().0 {
            if !rest.is_empty() {
                let name = self.names.get(pod).map_or("?", String::as_str);
                let text = [format!("[{name} {container}] ").as_bytes(), &rest, b"\n"].concat();
                self.print(error, &text);
            }
        }
    }
}

impl Lines {
    /// The lines that are now complete, each with its prefix.
    fn take(&mut self, prefix: &str, key: (usize, String, bool), data: &[u8]) -> Vec<u8> {
        let rest = self.0.entry(key).or_default();
        rest.extend_from_slice(data);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let complete: Vec<u8> = rest.drain(..=end).collect();
        complete.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [prefix.as_bytes(), line].concat()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_containers_are_never_mixed() {
        let mut lines = Lines::default();
        let mut text = Vec::new();
        for (container, data) in [("a", "one\ntw"), ("b", "x\n"), ("a", "o\n\n"), ("b", "half")] {
            text.extend(lines.take(&format!("[{container}] "), (0, container.to_owned(), false), data.as_bytes()));
        }
        assert_eq!(String::from_utf8(text).unwrap(), "[a] one\n[b] x\n[a] two\n[a] \n");
    }
}

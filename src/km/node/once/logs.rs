//! Reads containers' logs in the runtime's format: one entry per line, `<time> <stream> <tag> <text>`.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Approximate limit of a piece in bytes: one message carries one piece.
pub const PIECE: usize = 32 << 10;

/// Bytes that a container wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The container's name.
    pub container: String,
    /// Whether it wrote to standard error.
    pub error: bool,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Stream and text of one entry; none if the line is no entry. If the runtime split a line, all parts but the last have
/// the tag `P`.
fn parse(line: &[u8]) -> Option<(bool, Vec<u8>)> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (_, stream, tag, text) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let error = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let mut text = text.to_vec();
    if !tag.split(|byte| *byte == b':').any(|tag| tag == b"P") {
        text.push(b'\n');
    }
    Some((error, text))
}

/// Follows the logs of one pod's containers.
pub struct Follower {
    /// Directory of all pods' logs.
    folder: PathBuf,
    uid: String,
    /// In the order in which they are read.
    containers: Vec<String>,
    open: BTreeMap<String, Open>,
}

/// The log that is currently read. A restarted container has a new log, and large logs are rotated.
struct Open {
    attempt: u32,
    path: PathBuf,
    file: File,
    inode: u64,
    /// An incomplete entry.
    rest: Vec<u8>,
}

impl Follower {
    /// For a pod with these containers, init containers first.
    pub fn new(folder: PathBuf, uid: String, containers: Vec<String>) -> Self {
        Follower { folder, uid, containers, open: BTreeMap::new() }
    }

    /// The output since the last call, up to about one piece for each container. Empty if there is none.
    pub fn read(&mut self) -> Vec<Piece> {
        let Some(folder) = self.pod_folder() else { return Vec::new() };
        let mut pieces = Vec::new();
        for container in self.containers.clone() {
            self.read_container(&folder.join(&container), &container, &mut pieces);
        }
        pieces
    }

    /// `<namespace>_<name>_<uid>`; the kubelet chooses the name.
    fn pod_folder(&self) -> Option<PathBuf> {
        let end = format!("_{}", self.uid);
        let entries = std::fs::read_dir(&self.folder).ok()?;
        let found = entries.flatten().find(|entry| entry.file_name().to_string_lossy().ends_with(&end));
        found.map(|entry| entry.path())
    }

    fn read_container(&mut self, folder: &Path, container: &str, pieces: &mut Vec<Piece>) {
        loop {
            if !self.open.contains_key(container) {
                let Some(open) = Open::first(folder, 0) else { return };
                self.open.insert(container.to_owned(), open);
            }
            let Some(open) = self.open.get_mut(container) else { return };
            let before = pieces.len();
            let more = open.read(container, pieces);
            if pieces.len() > before {
                return;
            }
            if more {
                continue;
            }
            // At the end of this log: there may be a newer one.
            match open.next(folder) {
                Some(next) => *open = next,
                None => return,
            }
        }
    }
}

impl Open {
    /// The log of the first attempt from `attempt` on.
    fn first(folder: &Path, attempt: u32) -> Option<Open> {
        let attempts = std::fs::read_dir(folder).ok()?.flatten();
        let numbers =
            attempts.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse::<u32>().ok());
        let attempt = numbers.filter(|number| *number >= attempt).min()?;
        Open::at(folder.join(format!("{attempt}.log")), attempt)
    }

    fn at(path: PathBuf, attempt: u32) -> Option<Open> {
        let file = File::open(&path).ok()?;
        let inode = file.metadata().ok()?.ino();
        Some(Open { attempt, path, file, inode, rest: Vec::new() })
    }

    fn next(&self, folder: &Path) -> Option<Open> {
        let rotated = std::fs::metadata(&self.path).is_ok_and(|now| now.ino() != self.inode);
        if rotated {
            return Open::at(self.path.clone(), self.attempt);
        }
        Open::first(folder, self.attempt + 1)
    }

    /// Reads the next part; returns false at the end.
    fn read(&mut self, container: &str, pieces: &mut Vec<Piece>) -> bool {
        let mut buffer = vec![0; PIECE];
        let count = self.file.read(&mut buffer).unwrap_or(0);
        self.rest.extend_from_slice(&buffer[..count]);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return count > 0 };
        let complete: Vec<u8> = self.rest.drain(..=end).collect();
        for line in complete[..end].split(|byte| *byte == b'\n') {
            let Some((error, text)) = parse(line) else { continue };
            match pieces.last_mut().filter(|last| last.container == container && last.error == error) {
                Some(last) => last.data.extend(text),
                None => pieces.push(Piece { container: container.to_owned(), error, data: text }),
            }
        }
        count > 0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(follower: &mut Follower) -> String {
        let mut text = String::new();
        loop {
            let pieces = follower.read();
            if pieces.is_empty() {
                return text;
            }
            for piece in pieces {
                text.push_str(&format!(
                    "{}{}:{}",
                    piece.container,
                    if piece.error { "!" } else { "" },
                    String::from_utf8_lossy(&piece.data)
                ));
            }
        }
    }

    fn append(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn streams_are_told_apart_and_cut_lines_are_joined() {
        let cases: [(&str, Option<(bool, &str)>); 6] = [
            ("2026-01-01T00:00:00Z stdout F hello there", Some((false, "hello there\n"))),
            ("2026-01-01T00:00:00Z stderr F ", Some((true, "\n"))),
            ("2026-01-01T00:00:00Z stdout P half", Some((false, "half"))),
            ("2026-01-01T00:00:00Z stdout P:x half", Some((false, "half"))),
            ("2026-01-01T00:00:00Z other F x", None),
            ("nonsense", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(error, text)| (error, text.as_bytes().to_vec()));
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn nothing_is_lost_over_restarts_and_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let pod = folder.path().join("default_web-n1_u1");
        let mut follower = Follower::new(folder.path().to_owned(), "u1".into(), vec!["i".into(), "a".into()]);
        assert_eq!(all(&mut follower), "");
        append(&pod.join("a/0.log"), "t stdout F one\nt stderr F two\nt stdout F thr");
        append(&pod.join("i/0.log"), "t stdout F init\n");
        assert_eq!(all(&mut follower), "i:init\na:one\na!:two\n");
        append(&pod.join("a/0.log"), "ee\n");
        std::fs::rename(pod.join("a/0.log"), pod.join("a/0.log.20260101")).unwrap();
        append(&pod.join("a/0.log.20260101"), "t stdout F four\n");
        append(&pod.join("a/0.log"), "t stdout F five\n");
        append(&pod.join("a/2.log"), "t stdout F six\n");
        assert_eq!(all(&mut follower), "a:three\nfour\na:five\na:six\n");
        assert_eq!(all(&mut follower), "");
    }
}

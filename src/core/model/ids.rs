//! Ids that this scheduler assigns to executors and tasks, and how to parse them when Mesos returns them.

/// Generates ids of eight hexadecimal digits from a seed. The seed is passed in because the core has no randomness.
#[derive(Clone, Debug)]
pub struct IdSource(u64);

impl IdSource {
    /// Creates a source. The seed must differ between processes, because ids must never be reused.
    pub fn new(seed: u64) -> IdSource {
        IdSource(seed)
    }

    /// The next eight digits (splitmix64, upper half).
    pub fn next_id(&mut self) -> String {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("{:08x}", (mixed ^ (mixed >> 31)) >> 32)
    }
}

/// What a task id refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// The long-lived task of the node with this executor.
    Node(String),
    /// The task of the pod with this UID.
    Pod(String),
    /// Removes what the executor with this id left behind.
    Sweep(String),
    /// Its status updates mark the end of a reconciliation.
    Sentinel,
    /// Not one of ours: ignored.
    Foreign,
}

impl TaskKind {
    /// Parses a task id.
    pub fn of(task: &str) -> TaskKind {
        let without_suffix = |rest: &str| {
            let (body, suffix) = rest.rsplit_once('.')?;
            let hexadecimal = suffix.len() == 8 && suffix.bytes().all(|digit| digit.is_ascii_hexdigit());
            (hexadecimal && !body.is_empty()).then(|| body.to_owned())
        };
        match task.split_once('.') {
            Some(("node", executor)) if without_suffix(executor).is_some() => TaskKind::Node(executor.to_owned()),
            Some(("pod", rest)) => without_suffix(rest).map_or(TaskKind::Foreign, TaskKind::Pod),
            Some(("sweep", rest)) => without_suffix(rest).map_or(TaskKind::Foreign, TaskKind::Sweep),
            Some(("sentinel", _)) => TaskKind::Sentinel,
            _ => TaskKind::Foreign,
        }
    }
}

/// The node's name in an executor id.
pub fn node_of(executor: &str) -> Option<&str> {
    executor.rsplit_once('.').map(|(node, _)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_are_read_back_and_strange_ones_are_foreign() {
        let cases = [
            ("node.n1.example.0a1b2c3d", TaskKind::Node("n1.example.0a1b2c3d".into())),
            ("pod.6f8d-11.0a1b2c3d", TaskKind::Pod("6f8d-11".into())),
            ("sweep.n1.0a1b2c3d.00000001", TaskKind::Sweep("n1.0a1b2c3d".into())),
            ("sentinel.00000001", TaskKind::Sentinel),
            ("pod.6f8d", TaskKind::Foreign),
            ("pod.x.zzzzzzzz", TaskKind::Foreign),
            ("node.n1", TaskKind::Foreign),
            ("spark", TaskKind::Foreign),
        ];
        for (id, kind) in cases {
            assert_eq!(TaskKind::of(id), kind, "{id}");
        }
        assert_eq!(node_of("n1.example.0a1b2c3d"), Some("n1.example"));
    }

    #[test]
    fn ids_of_one_source_differ() {
        let mut source = IdSource::new(7);
        let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| source.next_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 8));
    }
}

//! What is requested. Pure.
use crate::failure::{Code, Failure};
use crate::inventory::mesos::sandbox::Sandbox;
use crate::inventory::units::UNITS;
use kmctl_core::model::ids::node_of;

/// Which part of a log is requested.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) follow: bool,
    pub(super) lines: usize,
    pub(super) file: String,
    pub(super) host: Option<String>,
    pub(super) container: Option<String>,
}

/// The source of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A unit of the control plane, on every host.
    Component(&'static str),
    /// A node's executor.
    Node(String),
    /// A pod's containers.
    Pod { namespace: String, name: String },
    /// An executor that cleans up after a node.
    Sweep(String),
}

impl Source {
    /// Parses the words of the command line.
    pub(super) fn read(what: &str, name: Option<&str>) -> Result<Source, Failure> {
        let usage = |text: String| {
            let hint = format!("components: {}; or kmctl logs node NAME, or kmctl logs task NAME", UNITS.join(", "));
            Failure::message(Code::Usage, text).hint(hint)
        };
        match (what, name) {
            ("node", Some(name)) => Ok(Source::Node(name.to_owned())),
            ("task", Some(name)) => Source::task(name).ok_or_else(|| {
                let text =
                    format!("invalid task name `{name}`: must be <pod>.<namespace>, node.<node> or sweep.<node>");
                Failure::message(Code::Usage, text).hint("list tasks with kmctl status")
            }),
            ("node" | "task", None) => Err(usage(format!("`kmctl logs {what}` requires a name"))),
            (unit, None) => {
                let unit = unit.trim_end_matches(".service");
                let found = UNITS.iter().find(|known| **known == unit);
                found.map(|known| Source::Component(known)).ok_or_else(|| usage(format!("unknown component `{unit}`")))
            }
            (what, Some(_)) => Err(usage(format!("`kmctl logs {what}` takes no name"))),
        }
    }

    /// Parses a task's name in Mesos.
    fn task(name: &str) -> Option<Source> {
        if let Some(node) = name.strip_prefix("node.") {
            return Some(Source::Node(node.to_owned()));
        }
        if let Some(node) = name.strip_prefix("sweep.") {
            return Some(Source::Sweep(node.to_owned()));
        }
        // A namespace has no dot, but a pod's name may have one.
        let (pod, namespace) = name.rsplit_once('.')?;
        let given = !pod.is_empty() && !namespace.is_empty();
        given.then(|| Source::Pod { namespace: namespace.to_owned(), name: pod.to_owned() })
    }
}

/// The sandbox of a node's executor: the one that the Node object names, else the newest of that node.
pub(super) fn choose<'a>(sandboxes: &'a [Sandbox], source: &Source, executor: Option<&str>) -> Option<&'a Sandbox> {
    let named = executor.and_then(|id| sandboxes.iter().find(|sandbox| sandbox.executor == id));
    named.or_else(|| {
        sandboxes.iter().rev().find(|sandbox| match source {
            Source::Node(node) => node_of(&sandbox.executor) == Some(node),
            // sweep.<node>.<digits of its executor>.<own digits>
            Source::Sweep(node) => {
                let swept = sandbox.executor.strip_prefix("sweep.").and_then(node_of).and_then(node_of);
                swept == Some(node)
            }
            Source::Component(_) | Source::Pod { .. } => false,
        })
    })
}

/// The last `lines` lines of a text.
pub(super) fn tail(text: &str, lines: usize) -> &str {
    let body = text.strip_suffix('\n').unwrap_or(text);
    match body.rmatch_indices('\n').nth(lines.saturating_sub(1)) {
        _ if lines == 0 => "",
        Some((at, _)) => &text[at + 1..],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_name_a_source() {
        let pod = |name: &str, namespace: &str| Source::Pod { name: name.to_owned(), namespace: namespace.to_owned() };
        let cases = [
            ("etcd", None, Some(Source::Component("etcd"))),
            ("km-scheduler.service", None, Some(Source::Component("km-scheduler"))),
            ("node", Some("agent1"), Some(Source::Node("agent1".to_owned()))),
            ("task", Some("web.default"), Some(pod("web", "default"))),
            ("task", Some("web.v1.default"), Some(pod("web.v1", "default"))),
            ("task", Some("node.agent1.example"), Some(Source::Node("agent1.example".to_owned()))),
            ("task", Some("sweep.agent1"), Some(Source::Sweep("agent1".to_owned()))),
            ("task", Some("web"), None),
            ("node", None, None),
            ("kubelet", None, None),
            ("etcd", Some("x"), None),
        ];
        for (what, name, expected) in cases {
            let found = Source::read(what, name);
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{what} {name:?}");
            assert!(found.is_ok() || found.is_err_and(|failure| failure.code() == Code::Usage));
        }
    }

    #[test]
    fn of_a_nodes_executors_the_recorded_one_is_meant_else_the_newest() {
        let sandbox = |executor: &str| Sandbox {
            address: String::new(),
            executor: executor.to_owned(),
            directory: format!("/{executor}"),
            ended: false,
        };
        let all: Vec<Sandbox> =
            ["agent1.00000001", "sweep.agent1.00000001.0000000a", "agent1.00000002", "agent2.00000003"]
                .map(sandbox)
                .into();
        let node = Source::Node("agent1".to_owned());
        let chosen = |source: &Source, executor| choose(&all, source, executor).map(|one| one.executor.as_str());
        assert_eq!(chosen(&node, None), Some("agent1.00000002"));
        assert_eq!(chosen(&node, Some("agent1.00000001")), Some("agent1.00000001"));
        assert_eq!(chosen(&Source::Sweep("agent1".to_owned()), None), Some("sweep.agent1.00000001.0000000a"));
        assert_eq!(chosen(&Source::Node("agent9".to_owned()), None), None);
    }

    #[test]
    fn the_last_lines_are_whole_lines() {
        let cases =
            [("a\nb\nc\n", 2, "b\nc\n"), ("a\nb\nc", 2, "b\nc"), ("a\n", 5, "a\n"), ("", 3, ""), ("a\nb\n", 0, "")];
        for (text, lines, expected) in cases {
            assert_eq!(tail(text, lines), expected, "{text:?}");
        }
    }
}

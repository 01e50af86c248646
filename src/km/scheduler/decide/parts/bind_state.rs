//! A pod's progress to its node, and which step may follow which.
use kmctl_core::model::time::Time;
use kmctl_core::protocol::launch::PortMapping;

use super::illegal::Illegal;

/// A pod's progress to its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum BindState {
    /// Not started, or bound.
    #[default]
    None,
    /// Waits for resources of this node's agent.
    Waiting { node: String, since: Time },
    /// Its task is launched.
    Launched { node: String, task: String, ports: Vec<PortMapping> },
    /// Its task has started, and the Binding is being posted.
    Binding { node: String, task: String },
}

impl BindState {
    /// The target node.
    pub fn node(&self) -> Option<&str> {
        match self {
            BindState::None => None,
            BindState::Waiting { node, .. } | BindState::Launched { node, .. } | BindState::Binding { node, .. } => {
                Some(node)
            }
        }
    }

    /// The launched task.
    pub fn task(&self) -> Option<&str> {
        match self {
            BindState::None | BindState::Waiting { .. } => None,
            BindState::Launched { task, .. } | BindState::Binding { task, .. } => Some(task),
        }
    }

    /// Whether it waits for resources of this node.
    pub fn waits_for(&self, name: &str) -> bool {
        matches!(self, BindState::Waiting { node, .. } if node == name)
    }

    /// All legal steps.
    fn may_become(&self, next: &BindState) -> bool {
        match (self, next) {
            (BindState::None, BindState::Waiting { .. }) => true,
            // A task that an earlier process has launched.
            (BindState::None, BindState::Launched { .. }) => true,
            (BindState::Waiting { node, .. }, BindState::Launched { node: next, .. }) => node == next,
            (BindState::Launched { node, task, .. }, BindState::Binding { node: next, task: same }) => {
                node == next && task == same
            }
            // Bound, by us or by another client, or failed.
            (BindState::Waiting { .. } | BindState::Launched { .. } | BindState::Binding { .. }, BindState::None) => {
                true
            }
            _ => false,
        }
    }

    pub(super) fn enter(&mut self, next: BindState) -> Result<(), Illegal> {
        if !self.may_become(&next) {
            return Err(self.refuse(next.word()));
        }
        *self = next;
        Ok(())
    }

    /// The refusal of a step.
    pub(super) fn refuse(&self, to: &'static str) -> Illegal {
        Illegal { from: self.word(), to }
    }

    fn word(&self) -> &'static str {
        match self {
            BindState::None => "no bind",
            BindState::Waiting { .. } => "waiting for an offer",
            BindState::Launched { .. } => "launched",
            BindState::Binding { .. } => "binding",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(node: &str, task: &str) -> [BindState; 4] {
        let (node, task) = (node.to_owned(), task.to_owned());
        [
            BindState::None,
            BindState::Waiting { node: node.clone(), since: Time(0) },
            BindState::Launched { node: node.clone(), task: task.clone(), ports: Vec::new() },
            BindState::Binding { node, task },
        ]
    }

    fn legal(from: &[BindState], to: &[BindState]) -> Vec<(usize, usize)> {
        let mut legal = Vec::new();
        for (number, state) in from.iter().enumerate() {
            for (next, wanted) in to.iter().enumerate() {
                let mut entered = state.clone();
                match entered.enter(wanted.clone()) {
                    Ok(()) => {
                        assert_eq!(&entered, wanted);
                        legal.push((number, next));
                    }
                    Err(_) => assert_eq!(&entered, state, "a refused step changes nothing"),
                }
            }
        }
        legal
    }

    #[test]
    fn every_step_but_the_legal_ones_is_refused() {
        let here = states("a", "t1");
        assert_eq!(legal(&here, &here), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 3), (3, 0)]);
        // Neither the node nor the task changes on the way.
        assert_eq!(legal(&here, &states("b", "t1")), [(0, 1), (0, 2), (1, 0), (2, 0), (3, 0)]);
        assert_eq!(legal(&here[2..], &states("a", "t2")), [(0, 0), (1, 0)]);
    }
}

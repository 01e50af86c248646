//! The cost of removing a node. km scheduler uses it to choose nodes when there are more than `nodes.max`, and `kmctl`
//! to show in advance which nodes would be removed. Pure.
use super::resources::{Amount, decimal};

/// How far a node has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// A Node object without an executor.
    Candidate,
    /// Launched; its kubelet has not reported yet.
    Starting,
    /// Its kubelet has reported.
    Ready,
}

/// The cost of removing one node; the smallest is the cheapest. Fields are compared in their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrainCost {
    /// Has pods that no controller would recreate, so that it could not be drained.
    stuck: bool,
    stage: Stage,
    lasting: usize,
    pods: usize,
    cpus: i64,
    mem: i64,
    node: String,
}

impl DrainCost {
    /// The burden of a node without pods.
    pub fn new(node: &str, stage: Stage) -> DrainCost {
        DrainCost { stuck: false, stage, lasting: 0, pods: 0, cpus: 0, mem: 0, node: node.to_owned() }
    }

    /// Counts a pod that would have to move. `controlled`: whether a controller would recreate it.
    pub fn add(&mut self, amount: Amount, controlled: bool) {
        self.pods += 1;
        self.cpus += amount.cpus;
        self.mem += amount.mem;
        if !controlled {
            self.lasting += 1;
            self.stuck = true;
        }
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// How far the node has started.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// How many of its pods no controller would recreate.
    pub fn lasting(&self) -> usize {
        self.lasting
    }

    /// For humans: `2 pods to move (0.2 cpus, 64 MB)`.
    pub fn describe(&self) -> String {
        let plural = |count: usize| if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") };
        let amount = format!("{} cpus, {} MB", decimal(self.cpus), decimal(self.mem));
        let mut text = match (self.stage, self.pods) {
            (Stage::Candidate, _) => "not started yet".to_owned(),
            (Stage::Starting, 0) => "starting, no pods".to_owned(),
            (Stage::Ready, 0) => "no pods".to_owned(),
            (_, pods) => format!("{} to move ({amount})", plural(pods)),
        };
        if self.lasting > 0 {
            text.push_str(&format!(", {} without a controller", plural(self.lasting)));
        }
        text
    }
}

/// The nodes to remove if at most `max` may be kept, the cheapest first, each with the reason.
pub fn surplus(mut burdens: Vec<DrainCost>, max: usize) -> Vec<(DrainCost, String)> {
    let all = burdens.len();
    burdens.sort();
    burdens
        .into_iter()
        .take(all.saturating_sub(max))
        .map(|burden| {
            let why = format!("more nodes than nodes.max ({max}); cheapest of {all}: {}", burden.describe());
            (burden, why)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burden(node: &str, stage: Stage, pods: &[(i64, bool)]) -> DrainCost {
        let mut burden = DrainCost::new(node, stage);
        for (cpus, controlled) in pods {
            burden.add(Amount::new(*cpus, 64), *controlled);
        }
        burden
    }

    #[test]
    fn the_cheapest_go_first_and_say_why() {
        use Stage::{Candidate, Ready, Starting};
        let all = vec![
            burden("bare", Ready, &[(10, false)]),
            burden("busy", Ready, &[(100, true), (100, true)]),
            burden("small", Ready, &[(50, true)]),
            burden("large", Ready, &[(500, true)]),
            burden("empty", Ready, &[]),
            burden("young", Starting, &[(500, true)]),
            burden("asleep", Candidate, &[]),
        ];
        let order: Vec<String> = surplus(all.clone(), 0).into_iter().map(|(burden, _)| burden.node).collect();
        assert_eq!(order, ["asleep", "young", "empty", "small", "large", "busy", "bare"]);
        let cases =
            [(6, vec!["more nodes than nodes.max (6); cheapest of 7: not started yet"]), (7, vec![]), (9, vec![])];
        for (max, expected) in cases {
            let why: Vec<String> = surplus(all.clone(), max).into_iter().map(|(_, why)| why).collect();
            assert_eq!(why, expected, "{max}");
        }
    }

    #[test]
    fn a_burden_is_told_in_figures() {
        let cases = [
            (burden("n", Stage::Ready, &[]), "no pods"),
            (burden("n", Stage::Starting, &[]), "starting, no pods"),
            (burden("n", Stage::Ready, &[(250, true)]), "1 pod to move (0.25 cpus, 64 MB)"),
            (
                burden("n", Stage::Ready, &[(250, true), (50, false)]),
                "2 pods to move (0.3 cpus, 128 MB), 1 pod without a controller",
            ),
        ];
        for (burden, text) in cases {
            assert_eq!(burden.describe(), text);
        }
    }
}

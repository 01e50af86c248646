//! The operator at a terminal: what is shown before a confirmation, and the confirmation itself.
use async_trait::async_trait;

use super::context::Context;
use super::{question, report};
use crate::apply::Report;
use crate::failure::Failure;
use crate::plan::{Plan, describe};
use crate::provision::{Operator, Teardown};
use kmctl_core::protocol::host::Removal;

/// The operator who ran the command.
pub(super) struct Terminal<'a> {
    context: &'a Context,
    /// The cluster's name as given on the command line, which confirms that everything is removed.
    confirmed: Option<String>,
}

impl<'a> Terminal<'a> {
    pub(super) fn new(context: &'a Context, confirmed: Option<String>) -> Self {
        Terminal { context, confirmed }
    }
}

#[async_trait]
impl Operator for Terminal<'_> {
    async fn approve_plan(&self, plan: &Plan) -> Result<bool, Failure> {
        let mut what = Vec::new();
        let interruptions = plan.interruptions();
        if !interruptions.is_empty() {
            what.push(format!("restarts {}", interruptions.join(", ")));
        }
        let removed = plan.departures.iter().filter(|one| one.remove);
        what.extend(removed.map(|one| format!("removes {} from etcd", one.member)));
        self.context.stderr(&describe(plan));
        let question = format!("This {}. Pods keep running. Go on?", what.join(" and "));
        question::confirm(self.context, &question).await
    }

    async fn approve_teardown(&self, teardown: &Teardown) -> Result<bool, Failure> {
        let name = &teardown.cluster;
        self.context.stderr(&describe_teardown(teardown));
        match teardown.removal {
            Removal::Programs => question::confirm(self.context, "Go on?").await,
            Removal::Everything => {
                let what = format!("Everything is lost, etcd's data too. Type the cluster's name ({name}) to go on");
                question::confirm_name(self.context, &what, name, self.confirmed.as_deref()).await
            }
        }
    }

    fn show_report(&self, report: &Report) {
        self.context.stderr(&report::table(report));
    }
}

fn describe_teardown(teardown: &Teardown) -> String {
    let Teardown { cluster, hosts, unreachable, removal, drain } = teardown;
    let mut text = format!("Cluster {cluster} goes down:\n");
    if *drain {
        text.push_str("  - every node is drained: its pods end within their own grace periods\n");
    }
    text.push_str("  - the Mesos framework ends, and with it every pod\n");
    for (host, units) in hosts {
        text.push_str(&format!("  - {host}: {} stop, programs and units are removed\n", units.join(", ")));
    }
    for host in unreachable {
        text.push_str(&format!("  . {host}: cannot be reached, nothing is done there\n"));
    }
    text.push_str(match removal {
        Removal::Programs => {
            "  . etcd's data, keys, settings and the encryption key stay; a later `up` goes on with them\n"
        }
        Removal::Everything => {
            "  - etcd's data, keys, settings and snapshots are removed\n  - every agent that ever had a node is swept\n"
        }
    });
    text
}

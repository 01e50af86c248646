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
            what.push(format!("restart {}", interruptions.join(", ")));
        }
        let removed = plan.departures.iter().filter(|one| one.remove);
        what.extend(removed.map(|one| format!("remove {} from etcd", one.member)));
        self.context.stderr(&describe(plan));
        let what = what.join(" and ");
        let first = what.chars().next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
        let question = format!("{first}{}? Pods keep running", what.get(1..).unwrap_or_default());
        question::confirm(self.context, &question).await
    }

    async fn approve_teardown(&self, teardown: &Teardown) -> Result<bool, Failure> {
        let name = &teardown.cluster;
        self.context.stderr(&describe_teardown(teardown));
        match teardown.removal {
            Removal::Programs => question::confirm(self.context, "Continue?").await,
            Removal::Everything => {
                let what = format!("This deletes all data of cluster {name}, including etcd. Type {name} to confirm");
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
    let mut text = format!("This stops cluster {cluster}:\n");
    if *drain {
        text.push_str("  - all nodes are drained; pods stop within their grace periods\n");
    }
    text.push_str("  - the Mesos framework and all pods stop\n");
    for (host, units) in hosts {
        text.push_str(&format!("  - {host}: {} stop, binaries and units are removed\n", units.join(", ")));
    }
    for host in unreachable {
        text.push_str(&format!("  ! {host}: unreachable, nothing is removed there\n"));
    }
    text.push_str(match removal {
        Removal::Programs => {
            "  = etcd data, certificates and configuration are kept; `kmctl up` restores the cluster\n"
        }
        Removal::Everything => {
            "  - etcd data, snapshots, certificates and configuration are deleted\n  - node data on agents is \
             deleted\n"
        }
    });
    text
}

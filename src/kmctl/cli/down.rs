//! `kmctl down`: removes the framework, stops the control plane, and removes what `up` installed.
use super::context::Context;
use super::operator::Terminal;
use crate::failure::{Code, Failure};
use crate::provision::phases::{self, Down};
use kmctl_core::protocol::host::Removal;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Also delete etcd data, certificates, configuration and node data on agents; asks for the cluster's name unless
    /// --purge=NAME or --yes confirms it
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    purge: Option<Option<String>>,
    /// Drain all nodes first
    #[arg(long)]
    drain: bool,
}

/// Runs `kmctl down`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { purge, drain } = args;
    let mut loaded = context.cluster()?;
    let name = loaded.cluster.metadata.name.clone();
    let removal = if purge.is_some() { Removal::Everything } else { Removal::Programs };
    let operator = Terminal::new(context, purge.flatten());
    match phases::down(&context.session, &operator, &mut loaded, removal, drain).await? {
        Down::Declined => Ok(Code::Usage),
        Down::NotInstalled(failure) => {
            let place = if failure.is_none() { "" } else { " on the reachable hosts" };
            context.stderr(&format!("Cluster {name} is not installed{place}; nothing to remove\n"));
            failure.map_or(Ok(Code::Ok), Err)
        }
        Down::Done(removal) => {
            let left = match removal {
                Removal::Programs => {
                    "etcd data, certificates and configuration are kept; delete them with `kmctl down --purge`"
                }
                Removal::Everything => "All its data on the hosts was deleted",
            };
            context.stderr(&format!("\nCluster {name} is down. {left}\n"));
            Ok(Code::Ok)
        }
    }
}

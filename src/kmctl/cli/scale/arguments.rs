//! The flags of `kmctl scale`.
use std::time::Duration;

use kmctl_core::cluster::quantity;

use crate::inventory::bounds::{Max, parse_max};

/// Arguments.
#[derive(Default, clap::Args)]
pub struct Args {
    /// Fixed number of nodes (sets --min and --max; disables autoscaling)
    #[arg(long, value_name = "N", conflicts_with_all = ["min", "max"])]
    pub(super) nodes: Option<u32>,
    /// Minimum number of nodes, kept even when idle
    #[arg(long, value_name = "N")]
    pub(super) min: Option<u32>,
    /// Maximum number of nodes; `none` for no limit
    #[arg(long, value_name = "N|none", value_parser = parse_max)]
    pub(super) max: Option<Max>,
    /// Preview only
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Also write the limits to cluster.yaml, keeping comments
    #[arg(long)]
    pub(super) save: bool,
    /// Return without waiting for the limits to be reached
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Maximum time to wait
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = wait)]
    pub(super) timeout: Wait,
}

/// The value of `--timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait(pub(super) Duration);

impl Default for Wait {
    fn default() -> Self {
        Wait(Duration::from_secs(600))
    }
}

fn wait(text: &str) -> Result<Wait, String> {
    quantity::duration(text).map(Wait).map_err(|error| error.to_string())
}

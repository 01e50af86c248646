//! The flags of `kmctl scale`.
use std::time::Duration;

use kmctl_core::cluster::quantity;

use super::bounds::{Max, parse_max};

/// Arguments.
#[derive(Default, clap::Args)]
pub struct Args {
    /// Exactly so many nodes: sets min and max, so that auto-scaling is off
    #[arg(long, value_name = "N", conflicts_with_all = ["min", "max"])]
    pub(super) nodes: Option<u32>,
    /// Nodes that are kept even when idle
    #[arg(long, value_name = "N")]
    pub(super) min: Option<u32>,
    /// Most nodes; `none` for every agent that fits
    #[arg(long, value_name = "N|none", value_parser = parse_max)]
    pub(super) max: Option<Max>,
    /// Show what would happen, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Write the bounds into cluster.yaml too; its comments and layout stay
    #[arg(long)]
    pub(super) save: bool,
    /// Set the bounds and do not wait until they hold
    #[arg(long)]
    pub(super) no_wait: bool,
    /// How long to wait
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

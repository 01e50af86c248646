//! The command line of `kmctl`: one file per subcommand, settings, prompts, exit codes.
mod arguments;
mod bundle;
mod check;
mod context;
mod down;
mod failure;
mod gather;
mod kubeconfig;
mod plan;
mod provision;
mod question;
mod reach;
mod render;
mod report;
mod scale;
mod status;
mod up;
mod version;

pub use arguments::main;
pub use context::{Context, OutputFormat, Settings};
pub use failure::{Code, Failure};

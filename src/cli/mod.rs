//! The command line of `kmctl`: one file per subcommand, settings, prompts, exit codes.
mod arguments;
mod bundle;
mod check;
mod completions;
mod context;
mod down;
mod failure;
mod gather;
mod init;
mod kubeconfig;
mod logs;
mod plan;
mod preflight;
mod provision;
mod question;
mod reach;
mod render;
mod report;
mod runonce;
mod scale;
mod status;
mod up;
mod version;
pub(crate) mod why;

pub use arguments::main;
pub use context::{Context, LogFormat, OutputFormat, Settings};
pub use failure::{Code, Failure};

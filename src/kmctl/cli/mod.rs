//! The command line of `kmctl`: one file per subcommand, settings, prompts, exit codes.
mod arguments;
mod bars;
mod bundle;
mod check;
mod completions;
mod context;
mod down;
mod init;
mod kubeconfig;
mod logs;
mod operator;
mod plan;
mod question;
mod render;
mod report;
mod runonce;
mod scale;
mod schema;
mod status;
mod up;
mod version;
mod why;

pub use crate::failure::{Code, Failure};
pub use arguments::{command, main};
pub use context::{Context, LogFormat, OutputFormat, Settings};

//! The command line of `kmctl`: one file per subcommand, settings, prompts, exit codes.
mod arguments;
mod bundle;
mod context;
mod down;
mod failure;
mod plan;
mod provision;
mod question;
mod render;
mod up;
mod version;

pub use arguments::main;
pub use context::{Context, OutputFormat, Settings};
pub use failure::{Code, Failure};

//! Messages of the v1 APIs, in the JSON that Mesos reads and writes. Only what this project uses is modelled.
//!
//! Rules for all of them: unknown fields are ignored. A field that Mesos may omit is an `Option` or an empty `Vec`, and
//! is not written when it is absent. An unknown enum value becomes the variant `Unknown` instead of an error, so that
//! one new value never breaks the connection.
mod agent;
mod command;
mod enums;
mod framework;
mod ids;
mod offer;
mod task;
mod values;

pub use agent::*;
pub use command::*;
pub use enums::*;
pub use framework::*;
pub use ids::*;
pub use offer::*;
pub use task::*;
pub use values::*;

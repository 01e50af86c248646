//! Messages of the v1 APIs, in the JSON that Mesos reads and writes. Only what this project uses is spelled out.
//!
//! Rules that hold for all of them: unknown fields are ignored; a field that Mesos may leave out is an `Option` or an
//! empty `Vec` and is not written when it is absent; an enum value that is newer than this program becomes the variant
//! `Unknown` instead of an error, so that one new word never cuts the connection.
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

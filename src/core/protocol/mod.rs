//! The formats that the binaries exchange. Each may be read by an older or a newer version than the one that wrote it:
//! fields are added with a default, and never change their meaning.
pub mod artifacts;
pub mod host;
pub mod launch;
pub mod runonce;
pub mod scheduler;
mod summary;

pub use summary::{HELD_PREFIX, Summary};

//! What the programs say to each other. Each format is read by an older and a newer program than the one that wrote it:
//! fields are added with a default, and never change their meaning.
pub mod artifacts;
pub mod host;
pub mod launch;
pub mod runonce;
pub mod scheduler;
mod summary;

pub use summary::Summary;

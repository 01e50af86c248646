//! The scheduler API, `/api/v1/scheduler` of the leading master.
mod calls;
mod events;

pub use calls::*;
pub use events::*;

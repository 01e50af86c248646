//! The scheduler API, `/api/v1/scheduler` of the leading master.
mod calls;
mod client;
mod events;

pub use calls::*;
pub use client::{Caller, Scheduler, Subscription};
pub use events::*;

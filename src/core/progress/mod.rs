//! Progress as events, and what draws them: progress bars on a terminal, plain lines otherwise. Always on standard
//! error.
mod event;
mod ndjson;
mod plain;

pub use event::{Draw, Event, Outcome, Progress, Silent, Step, StepId, label, told};
pub use ndjson::{Ndjson, encode};
pub use plain::Plain;

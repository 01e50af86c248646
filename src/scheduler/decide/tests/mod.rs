//! The decisions, event by event.
mod bench;
mod binding;

//! The decisions, event by event.
mod bench;
mod binding;
mod demand;
mod every_effect;
mod failed_writes;
mod life;
mod long_names;
mod purge;
mod restart;
mod shrink;

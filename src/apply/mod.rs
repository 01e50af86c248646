//! Carries out a plan: graph runner, lock, run log. Every decision was made in [`crate::plan`]; none is made here.

//! End to end, on the lab: a real Mesos, a real Kubernetes, real systemd and sshd.
//!
//! These tests need the lab and are therefore ignored by a plain test run; `scripts/test` brings the lab up and runs
//! them one after the other. Each starts from a living cluster (`kmctl up` is a no-op then) and leaves one behind, with
//! its own namespace removed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a panic is the failure")]

mod support;

mod churn;
mod cluster_lifecycle;
mod commands;
mod containment;
mod etcd_data;
mod failures;
mod from_zero;
mod network;
mod ownership;
mod placement;
mod refused;
mod runonce;
mod scaling;
mod secrets;
mod sharing;
mod sizes;
mod three_control_planes;
mod versions;
mod waiting;
mod why;

//! Agents, nodes, pods and their resources, as reported by Mesos and Kubernetes. Pure.
pub mod agents;
pub mod candidate;
pub mod drain_cost;
pub mod ids;
pub mod nodes;
pub mod pods;
pub mod requests;
pub mod resources;
pub mod selectors;
pub mod tasks;
pub mod time;

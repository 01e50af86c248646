//! What the scheduler knows, one type per part. Fields that belong together change together, in methods. The rules in
//! the parent directory read the parts and call them.
mod demand;
mod knowledge;
mod nodes;
mod pods;
mod sweeps;
mod tasks;
mod troubles;

pub use demand::Demand;
pub use knowledge::{Knowledge, Next};
pub use nodes::{NodeEntry, NodeState, RemovalCause};
pub use pods::{BindState, Explained, PodEntry};
pub use sweeps::{Due, Ended, Sweeps};
pub use tasks::Task;
pub use troubles::Troubles;

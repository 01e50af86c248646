//! What the scheduler knows, one type per part. All fields are private: those that belong together change together, in
//! methods. The rules in the parent directory read the parts and call them.
//!
//! Pods, nodes and tasks are tables of entries. What an entry may become is written in one place each (`bind_state`,
//! `node_state`), and its methods are named by what happens. A step that the state does not allow changes nothing and
//! returns [`Illegal`].
mod agents;
mod bind_state;
mod demand;
mod explained;
mod gone;
mod illegal;
mod knowledge;
mod node_state;
mod nodes;
mod pods;
mod returns;
mod sweeps;
mod table;
mod tasks;
mod troubles;
mod written;

pub use agents::Agents;
pub use bind_state::BindState;
pub use demand::Demand;
pub use gone::GonePods;
pub use illegal::Illegal;
pub use knowledge::{Knowledge, Next};
pub use node_state::{NodeState, RemovalCause};
pub use nodes::{NodeEntry, Nodes, ObjectLoss};
pub use pods::{PodEntry, Pods};
pub use returns::FailedReturns;
pub use sweeps::{Due, Ended, Sweeps};
pub use tasks::{Task, Tasks};
pub use troubles::Troubles;

//! What `up`, `plan`, `down` and `check` do, apart from flags, printing and exit codes: [`phases`] is the table of
//! contents, and each phase has its own file. The operator is prompted through [`Operator`].
pub mod bundles;
pub mod check;
pub mod clients;
mod converge;
mod desired_state;
mod failures;
mod inspect;
mod mesos_status;
mod operator;
pub mod phases;
mod planning;
mod preflight;
mod rendered_files;
mod saved_plan;
mod session;
mod teardown;
mod work;

pub use desired_state::{DesiredState, desired_state, empty_bundle, inputs, manifests, mesos_secret, open_bundle};
pub use mesos_status::MesosStatus;
pub use operator::Operator;
pub use rendered_files::rendered_files;
pub use saved_plan::read_saved_plan;
pub use session::Session;
pub use teardown::Teardown;

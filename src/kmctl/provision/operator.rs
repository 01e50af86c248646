//! What phases show to the operator and ask for, independent of how that is done.
use async_trait::async_trait;

use super::teardown::Teardown;
use crate::apply::Report;
use crate::failure::Failure;
use crate::plan::Plan;

/// The operator, as far as phases must show or ask for something.
#[async_trait]
pub trait Operator: Send + Sync {
    /// Shows a plan that interrupts or removes something. Returns whether to carry it out.
    async fn approve_plan(&self, plan: &Plan) -> Result<bool, Failure>;

    /// Shows what would be taken down. Returns whether to do so.
    async fn approve_teardown(&self, teardown: &Teardown) -> Result<bool, Failure>;

    /// Shows the outcome of every host.
    fn show_report(&self, report: &Report);
}

//! What phases show to the operator and ask, however that is done.
use async_trait::async_trait;

use super::teardown::Teardown;
use crate::apply::Report;
use crate::failure::Failure;
use crate::plan::Plan;

/// The operator, as far as phases have to show something or to ask.
#[async_trait]
pub trait Operator: Send + Sync {
    /// Shows a plan that interrupts or removes something. Whether to carry it out.
    async fn approve_plan(&self, plan: &Plan) -> Result<bool, Failure>;

    /// Shows what would be taken down. Whether to do so.
    async fn approve_teardown(&self, teardown: &Teardown) -> Result<bool, Failure>;

    /// Shows what became of every host.
    fn show_report(&self, report: &Report);
}

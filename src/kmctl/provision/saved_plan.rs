//! A saved plan: reading it, and checking that it is still what must be done.
use std::path::Path;

use anyhow::Context as _;

use crate::failure::{Code, Failure};
use crate::plan::{Plan, SavedPlan};

pub fn read_saved_plan(file: &Path) -> Result<SavedPlan, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read plan {}", file.display()))?;
    SavedPlan::parse(&text).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("failed to read plan {}", file.display()));
        Failure::new(Code::Invalid, error).hint("save a new plan: kmctl plan --out FILE")
    })
}

/// Fails unless the saved plan is still what must be done.
pub(super) fn check_drift(file: &Path, saved: &SavedPlan, now: &SavedPlan, plan: &Plan) -> Result<(), Failure> {
    let Some(drift) = saved.drift(now) else { return Ok(()) };
    let hint = if plan.is_empty() {
        "no changes are left: the plan was applied already".to_owned()
    } else {
        format!("review and save a new plan: kmctl plan --out {}", file.display())
    };
    let error = anyhow::Error::msg(drift.trim_end().to_owned())
        .context(format!("the cluster no longer matches plan {}; nothing was changed", file.display()));
    Err(Failure::new(Code::Drifted, error).hint(hint))
}

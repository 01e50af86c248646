//! A saved plan: reading it, and checking that it is still what must be done.
use std::path::Path;

use anyhow::Context as _;

use crate::failure::{Code, Failure};
use crate::plan::{Plan, SavedPlan};

pub fn read_saved_plan(file: &Path) -> Result<SavedPlan, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read the plan {}", file.display()))?;
    SavedPlan::parse(&text).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("read the plan {}", file.display()));
        Failure::new(Code::Invalid, error).hint("create it again: `kmctl plan --out FILE`")
    })
}

/// Fails unless the saved plan is still what must be done.
pub(super) fn check_drift(file: &Path, saved: &SavedPlan, now: &SavedPlan, plan: &Plan) -> Result<(), Failure> {
    let Some(drift) = saved.drift(now) else { return Ok(()) };
    let hint = if plan.is_empty() {
        "there is nothing to do any more: the plan was carried out, or somebody else did it".to_owned()
    } else {
        format!("look at the new plan and save it: `kmctl plan --out {}`", file.display())
    };
    let error = anyhow::Error::msg(drift.trim_end().to_owned())
        .context(format!("the cluster has drifted from {}; nothing was changed", file.display()));
    Err(Failure::new(Code::Drifted, error).hint(hint))
}

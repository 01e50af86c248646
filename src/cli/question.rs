//! Questions to the operator. Without a terminal nothing is asked and nothing is done.
use std::io::IsTerminal;

use super::context::Context;
use super::failure::Failure;

/// Asks yes or no. `--yes` is a yes; no terminal is a no.
pub(crate) async fn confirm(context: &Context, what: &str) -> Result<bool, Failure> {
    if context.settings.yes {
        return Ok(true);
    }
    if !is_terminal() {
        context.talk("Nothing was done: there is no terminal to ask on. With --yes it is done without asking.\n");
        return Ok(false);
    }
    let (what, progress) = (what.to_owned(), context.progress.clone());
    let answer = tokio::task::spawn_blocking(move || {
        progress.suspend(|| dialoguer::Confirm::new().with_prompt(what).default(false).interact())
    })
    .await?;
    Ok(answer.transpose()?.unwrap_or(false))
}

/// Asks for a name that must be typed, unless the command line gives it, or says `--yes`.
pub(crate) async fn confirm_name(
    context: &Context,
    what: &str,
    name: &str,
    given: Option<&str>,
) -> Result<bool, Failure> {
    if let Some(given) = given {
        if given != name {
            context.talk(&format!("Nothing was done: the cluster's name is `{name}`, not `{given}`.\n"));
        }
        return Ok(given == name);
    }
    if context.settings.yes {
        return Ok(true);
    }
    if !is_terminal() {
        context.talk(&format!(
            "Nothing was done: there is no terminal to ask on. With --purge={name} it is done without asking.\n"
        ));
        return Ok(false);
    }
    let (what, progress) = (what.to_owned(), context.progress.clone());
    let answer = tokio::task::spawn_blocking(move || {
        progress.suspend(|| dialoguer::Input::<String>::new().with_prompt(what).allow_empty(true).interact_text())
    })
    .await?;
    Ok(answer.transpose()?.is_some_and(|answer| answer == name))
}

fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

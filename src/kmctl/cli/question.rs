//! Questions to the operator. Without a terminal confirmations fail, and nothing is done.
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::context::Context;
use crate::failure::{Code, Failure};
use crate::host::HostError;
use crate::host::ssh::{Ask, Question};
use kmctl_core::progress::Progress;

/// Prompts for yes or no. `--yes` means yes; without a terminal it fails.
pub(crate) async fn confirm(context: &Context, what: &str) -> Result<bool, Failure> {
    if context.settings.yes {
        return Ok(true);
    }
    if !is_terminal() {
        return Err(unconfirmed("pass --yes"));
    }
    let (what, progress) = (what.to_owned(), context.progress.clone());
    let answer = tokio::task::spawn_blocking(move || {
        progress.suspend(|| dialoguer::Confirm::new().with_prompt(what).default(false).interact())
    })
    .await?;
    Ok(answer.transpose()?.unwrap_or(false))
}

/// The failure of a command that needs a confirmation which cannot be given.
fn unconfirmed(hint: &str) -> Failure {
    let text = "confirmation required, but there is no terminal; nothing was changed";
    Failure::message(Code::Usage, text).hint(hint)
}

/// Prompts for a name that must be typed, unless the command line gives it or has `--yes`.
pub(crate) async fn confirm_name(
    context: &Context,
    what: &str,
    name: &str,
    given: Option<&str>,
) -> Result<bool, Failure> {
    if let Some(given) = given {
        if given != name {
            let text = format!("the cluster name is {name}, not {given}; nothing was changed");
            return Err(Failure::message(Code::Usage, text));
        }
        return Ok(true);
    }
    if context.settings.yes {
        return Ok(true);
    }
    if !is_terminal() {
        return Err(unconfirmed(&format!("pass --purge={name}")));
    }
    let (what, progress) = (what.to_owned(), context.progress.clone());
    let answer = tokio::task::spawn_blocking(move || {
        progress.suspend(|| dialoguer::Input::<String>::new().with_prompt(what).allow_empty(true).interact_text())
    })
    .await?;
    Ok(answer.transpose()?.is_some_and(|answer| answer == name))
}

/// Prompts for passphrases and passwords without showing them.
pub(crate) struct Prompt(pub(crate) Progress);

#[async_trait]
impl Ask for Prompt {
    async fn ask(&self, question: &Question, again: bool) -> Result<Zeroizing<String>, HostError> {
        if !is_terminal() {
            return Err(question.unanswered());
        }
        let what = match question {
            Question::Passphrase(file) => format!("Passphrase for {}", file.display()),
            Question::Sudo(user) => format!("sudo password for {user}"),
        };
        let what = if again { format!("Wrong, try again. {what}") } else { what };
        let progress = self.0.clone();
        let echo = Echo::keep();
        let answer = tokio::task::spawn_blocking(move || {
            progress.suspend(|| {
                // An empty answer is wrong and is reported as such.
                dialoguer::Password::new().with_prompt(what).allow_empty_password(true).report(false).interact()
            })
        })
        .await;
        drop(echo);
        let failed = |source| HostError::Broken { what: "read from the terminal".to_owned(), source };
        match answer {
            Ok(Some(Ok(answer))) => Ok(Zeroizing::new(answer)),
            Ok(Some(Err(dialoguer::Error::IO(source)))) => Err(failed(source)),
            Ok(None) => Err(question.unanswered()),
            Err(error) => Err(failed(std::io::Error::other(error))),
        }
    }
}

/// The terminal settings from before the open prompt turned off echo.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Restores the terminal when a prompt ends, however it ends.
struct Echo;

impl Echo {
    fn keep() -> Self {
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = tcgetattr(std::io::stdin()).ok();
        Echo
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        give_terminal_back();
    }
}

/// Restores the terminal if a prompt is open. Ctrl-C ends the process before the prompting task has finished. Without
/// an open prompt the terminal is left alone, because another process may be using it.
pub(crate) fn give_terminal_back() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A closed terminal needs no restoring.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &before);
    }
}

fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

//! How a command fails: an exit code, a chain of causes, a hint.
use std::fmt::Write as _;

use crate::cluster::LoadError;
use crate::host::HostError;
use crate::mesos::MesosError;

/// Exit codes, as the README lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// All is well.
    Ok = 0,
    /// The operation failed.
    Failed = 1,
    /// Wrong usage, or not confirmed.
    Usage = 2,
    /// A file or bundle is not in order.
    Invalid = 3,
    /// Some hosts failed.
    SomeHosts = 4,
    /// The cluster differs from the plan.
    Drifted = 5,
    /// Another run holds the lock.
    Locked = 6,
    /// Out of time.
    Timeout = 124,
    /// kmctl itself failed in `runonce`, where every other code is the pod's.
    Runonce = 125,
    /// Interrupted by the operator.
    Interrupted = 130,
}

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// `error` with an exit code of its own.
    pub fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Failure { code, error: error.into(), hint: None }
    }

    /// A failure that is told in one line.
    pub fn message(code: Code, text: impl Into<String>) -> Self {
        Failure { code, error: anyhow::Error::msg(text.into()), hint: None }
    }

    /// The same, with what the operator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with another exit code.
    #[must_use]
    pub fn coded(self, code: Code) -> Self {
        Failure { code, ..self }
    }

    /// The exit code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The whole chain in one line, and the hint.
    pub fn summary(&self) -> (String, Option<String>) {
        let hint = self.hint.as_deref().or_else(|| known_hint(&self.error));
        (format!("{:#}", self.error), hint.map(str::to_owned))
    }

    /// `error:`, `caused by:`, a blank line and `hint:`, ending in a line break.
    pub fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        for cause in self.error.chain().skip(1) {
            let _ = writeln!(text, "caused by: {cause}");
        }
        if let Some(hint) = self.hint.as_deref().or_else(|| known_hint(&self.error)) {
            let _ = write!(text, "\nhint: {hint}\n");
        }
        text
    }
}

/// What an error in the chain itself knows to say.
fn known_hint(error: &anyhow::Error) -> Option<&str> {
    let host = error.chain().find_map(|cause| cause.downcast_ref::<HostError>()).and_then(HostError::hint);
    host.or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<MesosError>()).and_then(MesosError::hint))
}

/// The code that an error in the chain itself implies.
fn known_code(error: &anyhow::Error) -> Code {
    if error.chain().any(|cause| cause.is::<LoadError>()) {
        return Code::Invalid;
    }
    Code::Failed
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        Failure { code: known_code(&error), error, hint: None }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_failure_tells_what_why_and_what_to_do() {
        let source = HostError::Authentication { what: "no key fits".to_owned(), hint: "run `ssh-add`".to_owned() };
        let failure: Failure = Err::<(), _>(source).context("connect to cp1").unwrap_err().into();
        let expected = "error: connect to cp1\ncaused by: no key fits\n\nhint: run `ssh-add`\n";
        assert_eq!(failure.render(), expected);
        assert_eq!(failure.code(), Code::Failed);
        assert!(failure.hint("other").render().ends_with("hint: other\n"));
    }

    #[test]
    fn an_invalid_file_ends_with_its_own_code() {
        let error = LoadError::Invalid { path: "c.yaml".into(), problems: Vec::new() };
        assert_eq!(Failure::from(error).code(), Code::Invalid);
    }
}

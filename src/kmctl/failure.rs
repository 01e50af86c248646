//! How a command fails: an exit code, a chain of causes, a hint.
use crate::host::HostError;
use kmctl_core::bundle::BundleError;
use kmctl_core::cluster::LoadError;
use kmctl_core::progress::{Progress, told};
use mesos::MesosError;

/// Exit codes, as docs/operations.md lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// The operation failed.
    Failed = 1,
    /// Wrong usage, or not confirmed.
    Usage = 2,
    /// A file or bundle is invalid.
    Invalid = 3,
    /// Some hosts failed.
    SomeHosts = 4,
    /// The cluster differs from the plan.
    Drifted = 5,
    /// Another run holds the lock.
    Locked = 6,
    /// The time limit was reached.
    Timeout = 124,
    /// kmctl itself failed in `runonce`, where every other code is the pod's.
    Runonce = 125,
    /// Interrupted by the operator.
    Interrupted = 130,
}

impl Code {
    /// All codes, with what they mean.
    pub const ALL: [(Code, &'static str); 10] = [
        (Code::Ok, "success"),
        (Code::Failed, "the operation failed"),
        (Code::Usage, "wrong usage, or not confirmed"),
        (Code::Invalid, "cluster.yaml, a manifest or the bundle is invalid"),
        (Code::SomeHosts, "some hosts failed"),
        (Code::Drifted, "the cluster no longer matches the saved plan"),
        (Code::Locked, "another command holds the lock of a host"),
        (Code::Timeout, "a time limit was exceeded"),
        (Code::Runonce, "`kmctl runonce` itself failed; its other codes are the pod's"),
        (Code::Interrupted, "interrupted by the operator"),
    ];
}

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    error: anyhow::Error,
    hint: Option<Hint>,
}

/// What the operator can do.
#[derive(Debug)]
enum Hint {
    /// Anything else.
    Text(String),
    /// Run `kmctl status`. That command itself does not print it.
    Status,
}

impl Hint {
    fn text(&self) -> &str {
        match self {
            Hint::Text(text) => text,
            Hint::Status => "check the cluster: kmctl status",
        }
    }
}

impl Failure {
    /// A failure with an explicit exit code.
    pub fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Failure { code, error: error.into(), hint: None }
    }

    /// A failure with a one-line message.
    pub fn message(code: Code, text: impl Into<String>) -> Self {
        Failure { code, error: anyhow::Error::msg(text.into()), hint: None }
    }

    /// Adds what the operator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(Hint::Text(hint.into()));
        self
    }

    /// Adds that `kmctl status` says more.
    #[must_use]
    pub fn hint_status(mut self) -> Self {
        self.hint = Some(Hint::Status);
        self
    }

    /// The same, without a reference to `kmctl status`.
    #[must_use]
    pub fn without_hint_status(mut self) -> Self {
        self.hint = self.hint.filter(|hint| !matches!(hint, Hint::Status));
        self
    }

    /// Changes the exit code.
    #[must_use]
    pub fn coded(self, code: Code) -> Self {
        Failure { code, ..self }
    }

    /// Adds what was attempted: the former error becomes its cause.
    #[must_use]
    pub fn context(self, what: String) -> Self {
        Failure { error: self.error.context(what), ..self }
    }

    pub fn code(&self) -> Code {
        self.code
    }

    /// The whole chain in one line, and the hint.
    pub fn summary(&self) -> (String, Option<String>) {
        (self.telling().join(": "), self.known_hint().map(str::to_owned))
    }

    /// The chain without uninformative messages added by HTTP clients.
    fn telling(&self) -> Vec<String> {
        const EMPTY: [&str; 2] = ["client error (Connect)", "ServiceError: client error (Connect)"];
        let chain = self.error.chain().map(ToString::to_string);
        chain.filter(|text| !EMPTY.contains(&text.as_str())).collect()
    }

    /// `error:`, `caused by:`, a blank line and `hint:`, ending in a line break.
    pub fn render(&self) -> String {
        told(&self.error.to_string(), &self.causes(), self.known_hint())
    }

    /// Reports the failure where progress is reported.
    pub fn tell(&self, progress: &Progress) {
        let hint = self.known_hint().map(str::to_owned);
        progress.error(self.code as u8, self.error.to_string(), self.causes(), hint);
    }

    fn causes(&self) -> Vec<String> {
        self.telling().into_iter().skip(1).collect()
    }

    fn known_hint(&self) -> Option<&str> {
        self.hint.as_ref().map(Hint::text).or_else(|| known_hint(&self.error))
    }
}

/// The hint that an error in the chain itself has.
fn known_hint(error: &anyhow::Error) -> Option<&str> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<HostError>() {
            let unreached = matches!(error, HostError::Connect { .. } | HostError::Timeout(_));
            error.hint().or(unreached.then_some("check that sshd runs on the host, and that you can log in with ssh"))
        } else if let Some(error) = cause.downcast_ref::<MesosError>() {
            error.hint()
        } else if let Some(LoadError::Read { source, .. }) = cause.downcast_ref() {
            let absent = source.kind() == std::io::ErrorKind::NotFound;
            absent.then_some("pass the configuration with -f FILE, or create one with `kmctl init`")
        } else if let Some(BundleError::NotABundle { .. } | BundleError::Mismatch { .. }) = cause.downcast_ref() {
            Some("create the bundle again with `kmctl bundle create`, or copy it again from its source")
        } else if let Some(BundleError::Incomplete { .. }) = cause.downcast_ref() {
            Some("add the missing files; hosts and nodes require them")
        } else {
            None
        }
    })
}

/// The code that an error in the chain itself implies.
fn known_code(error: &anyhow::Error) -> Code {
    if error.chain().any(|cause| cause.is::<LoadError>() || cause.is::<BundleError>()) {
        return Code::Invalid;
    }
    // An established connection that broke later is a failed operation. The other errors mean that the host was never
    // reached.
    let unreached = |error: &HostError| !matches!(error, HostError::Broken { .. } | HostError::Unsupported(_));
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(unreached) {
        return Code::SomeHosts;
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
        assert_eq!(failure.code(), Code::SomeHosts);
        assert!(failure.hint("other").render().ends_with("hint: other\n"));
    }

    #[test]
    fn the_reference_to_status_can_be_dropped_and_other_hints_cannot() {
        let hint = |failure: Failure| failure.without_hint_status().summary().1;
        assert_eq!(hint(Failure::message(Code::Failed, "x").hint_status()), None);
        assert_eq!(hint(Failure::message(Code::Failed, "x").hint("run it again")).as_deref(), Some("run it again"));
    }

    #[test]
    fn an_invalid_file_ends_with_its_own_code() {
        let error = LoadError::Invalid { path: "c.yaml".into(), problems: Vec::new() };
        assert_eq!(Failure::from(error).code(), Code::Invalid);
    }
}

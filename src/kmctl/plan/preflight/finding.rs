//! One thing that a check found.
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// `kmctl up` would fail, or what it builds would.
    Error,
    /// It works, but not as well as it should.
    Warning,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Whom it is about: a host, `mesos`, or agents.
    pub about: String,
    /// What is the case.
    pub text: String,
    /// What to do about it.
    pub cure: String,
}

impl Finding {
    /// Something that has to be cured first.
    pub fn error(about: &str, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Finding { level: Level::Error, about: about.to_owned(), text: text.into(), cure: cure.into() }
    }

    /// Something worth a thought.
    pub fn warning(about: &str, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Finding { level: Level::Warning, about: about.to_owned(), text: text.into(), cure: cure.into() }
    }
}

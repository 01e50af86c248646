//! A finding of a check.
use serde::Serialize;

/// How severe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// `kmctl up` would fail, or what it builds would.
    Error,
    /// It works, but not as well as it should.
    Warning,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How severe it is.
    pub level: Level,
    /// What it concerns: a host, `mesos`, or agents.
    pub about: String,
    /// The problem.
    pub text: String,
    /// What to do about it.
    pub cure: String,
}

impl Finding {
    /// Something that must be fixed first.
    pub fn error(about: &str, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Finding { level: Level::Error, about: about.to_owned(), text: text.into(), cure: cure.into() }
    }

    /// Something that should be considered.
    pub fn warning(about: &str, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Finding { level: Level::Warning, about: about.to_owned(), text: text.into(), cure: cure.into() }
    }
}

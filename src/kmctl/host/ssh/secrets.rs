//! Passphrases and passwords: requested when they are needed, once per run, and kept in memory only.
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::host::HostError;

/// How often a passphrase may be mistyped. OpenSSH allows as many.
const TRIES: usize = 3;

/// A secret, overwritten when the last copy of the handle is dropped.
pub type Secret = Arc<Zeroizing<String>>;

/// What the operator is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The passphrase of a private key.
    Passphrase(PathBuf),
    /// The password that sudo requires of this user, on every host.
    Sudo(String),
}

impl Question {
    /// The error if there is no terminal to ask on.
    pub fn unanswered(&self) -> HostError {
        match self {
            Question::Passphrase(file) => HostError::Authentication {
                what: format!("key {} requires a passphrase, but there is no terminal", file.display()),
                hint: format!("add the key to ssh-agent first: `eval $(ssh-agent)` and `ssh-add {}`", file.display()),
            },
            Question::Sudo(user) => HostError::Sudo {
                what: format!("sudo requires the password of {user}, but there is no terminal"),
                hint: format!(
                    "run as root on the hosts: `echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/kmctl`, \
                     and set ssh.sudo in cluster.yaml to nopasswd"
                ),
            },
        }
    }
}

/// Prompts the operator.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Prompts for the answer. `again` is true after a wrong answer.
    ///
    /// # Errors
    /// [`Question::unanswered`] if there is no terminal to ask on.
    async fn ask(&self, question: &Question, again: bool) -> Result<Zeroizing<String>, HostError>;
}

/// The answers of one run, shared by all its connections. Cheap to clone.
#[derive(Clone)]
pub struct Secrets(Arc<Inner>);

struct Inner {
    ask: Box<dyn Ask>,
    answers: Mutex<BTreeMap<Question, Answer>>,
}

struct Answer {
    secret: Secret,
    asked: usize,
}

impl Secrets {
    /// Prompts with `ask`.
    pub fn new(ask: impl Ask + 'static) -> Self {
        Secrets(Arc::new(Inner { ask: Box::new(ask), answers: Mutex::default() }))
    }

    /// Fails instead of prompting.
    pub fn none() -> Self {
        Secrets::new(Nobody)
    }

    /// The answer to `question`: an earlier one unless it is the `wrong` one, else the operator's. Other callers wait
    /// meanwhile. `None` if the operator has been asked often enough.
    pub(super) async fn answer(
        &self,
        question: &Question,
        wrong: Option<&Secret>,
    ) -> Result<Option<Secret>, HostError> {
        // Held while the operator types, so that no question is asked twice and no two questions are open at once.
        let mut answers = self.0.answers.lock().await;
        let asked = match answers.get(question) {
            Some(answer) if wrong.is_none_or(|wrong| !Arc::ptr_eq(wrong, &answer.secret)) => {
                return Ok(Some(answer.secret.clone()));
            }
            Some(answer) => answer.asked,
            None => 0,
        };
        if asked == TRIES {
            return Ok(None);
        }
        let secret = Arc::new(self.0.ask.ask(question, asked > 0).await?);
        answers.insert(question.clone(), Answer { secret: secret.clone(), asked: asked + 1 });
        Ok(Some(secret))
    }

    /// The passphrases that are known by now.
    pub(super) fn passphrases(&self) -> BTreeMap<PathBuf, Secret> {
        // A held lock means that the operator is being asked. A connection can start without waiting for that.
        let Ok(answers) = self.0.answers.try_lock() else { return BTreeMap::new() };
        let passphrase = |(question, answer): (&Question, &Answer)| match question {
            Question::Passphrase(file) => Some((file.clone(), answer.secret.clone())),
            Question::Sudo(_) => None,
        };
        answers.iter().filter_map(passphrase).collect()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

struct Nobody;

#[async_trait]
impl Ask for Nobody {
    async fn ask(&self, question: &Question, _: bool) -> Result<Zeroizing<String>, HostError> {
        Err(question.unanswered())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Counting(Arc<AtomicUsize>);

    #[async_trait]
    impl Ask for Counting {
        async fn ask(&self, _: &Question, again: bool) -> Result<Zeroizing<String>, HostError> {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Zeroizing::new(format!("{count} {again}")))
        }
    }

    #[tokio::test]
    async fn many_who_want_the_same_answer_ask_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let secrets = Secrets::new(Counting(count.clone()));
        let question = Question::Sudo("ops".to_owned());
        let all = futures::future::join_all((0..9).map(|_| secrets.answer(&question, None))).await;
        assert!(all.into_iter().all(|answer| answer.unwrap().unwrap().as_str() == "0 false"));
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_wrong_answer_is_asked_for_again_but_not_for_ever() {
        let secrets = Secrets::new(Counting(Arc::default()));
        let question = Question::Passphrase("k".into());
        let first = secrets.answer(&question, None).await.unwrap().unwrap();
        let second = secrets.answer(&question, Some(&first)).await.unwrap().unwrap();
        assert_eq!(second.as_str(), "1 true");
        // Another connection that still has the first answer gets the newer one without a question.
        let other = secrets.answer(&question, Some(&first)).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&second, &other));
        let third = secrets.answer(&question, Some(&second)).await.unwrap().unwrap();
        assert!(secrets.answer(&question, Some(&third)).await.unwrap().is_none());
        assert_eq!(secrets.passphrases().len(), 1);
        assert!(!format!("{secrets:?}").contains("true"));
    }
}

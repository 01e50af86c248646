//! Keys that need a passphrase.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::*;
use crate::host::ssh::{Ask, Question};

/// Answers in this order, and records the questions.
#[derive(Clone, Default)]
pub(super) struct Operator(Arc<Mutex<(VecDeque<&'static str>, Vec<String>)>>);

impl Operator {
    pub(super) fn who_says(answers: &[&'static str]) -> Self {
        Operator(Arc::new(Mutex::new((answers.iter().copied().collect(), Vec::new()))))
    }

    pub(super) fn asked(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }
}

#[async_trait]
impl Ask for Operator {
    async fn ask(&self, question: &Question, again: bool) -> Result<Zeroizing<String>, HostError> {
        let mut state = self.0.lock().unwrap();
        assert_eq!(again, !state.1.is_empty());
        state.1.push(format!("{question:?}"));
        let answer = state.0.pop_front().expect("the operator has no more to say");
        Ok(Zeroizing::new(answer.to_owned()))
    }
}

/// A server that accepts a key with the passphrase `secret`, and how to log in with it.
fn locked(kind: &str, format: &str, operator: &Operator) -> (Server, SshSettings) {
    let server = Server::start(&["ed25519"]);
    let path = server.path("locked");
    let mut make = Process::new("ssh-keygen");
    make.args(["-q", "-t", kind, "-m", format, "-N", "secret", "-C", "", "-f"]).arg(&path);
    assert!(make.status().unwrap().success());
    std::fs::copy(path.with_extension("pub"), server.path("authorized")).unwrap();
    let settings =
        SshSettings { identity_file: Some(path), secrets: Secrets::new(operator.clone()), ..server.settings() };
    (server, settings)
}

#[tokio::test]
async fn every_form_of_key_is_opened_with_its_passphrase() {
    for (kind, format) in [("ed25519", "RFC4716"), ("rsa", "RFC4716"), ("rsa", "PEM"), ("ecdsa", "PKCS8")] {
        let operator = Operator::who_says(&["secret"]);
        let (_server, settings) = locked(kind, format, &operator);
        connect(settings).await.unwrap_or_else(|error| panic!("{kind} {format}: {error}"));
        assert_eq!(operator.asked(), 1);
    }
}

#[tokio::test]
async fn the_passphrase_is_asked_for_once_for_all_hosts_and_all_their_connections() {
    let operator = Operator::who_says(&["secret"]);
    let (server, settings) = locked("ed25519", "RFC4716", &operator);
    let hosts = futures::future::join_all((0..5).map(|_| connect(settings.clone()))).await;
    let hosts: Vec<_> = hosts.into_iter().map(|host| host.unwrap()).collect();
    hosts[0].dial(echo().await).await.unwrap();
    assert_eq!(operator.asked(), 1);
    assert_eq!(server.log().matches("Accepted publickey").count(), 6);
}

#[tokio::test]
async fn a_wrong_passphrase_is_asked_for_again_three_times_in_all() {
    let operator = Operator::who_says(&["wrong", "secret"]);
    let (_server, settings) = locked("ed25519", "RFC4716", &operator);
    connect(settings).await.unwrap();
    assert_eq!(operator.asked(), 2);
    for (kind, format) in [("ed25519", "RFC4716"), ("rsa", "PEM"), ("ecdsa", "PKCS8")] {
        let operator = Operator::who_says(&["wrong", "", "Secret"]);
        let (server, settings) = locked(kind, format, &operator);
        let (what, hint) = refused(settings).await;
        assert_eq!(what, format!("wrong passphrase for {}", server.path("locked").display()));
        assert!(hint.contains("ssh-keygen -y -f") && !hint.contains("Secret"), "{hint}");
        assert_eq!(operator.asked(), 3);
    }
}

#[tokio::test]
async fn without_anybody_to_ask_the_way_out_is_an_agent() {
    let (server, settings) = locked("ed25519", "RFC4716", &Operator::default());
    let (what, hint) = refused(SshSettings { secrets: Secrets::none(), ..settings }).await;
    assert!(what.contains("locked requires a passphrase, but there is no terminal"), "{what}");
    assert!(hint.contains(&format!("ssh-add {}", server.path("locked").display())), "{hint}");
}

#[tokio::test]
async fn nobody_is_asked_for_the_passphrase_of_a_key_that_the_host_does_not_want() {
    for format in ["RFC4716", "PEM"] {
        let operator = Operator::default();
        let (server, settings) = locked("rsa", format, &operator);
        std::fs::write(server.path("authorized"), "").unwrap();
        let (what, _) = refused(settings).await;
        assert!(what.contains("locked: rejected"), "{what}");
        assert_eq!(operator.asked(), 0);
    }
}

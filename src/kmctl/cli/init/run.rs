//! Collects the answers, writes the file, and reads it back.
use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;

use super::ask::ask;
use super::write::{Answers, write};
use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use kmctl_core::cluster::{self, KubernetesSpec, Sudo};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    given: Given,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

/// What the flags say.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Given {
    /// Cluster name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Address of a Mesos master (repeatable)
    #[arg(long = "master", value_name = "HOST:PORT")]
    pub(super) masters: Vec<String>,
    /// Principal for Mesos authentication
    #[arg(long)]
    pub(super) principal: Option<String>,
    /// File with the principal's secret
    #[arg(long, value_name = "FILE", requires = "principal")]
    pub(super) secret_file: Option<String>,
    /// Control-plane host (repeatable)
    #[arg(long = "host", value_name = "[NAME=]ADDRESS")]
    pub(super) hosts: Vec<String>,
    /// SSH user [default: root]
    #[arg(long)]
    pub(super) user: Option<String>,
    /// How the SSH user becomes root: none, nopasswd, password
    #[arg(long, value_parser = sudo)]
    pub(super) sudo: Option<Sudo>,
    /// SSH private key
    #[arg(long, value_name = "FILE")]
    pub(super) identity_file: Option<String>,
    /// API server address for clients and nodes [default: the first host, port 6443]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) endpoint: Option<String>,
    /// Path to the bundle
    #[arg(long, value_name = "FILE")]
    pub(super) bundle: Option<String>,
}

fn sudo(text: &str) -> Result<Sudo, String> {
    match text {
        "none" => Ok(Sudo::None),
        "nopasswd" => Ok(Sudo::Nopasswd),
        "password" => Ok(Sudo::Password),
        _ => Err("must be none, nopasswd or password".to_owned()),
    }
}

/// The usual file name of a bundle of the tested version.
pub(super) fn usual_bundle() -> String {
    format!("./kubernetes-{}.bundle", KubernetesSpec::default().version)
}

/// Writes a cluster.yaml.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { given, force } = args;
    let file = &context.settings.file;
    if file.exists() && !force {
        let failure = Failure::message(Code::Usage, format!("{} already exists", file.display()));
        return Err(failure.hint("write another file with -f, or overwrite it with --force"));
    }
    let complete = !given.masters.is_empty() && !given.hosts.is_empty();
    let given = if complete {
        given
    } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        tokio::task::spawn_blocking(move || ask(given)).await?.context("failed to prompt for settings")?
    } else {
        let failure = Failure::message(Code::Usage, "--master and --host are required without a terminal");
        return Err(failure.hint("kmctl init --name NAME --master HOST:PORT --host NAME=ADDRESS"));
    };
    let text = write(&answers(given)?);
    let options = |options: &mut std::fs::OpenOptions| options.write(true).open(file);
    let mut opening = std::fs::OpenOptions::new();
    let opened = if force { options(opening.create(true).truncate(true)) } else { options(opening.create_new(true)) };
    let written = opened.and_then(|mut out| out.write_all(text.as_bytes()));
    written.with_context(|| format!("failed to write {}", file.display()))?;
    // A wrong address or name is reported as for any other file. The written file is kept, so that it can be corrected.
    let loaded = cluster::load(file)?;
    for advice in &loaded.advice {
        context.progress.note(&file.display().to_string(), advice);
    }
    context.stderr(&format!("Created {}\n\nNext:\n  kmctl -f {} check\n", file.display(), file.display()));
    Ok(Code::Ok)
}

fn answers(given: Given) -> Result<Answers, Failure> {
    let Given { name, masters, principal, secret_file, hosts, user, sudo, identity_file, endpoint, bundle } = given;
    let host = |(index, text): (usize, &String)| match text.split_once('=') {
        Some((name, address)) => (address.to_owned(), name.to_owned()),
        None => (text.clone(), format!("cp{}", index + 1)),
    };
    let hosts: Vec<(String, String)> = hosts.iter().enumerate().map(host).collect();
    let first = hosts.first().map(|(address, _)| address.clone()).unwrap_or_default();
    let first = if first.contains(':') { format!("[{first}]") } else { first };
    let (principal, secret_file) = (principal.unwrap_or_default(), secret_file.unwrap_or_default());
    if !principal.is_empty() && secret_file.is_empty() {
        let failure = Failure::message(Code::Usage, "--principal requires --secret-file");
        return Err(failure.hint("write only the secret to a file that only you can read"));
    }
    let user = user.unwrap_or_else(|| "root".to_owned());
    let sudo = sudo.unwrap_or(if user == "root" { Sudo::None } else { Sudo::Nopasswd });
    Ok(Answers {
        name: name.unwrap_or_else(|| "demo".to_owned()),
        masters,
        principal,
        secret_file,
        hosts,
        user,
        sudo,
        identity_file: identity_file.unwrap_or_default(),
        endpoint: endpoint.unwrap_or_else(|| format!("{first}:6443")),
        bundle: bundle.unwrap_or_else(usual_bundle),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_flag_says_follows_from_the_others() {
        let given = Given {
            masters: vec!["m:5050".to_owned()],
            hosts: vec!["10.0.0.11".to_owned(), "b=10.0.0.12".to_owned()],
            user: Some("ops".to_owned()),
            ..Given::default()
        };
        let answers = answers(given.clone()).unwrap();
        assert_eq!(answers.endpoint, "10.0.0.11:6443");
        assert_eq!(answers.sudo, Sudo::Nopasswd);
        let expected = [("10.0.0.11", "cp1"), ("10.0.0.12", "b")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(answers.hosts, expected);
        let without_file = Given { principal: Some("p".to_owned()), ..given };
        assert_eq!(super::answers(without_file).unwrap_err().code(), Code::Usage);
    }

    #[tokio::test]
    async fn a_file_is_written_once_and_can_be_loaded() {
        let folder = tempfile::TempDir::new().unwrap();
        let settings = crate::cli::Settings {
            file: folder.path().join("cluster.yaml"),
            output: crate::cli::OutputFormat::Text,
            out: None,
            yes: false,
            verbose: false,
            quiet: true,
            accept_new_host_keys: false,
            log_format: crate::cli::LogFormat::Text,
        };
        let context = Context::new(settings);
        let args = |force| Args {
            given: Given {
                masters: vec!["10.0.0.5:5050".to_owned()],
                hosts: vec!["10.0.0.11".to_owned()],
                ..Given::default()
            },
            force,
        };
        assert_eq!(run(args(false), &context).await.unwrap(), Code::Ok);
        assert_eq!(context.cluster().unwrap().cluster.spec.control_plane.hosts[0].name, "cp1");
        assert_eq!(run(args(false), &context).await.unwrap_err().code(), Code::Usage);
        assert_eq!(run(args(true), &context).await.unwrap(), Code::Ok);
    }
}

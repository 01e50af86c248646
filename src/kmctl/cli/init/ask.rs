//! Prompts for what the flags leave open.
use dialoguer::{Input, Select};

use super::run::Given;
use kmctl_core::cluster::Sudo;

/// Prompts for each answer, with the given or usual value as the default. Blocks.
pub(super) fn ask(given: Given) -> dialoguer::Result<Given> {
    let text = |prompt: &str, proposal: Option<String>| {
        let input = Input::<String>::new().with_prompt(prompt);
        match proposal {
            Some(proposal) => input.default(proposal).interact_text(),
            None => input.interact_text(),
        }
    };
    let optional = |prompt: &str, proposal: Option<String>| {
        Input::<String>::new()
            .with_prompt(prompt)
            .default(proposal.unwrap_or_default())
            .allow_empty(true)
            .interact_text()
    };
    let list =
        |text: String| text.split([',', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let joined = |list: &[String]| (!list.is_empty()).then(|| list.join(", "));
    let name = text("Cluster name", Some(given.name.unwrap_or_else(|| "demo".to_owned())))?;
    let masters = list(text("Mesos masters (HOST:PORT, comma-separated)", joined(&given.masters))?);
    let principal = optional("Mesos principal (empty: no authentication)", given.principal)?;
    let secret_file = if principal.is_empty() {
        None
    } else {
        Some(text("File with the secret of the principal", given.secret_file)?)
    };
    let hosts = list(text("Control-plane hosts (ADDRESS or NAME=ADDRESS, one or three)", joined(&given.hosts))?);
    let user = text("SSH user", Some(given.user.unwrap_or_else(|| "root".to_owned())))?;
    let ways = [Sudo::None, Sudo::Nopasswd, Sudo::Password];
    let sudo = if user == "root" {
        Sudo::None
    } else {
        let shown = ["not needed: the user is root", "sudo without a password", "sudo with a password (prompted once)"];
        let chosen = Select::new().with_prompt("How the user becomes root").items(shown).default(1).interact()?;
        ways.get(chosen).copied().unwrap_or(Sudo::None)
    };
    let bundle = text("Bundle", Some(given.bundle.unwrap_or_else(super::run::usual_bundle)))?;
    Ok(Given {
        name: Some(name),
        masters,
        principal: (!principal.is_empty()).then_some(principal),
        secret_file,
        hosts,
        user: Some(user),
        sudo: Some(sudo),
        bundle: Some(bundle),
        ..given
    })
}

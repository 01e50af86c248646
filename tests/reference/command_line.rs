//! docs/reference/command-line.md: what `--help` says, for all commands.
use std::fmt::Write as _;

use kmctl::cli::{Code, command};

use crate::{cell, page};

#[test]
fn command_line() {
    let mut text = "\
# Command line

Flags that every command takes come first. `kmctl help COMMAND` prints the same.
"
    .to_owned();
    let mut root = command();
    root.build();
    section(&root, &["kmctl".to_owned()], &mut text);
    text.push_str("\n## Exit codes\n\n| code | meaning |\n| --- | --- |\n");
    for (code, meaning) in Code::ALL {
        writeln!(text, "| {} | {} |", code as u8, cell(meaning)).expect("a string");
    }
    page("command-line.md", &text);
}

/// A command with its arguments, and then its subcommands.
fn section(command: &clap::Command, path: &[String], text: &mut String) {
    let name = path.join(" ");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    write!(text, "\n## {name}\n\n{about}.\n").expect("a string");
    let is_root = path.len() == 1;
    let arguments = command.get_arguments().filter(|argument| {
        let standard = ["help", "version"].contains(&argument.get_id().as_str());
        !argument.is_hide_set() && !standard && (is_root || !argument.is_global_set())
    });
    let rows: Vec<String> = arguments.map(row).collect();
    if !rows.is_empty() {
        write!(text, "\n| argument | default | meaning |\n| --- | --- | --- |\n{}", rows.concat()).expect("a string");
    }
    for command in command.get_subcommands().filter(|command| command.get_name() != "help" && !command.is_hide_set()) {
        let path = [path, &[command.get_name().to_owned()]].concat();
        section(command, &path, text);
    }
}

fn row(argument: &clap::Arg) -> String {
    let values: Vec<String> = argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let takes_value = argument.get_action().takes_values();
    let value = if takes_value && !values.is_empty() { values.join(" ") } else { String::new() };
    let name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long} {value}"),
        (Some(short), None) => format!("-{short} {value}"),
        (None, Some(long)) => format!("--{long} {value}"),
        (None, None) => value,
    };
    let choices: Vec<String> = match argument.get_possible_values().as_slice() {
        values if takes_value => values.iter().map(|value| format!("`{}`", value.get_name())).collect(),
        _ => Vec::new(),
    };
    let mut about = argument.get_help().map(ToString::to_string).unwrap_or_default();
    if !choices.is_empty() {
        about = format!("{about} (one of {})", choices.join(", "));
    }
    if let Some(variable) = argument.get_env() {
        about = format!("{about} (environment: `{}`)", variable.to_string_lossy());
    }
    let default: Vec<String> = argument
        .get_default_values()
        .iter()
        .filter(|_| takes_value)
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    format!("| `{}` | {} | {} |\n", name.trim(), cell(&default.join(" ")), cell(&about))
}

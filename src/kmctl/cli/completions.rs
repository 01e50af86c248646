//! `kmctl completions`: what a shell needs to complete commands and flags.
use clap_complete::Shell;

use super::arguments::command;
use super::context::Context;
use crate::failure::{Code, Failure};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Shell to generate for
    #[arg(value_enum)]
    shell: For,
}

/// Shells that are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum For {
    /// `source <(kmctl completions bash)`
    Bash,
    /// `kmctl completions zsh > "${fpath[1]}/_kmctl"`
    Zsh,
    /// `kmctl completions fish > ~/.config/fish/completions/kmctl.fish`
    Fish,
}

/// Prints the script.
pub fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { shell } = args;
    context.stdout(&script(shell))?;
    Ok(Code::Ok)
}

fn script(shell: For) -> String {
    let shell = match shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "kmctl", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_completed_in_every_shell() {
        for shell in [For::Bash, For::Zsh, For::Fish] {
            let text = script(shell);
            for command in command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell:?} does not know {}", command.get_name());
            }
            assert!(text.contains("dry-run") && text.contains("log-format"), "{shell:?}");
        }
    }

    #[test]
    fn bash_understands_its_script_and_completes_with_it() {
        let script = script(For::Bash)
            + "\nCOMP_WORDS=(kmctl sca); COMP_CWORD=1; _kmctl kmctl sca kmctl; echo \"${COMPREPLY[@]}\"\n";
        let output = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "scale",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

//! Argument lists as one line for a POSIX shell.

/// Quotes one argument so that a POSIX shell passes it on unchanged.
pub fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// Joins arguments into one command line.
pub fn command_line<S: AsRef<str>>(argv: &[S]) -> String {
    argv.iter().map(|argument| quote(argument.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gives_every_argument_back_unchanged() {
        let arguments =
            ["plain", "", "two words", "it's", "$HOME", "`id`", "a\nb", "*", "~", "!x", "\\", "\"", "é", "-n"];
        let line = format!("printf '%s\\0' {}", command_line(&arguments));
        let output = std::process::Command::new("sh").arg("-c").arg(line).output().unwrap();
        let seen: Vec<_> = output.stdout.split(|b| *b == 0).map(|b| String::from_utf8_lossy(b).into_owned()).collect();
        assert_eq!(&seen[..arguments.len()], &arguments);
    }
}

//! What a run of `kmctl` printed, as a file under `golden/`. What differs from run to run is taken out here, and
//! nowhere else.
use std::fmt;
use std::path::Path;

/// A run, word for word.
pub struct Run {
    /// As it was typed.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: i32,
}

/// A run that is over.
pub struct Transcript {
    /// Exit code.
    pub code: i32,
    text: String,
    folder: String,
}

/// Pattern and what stands for it.
const VARYING: [(&str, &str); 15] = [
    // A step that takes long says so; how many do depends on the machine.
    (r"(?m)^  .* … (?:\d+[hms])+(: .*)?\n", ""),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:<fingerprint>"),
    (r"[0-9a-f]{64}", "<sha256>"),
    (r#""[0-9a-f]{32}""#, "\"<cluster id>\""),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[A-Z]\d+)?", "<id>"),
    (r"process \d+ on the host", "process <pid> on the host"),
    (r"\d+ CPU, [0-9.]+ GiB memory, [0-9.]+ GiB free", "<n> CPU, <n> GiB memory, <n> GiB free"),
    (r"((?:authority|certificate|key)-data): [>|]?-?\s*\S+", "$1: <base64>"),
    (r"(?m)^([ ]*\S+-data: <base64>\n)(\s+[A-Za-z0-9+/=]{40,}\n)+", "$1"),
    (r"kmctl \d+\.\d+\.\d+", "kmctl <version>"),
    (r#"\{\n  "version": "[0-9.]+"\n\}"#, "{\n  \"version\": \"<version>\"\n}"),
    (r"\.tmp[A-Za-z0-9]{6}", "<temporary>"),
    (r"(?m)( changed, \d+ unchanged, )(?:\d+m)?[0-9.]+s$", "$1<duration>"),
    (
        r"(?m)^took (?:\d+m)?[0-9.]+s, of which (?:\d+m)?[0-9.]+s (on|waiting for) .*$",
        "took <duration>, of which <duration> $1 <host and stage>",
    ),
];

impl Transcript {
    /// Of a run in `folder`.
    pub fn new(folder: &Path, run: Run) -> Transcript {
        let Run { command, stdout, stderr, code } = run;
        let part = |name: &str, text: &str| match text {
            "" => String::new(),
            text if text.ends_with('\n') => format!("--- {name}\n{text}"),
            text => format!("--- {name}\n{text}\n(no line break)\n"),
        };
        let (out, err) = (part("standard output", &stdout), part("standard error", &stderr));
        let text = format!("$ {command}\n{out}{err}--- exit code {code}\n");
        Transcript { code, text, folder: folder.display().to_string() }
    }

    /// Compares with `golden/NAME.snap`.
    #[track_caller]
    pub fn golden(&self, name: &str) {
        let folder = self.folder.replace('.', r"\.");
        let mut filters = vec![(folder.as_str(), "<folder>")];
        filters.extend(VARYING);
        insta::with_settings!({
            snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true, filters => filters,
        }, {
            insta::assert_snapshot!(name, self.text);
        });
    }
}

/// Compares a text with `golden/NAME.snap` to the letter.
#[track_caller]
pub fn golden_text(name: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true,
    }, {
        insta::assert_snapshot!(name, text);
    });
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

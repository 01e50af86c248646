//! Finds the source of a log and prints its lines.
use std::ffi::{OsStr, OsString};

use super::source::{Source, Wanted};
use super::{component, node, pod};
use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use crate::inventory::units::UNITS;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// A component (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, km-scheduler, km-endpoints), `node`, or
    /// `task`
    #[arg(value_name = "COMPONENT|node|task")]
    what: String,
    /// Name of the node or task
    name: Option<String>,
    /// Stream new log lines (-f, unless a file name follows it)
    #[arg(long)]
    follow: bool,
    /// Number of recent lines to print
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    lines: usize,
    /// Log of a node: stderr or stdout of its agent, kubelet.log, containerd.log or kube-proxy.log
    #[arg(long, default_value = "stderr", value_name = "FILE")]
    of: String,
    /// Only this control-plane host (components)
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only this container (pod tasks)
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
}

/// Makes `-f` after `logs` mean `--follow`, which is what users expect there, unless the next word is a file.
/// Everywhere else `-f` names cluster.yaml. `is_file` decides whether a word is a file.
pub(crate) fn follow_flag(arguments: Vec<OsString>, is_file: impl Fn(&OsStr) -> bool) -> Vec<OsString> {
    let Some(logs) = arguments.iter().position(|word| word == "logs") else { return arguments };
    let names_file = |index: usize| arguments.get(index + 1).is_some_and(|next| is_file(next));
    let word = |(index, word): (usize, &OsString)| {
        if index > logs && word == "-f" && !names_file(index) { OsString::from("--follow") } else { word.clone() }
    };
    arguments.iter().enumerate().map(word).collect()
}

/// Whether a word after `-f` is a cluster.yaml.
pub(crate) fn is_file(word: &OsStr) -> bool {
    let known = word == "node" || word == "task" || UNITS.iter().any(|unit| word == *unit);
    !known && std::path::Path::new(word).is_file()
}

/// Prints a log.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { what, name, follow, lines, of, host, container } = args;
    if context.settings.out.is_some() {
        let failure = Failure::message(Code::Usage, "--out is not supported by logs");
        return Err(failure.hint("redirect standard output: > FILE"));
    }
    let source = Source::read(&what, name.as_deref())?;
    let wanted = Wanted { follow, lines, file: of, host, container };
    let loaded = context.cluster()?;
    match &source {
        Source::Component(unit) => component::show(context, &loaded, unit, &wanted).await?,
        Source::Node(_) | Source::Sweep(_) => node::show(context, &loaded, &source, &wanted).await?,
        Source::Pod { namespace, name } => pod::show(context, &loaded, namespace, name, &wanted).await?,
    }
    Ok(Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_logs_f_follows_unless_a_file_stands_behind_it() {
        let cases = [
            ("kmctl logs etcd -f", "kmctl logs etcd --follow"),
            ("kmctl logs -f etcd", "kmctl logs --follow etcd"),
            ("kmctl logs node a -f c.yaml", "kmctl logs node a -f c.yaml"),
            ("kmctl logs node a -f -n 3 -f c.yaml", "kmctl logs node a --follow -n 3 -f c.yaml"),
            ("kmctl -f c.yaml logs etcd", "kmctl -f c.yaml logs etcd"),
            ("kmctl status -f x", "kmctl status -f x"),
        ];
        for (given, expected) in cases {
            let words = given.split(' ').map(OsString::from).collect();
            let seen = follow_flag(words, |word| word == "c.yaml");
            assert_eq!(seen.join(OsStr::new(" ")), expected, "{given}");
        }
        assert!(!is_file(OsStr::new("etcd")) && is_file(OsStr::new("Cargo.toml")));
    }
}

//! The outcome of every host, as a table.
use std::fmt::Write as _;

use crate::apply::{HostOutcome, HostState, Report, shown};

/// The table, and the longest path.
pub(crate) fn table(report: &Report) -> String {
    let width = report.hosts.iter().map(|host| host.host.len()).max().unwrap_or_default();
    let mut text = String::new();
    for outcome in &report.hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:width$}  {}", outcome.host, line(outcome));
    }
    if let Some(path) = &report.critical_path {
        let _ = writeln!(text, "took {path}");
    }
    text
}

fn line(outcome: &HostOutcome) -> String {
    let HostOutcome { host: _, state, counts, took, error } = outcome;
    match state {
        HostState::Unchanged => "unchanged".to_owned(),
        HostState::Done => {
            format!("done       {} changed, {} unchanged, {}", counts.changed, counts.unchanged, shown(*took))
        }
        HostState::Failed => {
            let why = error.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("error      {}", why.lines().next().unwrap_or_default())
        }
        HostState::Skipped(why) => format!("skipped    {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::apply::{ApplyError, Counts, CriticalPath};

    #[test]
    fn every_outcome_has_a_line_and_the_longest_part_is_named() {
        let outcome = |host: &str, state, error| HostOutcome {
            host: host.to_owned(),
            state,
            counts: Counts { changed: 12, unchanged: 45 },
            took: Duration::from_secs(100),
            error,
        };
        let error = ApplyError::Refused { what: "install km", host: "cp3".to_owned(), answer: "no space".to_owned() };
        let report = Report {
            hosts: vec![
                outcome("cp1", HostState::Done, None),
                outcome("cp2", HostState::Unchanged, None),
                outcome("cp3", HostState::Failed, Some(error)),
                outcome("long-name", HostState::Skipped("depends on cp3, which failed".to_owned()), None),
            ],
            departed: 0,
            critical_path: Some(CriticalPath {
                total: Duration::from_secs(130),
                longest: (Duration::from_secs(100), "on cp2 uploading".to_owned()),
            }),
        };
        insta::assert_snapshot!(table(&report), @r"
        cp1        done       12 changed, 45 unchanged, 1m40s
        cp2        unchanged
        cp3        error      failed to install km on cp3: no space
        long-name  skipped    depends on cp3, which failed
        took 2m10s, of which 1m40s on cp2 uploading
        ");
    }
}

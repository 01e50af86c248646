//! `km mesos state`: frameworks, agents and tasks, as a table or as JSON.
use std::collections::BTreeMap;
use std::io::Write;

use super::CommandError;
use super::connection::Connection;
use mesos::operator::{Operator, State};
use mesos::types::{Resource, ValueType};

/// Options of `km mesos state`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { connection, output } = arguments;
    let operator = Operator::leading(&connection.masters()?).await?;
    let text = match output {
        // Printed unchanged: a consumer of the JSON may need fields that this program does not know.
        Output::Json => {
            let state: serde_json::Value = operator.ask("GET_STATE").await?;
            format!("{state:#}\n")
        }
        Output::Table => table(&operator.state().await?),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(CommandError::Output)
}

/// The whole state as tables.
fn table(state: &State) -> String {
    let mut frameworks = vec![row(["FRAMEWORK", "NAME", "ROLES", "STATE", "USED", "OFFERED"])];
    for framework in &state.get_frameworks.frameworks {
        let info = &framework.framework_info;
        let connection = match (framework.connected, framework.active) {
            (true, true) => "active",
            (true, false) => "inactive",
            (false, _) => "disconnected",
        };
        frameworks.push(row([
            info.id.as_ref().map_or("", |id| id.as_str()),
            &info.name,
            &info.roles.join(","),
            connection,
            &amounts(&framework.allocated_resources),
            &amounts(&framework.offered_resources),
        ]));
    }
    let mut agents = vec![row(["AGENT", "HOSTNAME", "ZONE", "TOTAL", "USED", "OFFERED"])];
    for agent in &state.get_agents.agents {
        let info = &agent.agent_info;
        let domain = info.domain.as_ref().and_then(|domain| domain.fault_domain.as_ref());
        agents.push(row([
            info.id.as_ref().map_or("", |id| id.as_str()),
            &info.hostname,
            &domain.map_or("-".to_owned(), |domain| format!("{}/{}", domain.region.name, domain.zone.name)),
            &amounts(&agent.total_resources),
            &amounts(&agent.allocated_resources),
            &amounts(&agent.offered_resources),
        ]));
    }
    let mut tasks = vec![row(["TASK", "NAME", "FRAMEWORK", "AGENT", "STATE", "RESOURCES"])];
    let hostnames: BTreeMap<_, _> = state
        .get_agents
        .agents
        .iter()
        .filter_map(|agent| Some((agent.agent_info.id.clone()?, agent.agent_info.hostname.clone())))
        .collect();
    for task in &state.get_tasks.tasks {
        tasks.push(row([
            task.task_id.as_str(),
            &task.name,
            task.framework_id.as_str(),
            hostnames.get(&task.agent_id).map_or(task.agent_id.as_str(), String::as_str),
            task.state.as_str(),
            &amounts(&task.resources),
        ]));
    }
    [frameworks, agents, tasks].map(|rows| align(&rows)).join("\n")
}

fn row(cells: [&str; 6]) -> [String; 6] {
    cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell.to_owned() })
}

fn align(rows: &[[String; 6]]) -> String {
    let widths: Vec<usize> =
        (0..6).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Sums by name: `cpus:0.75;mem:644`. Ports are counted.
fn amounts(resources: &[Resource]) -> String {
    let mut sums = BTreeMap::<&str, f64>::new();
    for resource in resources {
        let amount = match resource.kind {
            ValueType::Ranges => resource.intervals().map(|(begin, end)| (end - begin + 1) as f64).sum(),
            _ => resource.amount(),
        };
        *sums.entry(&resource.name).or_default() += amount;
    }
    // Mesos' numbers have three decimals; sums of them may show more.
    let shown = sums.into_iter().filter(|(_, sum)| *sum > 0.0);
    shown.map(|(name, sum)| format!("{name}:{}", (sum * 1000.0).round() / 1000.0)).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_summed_by_name() {
        let resources = [
            Resource::scalar("mem", 64.0),
            Resource::scalar("cpus", 0.1),
            Resource::scalar("cpus", 0.2),
            Resource::scalar("disk", 0.0),
            Resource::ranges("ports", [(31000, 31009), (31020, 31020)]),
        ];
        assert_eq!(amounts(&resources), "cpus:0.3;mem:64;ports:11");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(["A", "B", "C", "D", "E", "F"]), row(["long", "", "c", "d", "e", "f"])];
        assert_eq!(align(&rows), "A     B  C  D  E  F\nlong  -  c  d  e  f\n");
    }
}

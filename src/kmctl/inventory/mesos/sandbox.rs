//! Reads what executors wrote into their sandboxes, through the files API of their agents.
use serde::Deserialize;

use mesos::MesosError;
use mesos::operator::Endpoints;

use super::facts::Agent;

/// The most that is read at once, in bytes.
pub const CHUNK: u64 = 64 << 10;

/// An executor's sandbox on its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The agent's address, `10.0.0.21:5051`.
    pub address: String,
    /// The executor's id.
    pub executor: String,
    /// The directory, as named by the agent.
    pub directory: String,
    /// Whether the executor has ended.
    pub ended: bool,
}

/// A piece of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Chunk {
    pub data: String,
    /// Where it starts, or the file's size if no data was requested.
    #[serde(default)]
    pub offset: u64,
}

/// A file in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct File {
    /// The absolute path.
    pub path: String,
    /// Size in bytes.
    #[serde(default)]
    pub size: f64,
    /// File mode, as `drwxr-xr-x`.
    #[serde(default)]
    pub mode: String,
}

/// Sandboxes of a framework's executors on an agent, those that run last.
pub async fn sandboxes(mesos: &Endpoints, agent: &Agent, framework: &str) -> Result<Vec<Sandbox>, MesosError> {
    let state: wire::State = mesos.at(&agent.address, &format!("/{}/state", agent.process)).await?;
    Ok(state.sandboxes(&agent.address, framework))
}

/// Files in a sandbox.
pub async fn browse(mesos: &Endpoints, sandbox: &Sandbox) -> Result<Vec<File>, MesosError> {
    mesos.at(&sandbox.address, &format!("/files/browse?path={}", encode(&sandbox.directory))).await
}

/// The size of a file, in bytes.
pub async fn size(mesos: &Endpoints, sandbox: &Sandbox, file: &str) -> Result<u64, MesosError> {
    let path = encode(&format!("{}/{file}", sandbox.directory));
    // The answer to a negative offset is the size.
    let chunk: Chunk = mesos.at(&sandbox.address, &format!("/files/read?path={path}&offset=-1")).await?;
    Ok(chunk.offset)
}

/// Reads up to `length` bytes of a file from `offset`, at most [`CHUNK`]. A character that is cut off is replaced.
pub async fn read(
    mesos: &Endpoints,
    sandbox: &Sandbox,
    file: &str,
    offset: u64,
    length: u64,
) -> Result<Chunk, MesosError> {
    let path = encode(&format!("{}/{file}", sandbox.directory));
    mesos.at(&sandbox.address, &format!("/files/read?path={path}&offset={offset}&length={length}")).await
}

/// Encodes a value for a URL's query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

mod wire {
    use super::{Deserialize, Sandbox};

    #[derive(Deserialize)]
    pub(super) struct State {
        #[serde(default)]
        frameworks: Vec<Framework>,
        #[serde(default)]
        completed_frameworks: Vec<Framework>,
    }

    #[derive(Deserialize)]
    struct Framework {
        id: String,
        #[serde(default)]
        executors: Vec<Executor>,
        #[serde(default)]
        completed_executors: Vec<Executor>,
    }

    #[derive(Deserialize)]
    struct Executor {
        id: String,
        #[serde(default)]
        directory: String,
    }

    impl State {
        pub(super) fn sandboxes(self, address: &str, framework: &str) -> Vec<Sandbox> {
            let ours = self.completed_frameworks.into_iter().chain(self.frameworks).filter(|one| one.id == framework);
            let mut all = Vec::new();
            for Framework { executors, completed_executors, .. } in ours {
                let sandbox = |executor: Executor, ended| Sandbox {
                    address: address.to_owned(),
                    executor: executor.id,
                    directory: executor.directory,
                    ended,
                };
                all.extend(completed_executors.into_iter().map(|executor| sandbox(executor, true)));
                all.extend(executors.into_iter().map(|executor| sandbox(executor, false)));
            }
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_of_the_framework_are_found_also_after_their_end() {
        let state: wire::State = serde_json::from_value(serde_json::json!({
            "frameworks": [
                {"id": "F", "executors": [{"id": "agent1.00000002", "directory": "/d/2"}],
                 "completed_executors": [{"id": "agent1.00000001", "directory": "/d/1"}]},
                {"id": "G", "executors": [{"id": "other", "directory": "/d/9"}]},
            ],
        }))
        .unwrap();
        let found = state.sandboxes("http://a:5051", "F");
        let seen: Vec<_> = found.iter().map(|one| (one.executor.as_str(), one.directory.as_str(), one.ended)).collect();
        assert_eq!(seen, [("agent1.00000001", "/d/1", true), ("agent1.00000002", "/d/2", false)]);
    }

    #[test]
    fn paths_go_into_urls_without_changing_their_meaning() {
        assert_eq!(encode("/var/lib/mesos/slaves/a-S0/x y&z=%"), "/var/lib/mesos/slaves/a-S0/x%20y%26z%3D%25");
    }
}

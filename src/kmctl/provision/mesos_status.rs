//! The state of Mesos, for the last lines of `up`.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::clients;
use crate::host::Host;
use crate::inventory::mesos;
use crate::plan::preflight::eligible;
use kmctl_core::cluster::Loaded;
use kmctl_core::text::duration;

/// How long the query may take: the last lines of `up` justify a short wait, but not a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state of Mesos, as far as this run knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MesosStatus {
    /// It was not queried: that would take another command on the host, and a run that changes nothing inspects each
    /// host once.
    Unasked,
    /// How many agents can become nodes, and how many agents there are.
    Answers(usize, usize),
    /// It does not answer. Holds the reason.
    Away(String),
}

/// Queries Mesos through the first host that is reached, while the others are still being reached and inspected.
pub(super) async fn query_through_first(mut first: mpsc::Receiver<Arc<dyn Host>>, loaded: Loaded) -> MesosStatus {
    let host = first.recv().await;
    query(&loaded, host).await
}

pub(super) async fn query(loaded: &Loaded, host: Option<Arc<dyn Host>>) -> MesosStatus {
    let spec = &loaded.cluster.spec.mesos;
    let Some(host) = host.filter(|_| spec.principal.is_empty() || Path::new(&spec.secret_file).exists()) else {
        return MesosStatus::Unasked;
    };
    let read = async {
        let client = clients::mesos(host, loaded).await.map_err(|failure| failure.summary().0)?;
        let agents = mesos::agents(&client).await;
        agents.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(agents)) => {
            let fit = eligible(&loaded.cluster, &agents).count();
            MesosStatus::Answers(fit, agents.len())
        }
        Ok(Err(why)) => MesosStatus::Away(why),
        Err(_) => MesosStatus::Away(format!("no response within {}", duration(PATIENCE))),
    }
}

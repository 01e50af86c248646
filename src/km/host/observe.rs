//! Compares a host with its manifest. Nothing is changed.
use std::fs;

use jiff::Timestamp;

use super::files::Root;
use super::items::{founder, on_host};
use super::run::Inspection;
use super::{AgentError, etcd, etcd_data, identity, lock, units};
use kmctl_core::protocol::host::{ETCD, FORMAT, HostManifest, Item, KM, LIBRARY, Observation, Observations};

pub(crate) fn observe(root: &Root, manifest: &HostManifest, now: Timestamp) -> Result<Observations, AgentError> {
    let mut host = Inspection::new(root, now);
    let names: Vec<String> = manifest.items.iter().filter_map(Item::unit).map(|spec| spec.name.clone()).collect();
    host.units = units::states(root, &names)?;
    let etcd_runs = host.units.get(ETCD).is_some_and(|state| state.active == "active");
    host.members = manifest.member().filter(|_| etcd_runs).map(|member| etcd::list(root, member));
    let mut items = Vec::new();
    for item in &manifest.items {
        let observed = on_host(item).observe(&mut host)?;
        let unit = item.unit().and_then(|spec| host.units.get(&spec.name).cloned());
        items.push(Observation { name: item.name(), observed, unit });
    }
    let mut versions: Vec<String> = fs::read_dir(root.at(LIBRARY))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("manifest.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    versions.sort();
    Ok(Observations {
        format: FORMAT,
        hostname: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        km: host.digests.of(root, KM)?,
        lock: lock::holder(root),
        ownership: identity::read(root)?,
        etcd_data: etcd_data::read(root)?,
        versions,
        members: host.members.and_then(Result::ok).unwrap_or_default(),
        founder: founder::read(root)?,
        items,
    })
}

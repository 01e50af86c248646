//! Whose the hosts are: nothing is planned for a host of another cluster, or one that another tool uses.
use std::collections::BTreeMap;

use super::error::PlanError;
use crate::inventory::Found;
use kmctl_core::protocol::host::{HostManifest, HostMark};

/// The cluster's id, as its hosts have it.
///
/// `None` if no host has one: the run that creates the cluster creates the id.
///
/// # Errors
/// A host is not this cluster's, or hosts with data have different ids.
pub fn identify(hosts: &[(HostManifest, Found)], known: Option<&str>) -> Result<Option<String>, PlanError> {
    for (manifest, found) in hosts {
        found.ownership().judge(&manifest.cluster, &manifest.host)?;
    }
    let marked = || hosts.iter().filter_map(|(manifest, found)| Some((manifest, found, mark(found)?)));
    let mut with_data = marked().filter(|(manifest, found, _)| found.has_etcd_data(manifest));
    if let Some(known) = known {
        return match with_data.find(|(.., mark)| mark.id != known) {
            Some((manifest, _, mark)) => Err(PlanError::TwoIds {
                cluster: manifest.cluster.clone(),
                hosts: vec![manifest.host.clone()],
                ids: [mark.id.clone(), known.to_owned()],
            }),
            None => Ok(Some(known.to_owned())),
        };
    }
    if let Some((first, _, mark)) = with_data.next() {
        return match with_data.find(|(.., other)| other.id != mark.id) {
            Some((other, _, found)) => Err(PlanError::TwoIds {
                cluster: first.cluster.clone(),
                hosts: vec![first.host.clone(), other.host.clone()],
                ids: [mark.id.clone(), found.id.clone()],
            }),
            None => Ok(Some(mark.id.clone())),
        };
    }
    // No data depends on an id yet. The one that most hosts have needs the fewest changes; of several, the first.
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (.., mark) in marked() {
        *counts.entry(&mark.id).or_default() += 1;
    }
    let most = counts.values().max().copied();
    Ok(marked().find(|(.., mark)| counts.get(mark.id.as_str()).copied() == most).map(|(.., mark)| mark.id.clone()))
}

/// The id on a host without data that the cluster's id replaces.
pub(super) fn replaced(manifest: &HostManifest, found: &Found, id: Option<&str>) -> Option<String> {
    let mark = mark(found).filter(|_| !found.has_etcd_data(manifest))?;
    (id != Some(mark.id.as_str())).then(|| mark.id.clone())
}

fn mark(found: &Found) -> Option<&HostMark> {
    found.ownership().mark.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Bare;
    use kmctl_core::protocol::host::{EtcdData, FORMAT, MARK_FORMAT, Ownership};

    fn host(name: &str, id: Option<&str>, data: bool) -> (HostManifest, Found) {
        let manifest = HostManifest {
            format: FORMAT,
            cluster: "demo".to_owned(),
            host: name.to_owned(),
            version: "v1.37.2".to_owned(),
            items: Vec::new(),
        };
        let mark = id.map(|id| HostMark {
            format: MARK_FORMAT,
            cluster: "demo".to_owned(),
            id: id.to_owned(),
            member: name.to_owned(),
        });
        let etcd_data = EtcdData { wal: data, ..EtcdData::default() };
        let ownership = Ownership { mark, ..Ownership::default() };
        (manifest, Found::Bare(Bare { ownership, etcd_data, ..Bare::default() }))
    }

    #[test]
    fn new_hosts_have_no_id_and_take_that_of_the_others() {
        assert_eq!(identify(&[host("cp1", None, false)], None), Ok(None));
        let hosts = [host("cp1", Some("1"), true), host("cp2", None, false)];
        assert_eq!(identify(&hosts, None), Ok(Some("1".to_owned())));
        assert_eq!(identify(&[host("cp2", None, false)], Some("1")), Ok(Some("1".to_owned())));
    }

    #[test]
    fn hosts_with_data_must_agree() {
        let error = identify(&[host("cp1", Some("1"), true), host("cp2", Some("2"), true)], None).unwrap_err();
        assert!(matches!(error, PlanError::TwoIds { .. }), "{error}");
        let error = identify(&[host("cp2", Some("2"), true)], Some("1")).unwrap_err();
        assert!(matches!(error, PlanError::TwoIds { .. }), "{error}");
    }

    #[test]
    fn an_id_without_data_gives_way() {
        let hosts = [host("cp1", Some("1"), false), host("cp2", Some("2"), true)];
        assert_eq!(identify(&hosts, None), Ok(Some("2".to_owned())));
        assert_eq!(replaced(&hosts[0].0, &hosts[0].1, Some("2")), Some("1".to_owned()));
        assert_eq!(replaced(&hosts[1].0, &hosts[1].1, Some("2")), None);
        let hosts = [host("cp1", Some("1"), false), host("cp2", Some("2"), false), host("cp3", Some("2"), false)];
        assert_eq!(identify(&hosts, None), Ok(Some("2".to_owned())), "what most hosts have");
    }

    #[test]
    fn a_host_of_another_cluster_ends_the_planning() {
        let (mut manifest, found) = host("cp1", Some("1"), true);
        manifest.cluster = "copied".to_owned();
        let error = identify(&[(manifest, found)], None).unwrap_err();
        assert_eq!(error.to_string(), "cp1 belongs to cluster demo, not to copied");
    }
}

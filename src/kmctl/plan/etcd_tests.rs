//! Which host bootstraps etcd, which hosts join it, and what is printed about the quorum.
use std::collections::BTreeSet;

use super::*;
use crate::inventory::Bare;
use crate::plan::decide::tests::{differs, found, manifest};
use crate::plan::{Plan, PlanContext, decide, describe};
use kmctl_core::protocol::host::{DataRecord, ETCD_WAL, EtcdData, Observation, Observations, VoteSpec};

fn host(name: &str) -> HostManifest {
    let mut manifest = manifest(Some("5ec2e7"));
    manifest.host = name.to_owned();
    for item in &mut manifest.items {
        if let Item::Member(spec) | Item::Vote(VoteSpec(spec)) = item {
            spec.name = name.to_owned();
        }
    }
    manifest
}

fn bare(name: &str, existing: &[&str]) -> (HostManifest, Found) {
    (
        host(name),
        Found::Bare(Bare {
            existing: existing.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>(),
            etcd_data: EtcdData { wal: existing.contains(&ETCD_WAL), ..EtcdData::default() },
            ..Bare::default()
        }),
    )
}

/// A correct host with `change` applied, whose etcd lists these members.
fn living(name: &str, listed: &[&str], change: impl Fn(&mut Observation)) -> (HostManifest, Found) {
    let manifest = host(name);
    let Found::Observed(found) = found(&manifest, change) else { unreachable!() };
    let member = |(at, name): (usize, &&str)| EtcdMember {
        id: at.to_string(),
        name: (*name).to_owned(),
        peers: vec![format!("https://192.0.2.{at}:2380")],
        learner: false,
    };
    let members = listed.iter().enumerate().map(member).collect();
    (manifest, Found::Observed(Box::new(Observations { members, ..*found })))
}

/// As [`plan`], with `--begin-anew`.
fn begin_anew(hosts: &[(HostManifest, Found)], unseen: &[&str]) -> Result<Plan, PlanError> {
    let unseen = unseen.iter().map(|host| (*host).to_owned()).collect();
    decide(hosts, "km", &PlanContext { unseen, begin_anew: true, ..PlanContext::default() })
}

/// A host that has lost the data that etcd has used there.
fn emptied(name: &str, etcd_data: EtcdData) -> (HostManifest, Found) {
    let (manifest, Found::Observed(found)) = told(name, Some("cp1")) else { unreachable!() };
    (manifest, Found::Observed(Box::new(Observations { etcd_data, ..*found })))
}

/// Data that are missing without a trace.
fn lost() -> EtcdData {
    let record = DataRecord { id: "1".to_owned(), mounted: false, started: true };
    EtcdData { record: Some(record), ..EtcdData::default() }
}

fn plan(hosts: &[(HostManifest, Found)], unseen: &[&str]) -> Result<Plan, PlanError> {
    let unseen = unseen.iter().map(|host| (*host).to_owned()).collect();
    decide(hosts, "km", &PlanContext { unseen, ..PlanContext::default() })
}

fn work(plan: &Plan) -> Vec<EtcdWork> {
    plan.hosts.iter().map(|host| host.etcd).collect()
}

fn whys(plan: &Plan) -> Vec<String> {
    let joins = plan.hosts.iter().flat_map(|host| &host.steps).filter(|step| step.action == Action::Join);
    joins.map(|step| step.why.join("; ")).collect()
}

#[test]
fn the_first_host_begins_and_the_others_join_one_after_the_other() {
    let plan = plan(&[bare("cp1", &[]), bare("cp2", &[]), bare("cp3", &[])], &[]).unwrap();
    assert_eq!(work(&plan), [EtcdWork::Bootstrap, EtcdWork::Join, EtcdWork::Join]);
    let expected = ["members 1 → 2, quorum 2, tolerates 0 failures", "members 2 → 3, quorum 2, tolerates 1 failure"];
    assert_eq!(whys(&plan), expected);
    let objects: Vec<usize> = plan
        .hosts
        .iter()
        .map(|host| host.steps.iter().filter(|step| step.subject.ends_with(" API objects")).count())
        .collect();
    assert_eq!(objects, [1, 0, 0]);
}

#[test]
fn a_host_that_is_away_may_have_the_cluster_unless_most_hosts_have_recorded_who_begins_it() {
    let two = [bare("cp2", &[]), bare("cp3", &[])];
    let refused = plan(&two, &["cp1"]).unwrap_err();
    assert_eq!(refused.to_string(), "no host that responded has etcd data, and cp1 has not responded");
    assert!(refused.needs_others());
    // The operator knows better.
    assert_eq!(work(&begin_anew(&two, &["cp1"]).unwrap()), [EtcdWork::Bootstrap, EtcdWork::Join]);
    // A run that saw all hosts, or was told to begin, has agreed with most of them.
    let agreed = [told("cp2", Some("cp2")), told("cp3", Some("cp2"))];
    assert_eq!(work(&plan(&agreed, &["cp1"]).unwrap()), [EtcdWork::Bootstrap, EtcdWork::Join]);
}

#[test]
fn a_minority_begins_nothing() {
    let refused = plan(&[bare("cp3", &[])], &["cp1", "cp2"]);
    assert!(matches!(refused, Err(PlanError::NoMajority { all: 3, .. })), "{refused:?}");
    // One host with data proves that there is a cluster, however many hosts were inspected.
    assert_eq!(work(&plan(&[bare("cp3", &[ETCD_WAL])], &["cp1", "cp2"]).unwrap()), [EtcdWork::Start]);
}

/// A host with km and without data, which has recorded `founder`.
fn told(name: &str, founder: Option<&str>) -> (HostManifest, Found) {
    let (manifest, Found::Observed(found)) = living(name, &[], |item| {
        if item.name == format!("etcd member {name}") {
            item.observed = Observed::Missing;
        }
    }) else {
        unreachable!()
    };
    (manifest, Found::Observed(Box::new(Observations { founder: founder.map(str::to_owned), ..*found })))
}

#[test]
fn whoever_may_have_begun_the_cluster_is_the_only_one_that_begins_it() {
    let founder = |hosts: &[(HostManifest, Found)], unseen: &[&str]| {
        begin_anew(hosts, unseen).map(|plan| (plan.founder.clone().unwrap_or_default(), work(&plan)))
    };
    let (cp1, cp2) = (Some("cp1"), Some("cp2"));
    use EtcdWork::{Bootstrap, Join};
    // Nothing is recorded: the first host that was seen.
    let nothing = [told("cp2", None), told("cp3", None)];
    assert_eq!(founder(&nothing, &["cp1"]), Ok(("cp2".to_owned(), vec![Bootstrap, Join])));
    // A run that did not see cp1 was killed: it may have started cp2, which therefore continues.
    let all = [told("cp1", None), told("cp2", cp2), told("cp3", cp2)];
    assert_eq!(founder(&all, &[]), Ok(("cp2".to_owned(), vec![Join, Bootstrap, Join])));
    // cp1 and cp2 may have been its majority.
    let without = [told("cp2", cp1), told("cp3", None)];
    let error = PlanError::Founder { founders: vec!["cp1".to_owned()], unseen: vec!["cp1".to_owned()] };
    assert_eq!(error.to_string(), "etcd was bootstrapped on cp1, but cp1 has not responded");
    assert_eq!(founder(&without, &["cp1"]), Err(error));
    // Two of five are no majority, and all were seen.
    let five = [told("cp1", None), told("cp2", cp2), told("cp3", cp1), told("cp4", cp2), told("cp5", None)];
    assert_eq!(founder(&five, &[]).unwrap().0, "cp2");
    let unnamed = [told("cp1", Some("old")), told("cp2", Some("old")), told("cp3", None)];
    assert_eq!(founder(&unnamed, &[]), Err(PlanError::Unnamed { founder: "old".to_owned() }));
}

#[test]
fn the_founder_waits_for_as_many_others_as_make_a_majority_with_it() {
    let of = |hosts: &[(HostManifest, Found)]| -> Vec<(Option<BootstrapClaim>, usize)> {
        plan(hosts, &[]).unwrap().hosts.into_iter().map(|host| (host.founding, host.agreement)).collect()
    };
    let founding = |instead_of: Option<&str>| {
        Some(BootstrapClaim { name: "cp1".to_owned(), instead_of: instead_of.map(str::to_owned) })
    };
    assert_eq!(of(&[told("cp1", None)]), [(founding(None), 0)]);
    let three = [told("cp1", None), told("cp2", None), told("cp3", None)];
    assert_eq!(of(&three), [(founding(None), 1), (founding(None), 0), (founding(None), 0)]);
    let half = [told("cp1", Some("cp1")), told("cp2", Some("cp1")), told("cp3", Some("cp3"))];
    assert_eq!(of(&half), [(None, 0), (None, 0), (founding(Some("cp3")), 0)]);
}

#[test]
fn a_cluster_that_mesos_knows_is_not_begun_again_while_a_host_is_away() {
    let hosts = [told("cp2", Some("cp2")), told("cp3", Some("cp2"))];
    let framework = Some("f-0001".to_owned());
    let away = PlanContext { unseen: vec!["cp1".to_owned()], framework: framework.clone(), ..PlanContext::default() };
    let refused = decide(&hosts, "km", &away).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no host that responded has etcd data, but Mesos has framework f-0001 of this cluster: etcd data must be on cp1, \
         which has not responded"
    );
    // All hosts were seen: then the data are lost, and an empty cluster would let Mesos kill what still runs.
    let seen = PlanContext { framework, ..PlanContext::default() };
    let refused = decide(&hosts, "km", &seen).unwrap_err().to_string();
    assert_eq!(refused, "no host has etcd data, but Mesos has framework f-0001 of this cluster: etcd data is lost");
    assert!(decide(&hosts, "km", &PlanContext { begin_anew: true, ..seen }).is_ok());
}

#[test]
fn an_empty_cluster_is_not_begun_over_lost_data() {
    let refused = plan(&[emptied("cp1", lost())], &[]).unwrap_err();
    assert_eq!(refused.to_string(), "etcd data is lost: /var/lib/etcd on cp1 does not exist");
    let accepted = begin_anew(&[emptied("cp1", lost())], &[]).unwrap();
    assert_eq!((work(&accepted), accepted.begin_anew), (vec![EtcdWork::Bootstrap], true));
    // A host of before the record, by what its units were started with.
    let old = EtcdData { exists: true, unit_recorded: true, ..EtcdData::default() };
    let refused = plan(&[emptied("cp1", old)], &[]).unwrap_err();
    assert_eq!(refused.to_string(), "etcd data is lost: /var/lib/etcd on cp1 is empty");
}

#[test]
fn one_of_three_that_lost_its_data_joins_again_and_the_folder_is_named() {
    let listed = ["cp1", "cp2", "cp3"];
    let nothing = |_: &mut Observation| ();
    let others = || [living("cp2", &listed, nothing), living("cp3", &listed, nothing)];
    let [two, three] = others();
    let plan_of = plan(&[emptied("cp1", lost()), two, three], &[]).unwrap();
    assert_eq!(work(&plan_of), [EtcdWork::Join, EtcdWork::None, EtcdWork::None]);
    let why =
        "/var/lib/etcd does not exist; its former membership is replaced; members 3 → 3, quorum 2, tolerates 1 failure";
    assert_eq!(whys(&plan_of), [why]);
}

#[test]
fn nothing_takes_the_place_of_data_whose_disk_is_away() {
    let listed = ["cp1", "cp2", "cp3"];
    let nothing = |_: &mut Observation| ();
    let mut unmounted = lost();
    unmounted.record.as_mut().unwrap().mounted = true;
    let other = EtcdData { wal: true, label: Some("2".to_owned()), ..lost() };
    for (data, text) in [(unmounted, "is not on the disk on which it was"), (other, "holds the data of another etcd")] {
        let hosts = [emptied("cp1", data), living("cp2", &listed, nothing), living("cp3", &listed, nothing)];
        for refused in [plan(&hosts, &[]), begin_anew(&hosts[..1], &[])] {
            assert_eq!(refused.unwrap_err().to_string(), format!("/var/lib/etcd on cp1 {text}"));
        }
    }
}

#[test]
fn a_new_host_under_the_address_of_a_member_is_refused() {
    let (manifest, Found::Observed(mut found)) = living("cp1", &["cp1", "cp3"], |_| ()) else { unreachable!() };
    let mut new = bare("cp4", &[]);
    let peer = "https://192.0.2.13:2380";
    for item in &mut new.0.items {
        if let Item::Member(spec) = item {
            spec.peer = peer.to_owned();
        }
    }
    found.members[1].peers = vec![peer.to_owned()];
    let allowed = PlanContext { allow_remove: true, ..PlanContext::default() };
    let refused = decide(&[(manifest, Found::Observed(found)), new], "km", &allowed).unwrap_err();
    assert_eq!(refused.to_string(), "cp4 has the address of cp3, which is still a member of etcd");
}

#[test]
fn a_lost_quorum_is_told_and_not_waited_for() {
    let listed = ["cp1", "cp2", "cp3"];
    let nothing = |_: &mut Observation| ();
    let hosts = [living("cp1", &listed, nothing), bare("cp2", &[]), told("cp3", Some("cp1"))];
    let refused = plan(&hosts, &[]).unwrap_err();
    assert_eq!(refused.to_string(), "etcd has no quorum: 2 of 3 members lost their data (cp2, cp3)");
    // A host that was not seen may still have its data, and so may one that cluster.yaml no longer names.
    assert!(plan(&hosts[..2], &["cp3"]).is_ok());
    assert!(plan(&hosts[..2], &[]).is_ok());
    // A single empty host is no member of anything.
    assert!(plan(&[told("cp1", Some("cp1"))], &[]).is_ok());
}

#[test]
fn two_clusters_are_told_and_nothing_is_done() {
    let other = |name: &str| {
        let (manifest, Found::Observed(mut found)) = living(name, &["cp2", "cp3"], |_| ()) else { unreachable!() };
        found.members.iter_mut().for_each(|member| member.id.push('7'));
        (manifest, Found::Observed(found))
    };
    let hosts = [living("cp1", &["cp1"], |_| ()), other("cp2"), other("cp3")];
    let refused = plan(&hosts, &[]).unwrap_err();
    assert_eq!(refused, PlanError::TwoClusters { hosts: ["cp1".to_owned(), "cp2".to_owned()] });
    // The same applies to a host that answers late with data while the others are about to bootstrap.
    let existing = Some(ExistingCluster { id: None, founder: Some("cp2".to_owned()), begins: true });
    let late = PlanContext { unseen: vec!["cp2".to_owned()], existing, ..PlanContext::default() };
    let refused = decide(&[bare("cp1", &[ETCD_WAL])], "km", &late).unwrap_err();
    assert_eq!(refused, PlanError::TwoClusters { hosts: ["cp2".to_owned(), "cp1".to_owned()] });
}

#[test]
fn a_host_that_lost_its_data_joins_again_and_never_begins() {
    let listed = ["cp1", "cp2", "cp3"];
    let nothing = |_: &mut Observation| ();
    let plan =
        plan(&[bare("cp1", &[]), living("cp2", &listed, nothing), living("cp3", &listed, nothing)], &[]).unwrap();
    assert_eq!(work(&plan), [EtcdWork::Join, EtcdWork::None, EtcdWork::None]);
    let why = "its data is lost; its former membership is replaced; members 3 → 3, quorum 2, tolerates 1 failure";
    assert_eq!(whys(&plan), [why]);
}

#[test]
fn after_down_all_members_start_at_once() {
    let hosts = ["cp1", "cp2", "cp3"].map(|name| bare(name, &[ETCD_WAL]));
    assert_eq!(work(&plan(&hosts, &[]).unwrap()), [EtcdWork::Start; 3]);
}

#[test]
fn a_learner_that_a_killed_run_left_gets_its_vote() {
    let listed = ["cp1", "cp2"];
    let learner = living("cp2", &listed, |item| {
        if item.name == "etcd member cp2 votes" {
            item.observed = differs("it has no vote yet", None);
        }
    });
    let plan = plan(&[living("cp1", &listed, |_| ()), learner], &[]).unwrap();
    assert_eq!(work(&plan), [EtcdWork::None, EtcdWork::Join]);
}

#[test]
fn a_first_start_that_a_killed_run_left_open_is_completed() {
    let open = living("cp1", &["cp1"], |item| {
        if item.name == "etcd member cp1 votes" {
            item.observed = differs("its first start is not completed", None);
        }
    });
    let (manifest, Found::Observed(found)) = open else { unreachable!() };
    let record = DataRecord { id: "1".to_owned(), mounted: false, started: false };
    let etcd_data = EtcdData { record: Some(record), label: Some("1".to_owned()), wal: true, ..EtcdData::default() };
    let plan = plan(&[(manifest, Found::Observed(Box::new(Observations { etcd_data, ..*found })))], &[]).unwrap();
    assert_eq!(work(&plan), [EtcdWork::Start]);
    assert!(!plan.is_empty());
}

#[test]
fn a_member_that_the_file_does_not_name_is_told_and_removed_only_when_allowed() {
    let listed = ["cp1", "cp2", "cp3", "cp4"];
    let hosts = [living("cp1", &listed, |_| ()), living("cp2", &listed, |_| ())];
    let kept = plan(&hosts, &[]).unwrap();
    assert!(kept.is_empty());
    assert!(describe(&kept).contains("remove it with `kmctl up --allow-remove`"), "{}", describe(&kept));
    let allowed = PlanContext { allow_remove: true, ..PlanContext::default() };
    let removed = decide(&hosts, "km", &allowed).unwrap();
    assert!(!removed.is_empty());
    let text = describe(&removed);
    insta::with_settings!({ snapshot_path => "../../../tests/plan", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("departures", text);
    });
    // A host that did not answer is still named in cluster.yaml.
    let unseen = PlanContext { unseen: vec!["cp3".to_owned(), "cp4".to_owned()], ..allowed };
    assert_eq!(decide(&hosts, "km", &unseen).unwrap().departures, []);
}

//! Who begins etcd, who joins it, and what is said about the quorum.
use std::collections::BTreeSet;

use super::*;
use crate::host::agent::{Observation, Observations};
use crate::plan::decide::tests::{differs, found, manifest};
use crate::plan::{Circumstances, Plan, decide, describe};

fn host(name: &str) -> HostManifest {
    let mut manifest = manifest(Some("5ec2e7"));
    manifest.host = name.to_owned();
    for item in &mut manifest.items {
        if let Item::Member(spec) | Item::Vote(spec) = item {
            spec.name = name.to_owned();
        }
    }
    manifest
}

fn bare(name: &str, existing: &[&str]) -> (HostManifest, Found) {
    (host(name), Found::Bare { existing: existing.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>() })
}

/// A host that is as it should be, with `change` made, whose etcd lists these members.
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

fn plan(hosts: &[(HostManifest, Found)], unseen: &[&str]) -> Result<Plan, PlanError> {
    let unseen = unseen.iter().map(|host| (*host).to_owned()).collect();
    decide(hosts, "km", &Circumstances { unseen, ..Circumstances::default() })
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
    let expected = ["members 1 → 2, quorum 2, stands the loss of 0", "members 2 → 3, quorum 2, stands the loss of 1"];
    assert_eq!(whys(&plan), expected);
    let objects: Vec<usize> = plan
        .hosts
        .iter()
        .map(|host| host.steps.iter().filter(|step| step.subject.ends_with(" API objects")).count())
        .collect();
    assert_eq!(objects, [1, 0, 0]);
}

#[test]
fn a_dead_host_does_not_keep_the_majority_from_beginning_and_a_minority_begins_nothing() {
    let begun = plan(&[bare("cp2", &[]), bare("cp3", &[])], &["cp1"]).unwrap();
    assert_eq!(work(&begun), [EtcdWork::Bootstrap, EtcdWork::Join]);
    let refused = plan(&[bare("cp3", &[])], &["cp1", "cp2"]);
    assert!(matches!(refused, Err(PlanError::NoMajority { all: 3, .. })), "{refused:?}");
    // One that has data says that there is a cluster, however many are seen.
    assert_eq!(work(&plan(&[bare("cp3", &[MEMBER_DATA])], &["cp1", "cp2"]).unwrap()), [EtcdWork::Start]);
}

#[test]
fn a_host_that_lost_its_data_joins_again_and_never_begins() {
    let listed = ["cp1", "cp2", "cp3"];
    let nothing = |_: &mut Observation| ();
    let plan =
        plan(&[bare("cp1", &[]), living("cp2", &listed, nothing), living("cp3", &listed, nothing)], &[]).unwrap();
    assert_eq!(work(&plan), [EtcdWork::Join, EtcdWork::None, EtcdWork::None]);
    let why = "its data are gone: its former membership is replaced; members 3 → 3, quorum 2, stands the loss of 1";
    assert_eq!(whys(&plan), [why]);
}

#[test]
fn after_down_all_members_start_at_once() {
    let hosts = ["cp1", "cp2", "cp3"].map(|name| bare(name, &[MEMBER_DATA]));
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
fn a_member_that_the_file_does_not_name_is_told_and_removed_only_when_allowed() {
    let listed = ["cp1", "cp2", "cp3", "cp4"];
    let hosts = [living("cp1", &listed, |_| ()), living("cp2", &listed, |_| ())];
    let kept = plan(&hosts, &[]).unwrap();
    assert!(kept.is_empty());
    assert!(describe(&kept).contains("`kmctl up --allow-remove` removes it"), "{}", describe(&kept));
    let allowed = Circumstances { allow_remove: true, ..Circumstances::default() };
    let removed = decide(&hosts, "km", &allowed).unwrap();
    assert!(!removed.is_empty());
    let text = describe(&removed);
    insta::with_settings!({ snapshot_path => "../../tests/plan", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("departures", text);
    });
    // A host that did not answer is named there all the same.
    let unseen = Circumstances { unseen: vec!["cp3".to_owned(), "cp4".to_owned()], ..allowed };
    assert_eq!(decide(&hosts, "km", &unseen).unwrap().departures, []);
}

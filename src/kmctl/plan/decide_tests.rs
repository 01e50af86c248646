//! Plans as printed, compared with the files in `tests/plan`.
use super::*;
use crate::plan::{Inputs, describe, desired};
use kmctl_core::bundle::{BundleFile, Manifest, Purpose};
use kmctl_core::cluster::Cluster;
use kmctl_core::protocol::host::{EtcdData, FORMAT, FileSpec, Ownership, UnitState};

const CLUSTER: &str = "\
apiVersion: kmctl.io/v1alpha1
kind: Cluster
metadata: { name: demo }
spec:
  mesos: { master: '192.0.2.5:5050', principal: demo, secretFile: secret, frameworkName: kubernetes-demo }
  controlPlane: { endpoint: '192.0.2.11:6443', hosts: [{ address: 192.0.2.11, name: cp1 }] }
";

pub(in crate::plan) fn manifest(secret: Option<&str>) -> HostManifest {
    let cluster: Cluster = serde_yaml::from_str(CLUSTER).unwrap();
    let file = |path: &str| BundleFile {
        path: path.to_owned(),
        sha256: "0".repeat(64),
        size: 50_000_000,
        packed_sha256: None,
        purposes: vec![Purpose::ControlPlane],
        images: Vec::new(),
    };
    let bundle = Manifest {
        format: 1,
        kubernetes: "v1.37.2".to_owned(),
        architecture: "amd64".to_owned(),
        components: Vec::new(),
        files: vec![file("bin/etcd"), file("bin/kube-apiserver"), file("images/pause.tar")],
    };
    let inputs =
        Inputs { bundle, bundle_text: "{}".to_owned(), mesos_secret: secret.map(str::to_owned), mesos_authority: None };
    desired(&cluster, &cluster.spec.control_plane.hosts[0], &inputs).unwrap()
}

/// A host on which everything is correct, with `change` applied to what was found.
pub(in crate::plan) fn found(manifest: &HostManifest, change: impl Fn(&mut Observation)) -> Found {
    let items = manifest.items.iter().map(|item| {
        let unit = matches!(item, Item::Unit(_)).then(|| UnitState {
            active: "active".to_owned(),
            enabled: "enabled".to_owned(),
            invocation: "1".to_owned(),
            stale_definition: false,
            recorded: true,
        });
        let mut observation = Observation { name: item.name(), observed: Observed::Same, unit };
        change(&mut observation);
        observation
    });
    Found::Observed(Box::new(Observations {
        format: FORMAT,
        hostname: "cp1".to_owned(),
        km: Some("km".to_owned()),
        lock: None,
        ownership: Ownership::default(),
        etcd_data: EtcdData::default(),
        versions: vec!["v1.37.2".to_owned()],
        members: Vec::new(),
        founder: None,
        items: items.collect(),
    }))
}

pub(in crate::plan) fn differs(why: &str, current: Option<&str>) -> Observed {
    Observed::Different { why: vec![why.to_owned()], current: current.map(str::to_owned), content: None }
}

macro_rules! golden {
    ($name:literal, $plan:expr) => {
        insta::with_settings!({ snapshot_path => "../../../tests/plan", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!($name, describe(&$plan));
        });
    };
}

#[test]
fn a_new_host_gets_everything() {
    let manifest = manifest(Some("secret"));
    golden!("new-host", decide(&[(manifest, Found::Bare(Bare::default()))], "km", &PlanContext::default()).unwrap());
}

#[test]
fn a_host_as_it_should_be_gets_nothing() {
    let manifest = manifest(Some("secret"));
    let found = found(&manifest, |_| ());
    let plan = decide(&[(manifest, found)], "km", &PlanContext::default()).unwrap();
    assert!(plan.is_empty());
    golden!("unchanged", plan);
}

#[test]
fn a_file_edited_by_hand_is_shown_as_a_diff_and_restarts_its_unit() {
    let manifest = manifest(Some("secret"));
    let path = "/etc/systemd/system/kube-apiserver.service";
    let text = manifest.items.iter().find_map(|item| match item {
        Item::File(FileSpec { path: at, text, .. }) if at == path => {
            Some(text.replace("anonymous-auth=false", "anonymous-auth=true"))
        }
        _ => None,
    });
    let found = found(&manifest, |item| {
        if item.name == path {
            item.observed = differs("its text differs", text.as_deref());
        }
    });
    let plan = decide(&[(manifest, found)], "km", &PlanContext::default()).unwrap();
    assert_eq!(plan.interruptions(), ["kube-apiserver.service on cp1"]);
    golden!("edited-unit", plan);
}

#[test]
fn repairing_permissions_restarts_nothing() {
    let manifest = manifest(Some("secret"));
    let found = found(&manifest, |item| {
        if item.name.ends_with("etcd.service") && item.unit.is_none() {
            item.observed = differs("its mode is 0666, wanted 0644", None);
        }
    });
    let plan = decide(&[(manifest, found)], "km", &PlanContext::default()).unwrap();
    assert_eq!(plan.hosts[0].steps.len(), 1);
    assert_eq!(plan.hosts[0].steps[0].action, Action::Update);
}

#[test]
fn bounds_that_were_set_live_are_kept_and_told() {
    let manifest = manifest(Some("secret"));
    let found = found(&manifest, |observation| {
        if observation.name.contains("objects") {
            observation.observed = Observed::Kept { what: vec!["max 3 (cluster.yaml: none)".to_owned()] };
        }
    });
    let plan = decide(&[(manifest, found)], "km", &PlanContext::default()).unwrap();
    assert!(plan.is_empty());
    let note = "keeping node limits set with `kmctl scale` (max 3 (cluster.yaml: none)); reset them with --reset-scale";
    assert_eq!(plan.hosts[0].notes, [note]);
    assert!(describe(&plan).contains(note));
}

#[test]
fn a_new_km_restarts_what_runs_it_without_interrupting_anybody() {
    let manifest = manifest(Some("secret"));
    let found = found(&manifest, |_| ());
    let plan = decide(&[(manifest, found)], "other", &PlanContext::default()).unwrap();
    assert!(plan.interruptions().is_empty());
    golden!("new-km", plan);
}

#[test]
fn a_certificate_that_ends_soon_is_renewed() {
    let manifest = manifest(Some("secret"));
    let found = found(&manifest, |item| {
        if item.name.ends_with("pki/scheduler.crt") {
            item.observed = differs("it expires at 2027-01-01T00:00:00Z", None);
        }
    });
    golden!("renewal", decide(&[(manifest, found)], "km", &PlanContext::default()).unwrap());
}

#[test]
fn what_a_killed_run_started_is_started_again_without_asking() {
    let manifest = manifest(Some("secret"));
    let found = found(&manifest, |item| {
        if let Some(unit) = item.unit.as_mut().filter(|_| item.name == "kube-apiserver.service") {
            unit.recorded = false;
            item.observed = differs("it was never started with these files", None);
        }
    });
    let plan = decide(&[(manifest, found)], "km", &PlanContext::default()).unwrap();
    assert!(plan.interruptions().is_empty());
    assert_eq!(plan.hosts[0].steps.len(), 1);
}

#[test]
fn a_secret_that_is_not_here_is_kept_or_missed() {
    let manifest = manifest(None);
    let there = found(&manifest, |_| ());
    let plan = decide(&[(manifest.clone(), there)], "km", &PlanContext::default()).unwrap();
    assert!(plan.is_empty());
    golden!("kept-secret", plan);
    let gone = found(&manifest, |item| {
        if item.name.ends_with("mesos-secret") {
            item.observed = Observed::Missing;
        }
    });
    assert!(matches!(
        decide(&[(manifest.clone(), gone)], "km", &PlanContext::default()),
        Err(PlanError::NoSecret { .. })
    ));
    let bare = Found::Bare(Bare::default());
    assert!(matches!(decide(&[(manifest, bare)], "km", &PlanContext::default()), Err(PlanError::NoSecret { .. })));
}

#[test]
fn another_version_or_bundle_on_a_living_host_is_refused() {
    let manifest = manifest(Some("secret"));
    let Found::Observed(mut other) = found(&manifest, |_| ()) else { unreachable!() };
    other.versions = vec!["v1.19.0".to_owned()];
    let refused = decide(&[(manifest.clone(), Found::Observed(other))], "km", &PlanContext::default());
    assert!(matches!(refused, Err(PlanError::Upgrade { .. })), "{refused:?}");
    let other_bundle = |active: &str| {
        found(&manifest, |item| {
            if item.name.ends_with("v1.37.2/manifest.json") {
                item.observed = differs("its text differs", Some("{\"other\":1}"));
            }
            if let Some(unit) = &mut item.unit {
                unit.active = active.to_owned();
            }
        })
    };
    assert!(decide(&[(manifest.clone(), other_bundle("active"))], "km", &PlanContext::default()).is_err());
    assert!(decide(&[(manifest.clone(), other_bundle("inactive"))], "km", &PlanContext::default()).is_ok());
}

#[test]
fn a_living_cluster_keeps_its_network_mode() {
    let wanted = manifest(Some("secret"));
    let settings = |item: &Item| match item {
        Item::File(FileSpec { path, text, .. }) if path == SETTINGS => Some(text.clone()),
        _ => None,
    };
    let ours = wanted.items.iter().find_map(settings).expect("rendered");
    let decided = |current: &str, active: &str| {
        let found = found(&wanted, |item| {
            if item.name == SETTINGS {
                item.observed = differs("its text differs", Some(current));
            }
            if let Some(unit) = &mut item.unit {
                unit.active = active.to_owned();
            }
        });
        decide(&[(wanted.clone(), found)], "km", &PlanContext::default())
    };
    let with_plugin = ours.replace("mode: hostPorts", "mode: cni");
    assert_ne!(with_plugin, ours);
    let refused = decided(&with_plugin, "active").unwrap_err();
    let told = "cannot change network.mode of cp1 from cni to hostPorts: the mode of a running cluster is fixed";
    assert_eq!(refused.to_string(), told);
    assert!(decided(&with_plugin, "inactive").is_ok());
    let other_range = ours.replace("172.30.0.0/16", "172.31.0.0/16");
    assert_ne!(other_range, ours);
    assert!(decided(&other_range, "active").is_ok());
}

//! Plans as files.
use super::*;
use crate::plan::decide::tests::{differs, found, manifest};
use crate::plan::{PlanContext, decide};
use kmctl_core::protocol::host::{FileSpec, Item};

const SCHEDULER: &str = "/etc/systemd/system/kube-scheduler.service";

/// The plan for a host on which `line` was inserted before a unit file's content.
fn edited(line: &str) -> SavedPlan {
    let manifest = manifest(Some("5ec2e7"));
    let text = manifest.items.iter().find_map(|item| match item {
        Item::File(FileSpec { path, text, .. }) if path == SCHEDULER => Some(format!("{line}\n{text}")),
        _ => None,
    });
    let found = found(&manifest, |item| {
        if item.name == SCHEDULER {
            item.observed = differs("its text differs", text.as_deref());
        }
    });
    let plan = decide(&[(manifest.clone(), found)], "km", &PlanContext::default()).unwrap();
    SavedPlan::new("demo", "km", &[manifest], &plan)
}

#[test]
fn the_file_is_as_documented_and_can_be_read_back() {
    let saved = edited("# by hand");
    let text = serde_json::to_string_pretty(&saved).unwrap();
    insta::with_settings!({ snapshot_path => "../../../tests/plan", prepend_module_to_snapshot => false,
        omit_expression => true, filters => vec![(r#""[0-9a-f]{64}""#, r#""SHA256""#), (env!("CARGO_PKG_VERSION"), "VERSION")] }, {
        insta::assert_snapshot!("saved", text);
    });
    assert_eq!(SavedPlan::parse(&text).unwrap(), saved);
}

#[test]
fn another_format_and_unknown_fields_are_refused() {
    let text = serde_json::to_string(&edited("# by hand")).unwrap();
    let newer = text.replacen("\"format\":3", "\"format\":4", 1);
    assert!(matches!(SavedPlan::parse(&newer), Err(SavedPlanError::Format(4))));
    let more = text.replacen("\"cluster\"", "\"colour\":1,\"cluster\"", 1);
    assert!(matches!(SavedPlan::parse(&more), Err(SavedPlanError::Malformed(_))));
    assert!(matches!(SavedPlan::parse("kind: Cluster"), Err(SavedPlanError::Malformed(_))));
}

#[test]
fn the_same_facts_are_no_drift_and_another_edit_is_shown() {
    let saved = edited("# by hand");
    assert_eq!(saved.drift(&edited("# by hand")), None);
    let drift = saved.drift(&edited("# by another hand")).unwrap();
    assert!(drift.contains("-      -# by hand"), "{drift}");
    assert!(drift.contains("+      -# by another hand"), "{drift}");
}

#[test]
fn another_wish_is_drift_although_the_steps_are_the_same() {
    let (saved, mut now) = (edited("# by hand"), edited("# by hand"));
    now.wanted.insert("cp1".to_owned(), "other".to_owned());
    assert_eq!(saved.drift(&now).unwrap(), "cp1: cluster.yaml, the bundle or kmctl has changed\n");
    now.km = "other".to_owned();
    assert!(saved.drift(&now).unwrap().contains("a different km"));
    assert!(
        saved.drift(&SavedPlan { cluster: "other".to_owned(), ..now }).unwrap().contains("cluster demo, not for other")
    );
}

#[test]
fn what_a_component_answers_before_it_is_healthy_is_no_drift() {
    let plan = |answer: &str| {
        let manifest = manifest(Some("5ec2e7"));
        let found = found(&manifest, |item| {
            if item.name == "etcd is healthy" {
                item.observed = differs(answer, None);
            }
        });
        let plan = decide(&[(manifest.clone(), found)], "km", &PlanContext::default()).unwrap();
        SavedPlan::new("demo", "km", &[manifest], &plan)
    };
    assert_eq!(plan("status 503").drift(&plan("connection refused")), None);
}

#[test]
fn no_secret_is_in_the_file() {
    // Everything differs, and no text that was found may be repeated.
    let manifest = manifest(Some("5ec2e7"));
    let found = found(&manifest, |item| item.observed = differs("it differs", Some("found-text")));
    let plan = decide(&[(manifest.clone(), found)], "km", &PlanContext::default());
    // A changed table of contents on a running host is an upgrade, so that item is left unchanged.
    assert!(plan.is_err());
    let found = crate::plan::decide::tests::found(&manifest, |item| {
        if !item.name.ends_with("manifest.json") {
            item.observed = differs("it differs", Some("found-text"));
        }
    });
    let plan = decide(&[(manifest.clone(), found)], "km", &PlanContext::default()).unwrap();
    let text = serde_json::to_string(&SavedPlan::new("demo", "km", std::slice::from_ref(&manifest), &plan)).unwrap();
    assert!(!text.contains("5ec2e7"), "the digest of the Mesos secret");
    let secret = ["mesos-secret", ".key", "encryption.yaml", ".conf", ".crt"];
    for step in plan.hosts[0].steps.iter().filter(|step| secret.iter().any(|end| step.subject.ends_with(end))) {
        assert_eq!(step.diff, None, "{}", step.subject);
    }
}

//! What hosts should have.
use super::*;

/// The second of two hosts.
fn with(spec: &str) -> Result<HostManifest, RenderError> {
    manifest_of(&format!("    - {{ address: 192.0.2.12, name: cp2 }}\n{spec}"))
}

/// The manifest of the last host, if cluster.yaml continues like this after the first host.
fn manifest_of(rest: &str) -> Result<HostManifest, RenderError> {
    let text = format!(
        "apiVersion: kmctl.io/v1alpha1\nkind: Cluster\nmetadata: {{ name: demo }}\nspec:\n  mesos: {{ master: '192.0.2.5:5050' }}\n  \
         controlPlane:\n    endpoint: '192.0.2.10:6443'\n    hosts:\n    - {{ address: 192.0.2.11, name: cp1 }}\n{rest}"
    );
    let cluster: Cluster = serde_yaml::from_str(&text).unwrap();
    let bundle = Manifest {
        format: 1,
        kubernetes: "v1.37.2".to_owned(),
        architecture: "amd64".to_owned(),
        components: Vec::new(),
        files: Vec::new(),
    };
    let inputs = Inputs { bundle, bundle_text: "{}".to_owned(), mesos_secret: None, mesos_authority: None };
    desired(&cluster, cluster.spec.control_plane.hosts.last().unwrap(), &inputs)
}

fn text<'a>(manifest: &'a HostManifest, end: &str) -> Option<&'a str> {
    manifest.items.iter().find_map(|item| match item {
        Item::File(FileSpec { path, text, .. }) if path.ends_with(end) => Some(text.as_str()),
        _ => None,
    })
}

#[test]
fn every_unit_reads_only_what_the_manifest_puts_there() {
    let manifest = with("").unwrap();
    let mut there: Vec<String> = manifest.items.iter().flat_map(Item::paths).collect();
    there.push(KM.to_owned());
    for item in &manifest.items {
        let Item::Unit(spec) = item else { continue };
        for path in spec.reads.iter().filter(|path| !path.contains("/bin/")) {
            assert!(there.contains(path), "{} reads {path}", spec.name);
        }
    }
}

#[test]
fn another_host_changes_nothing_that_a_unit_reads() {
    let manifest = with("").unwrap();
    let etcd = text(&manifest, "etcd.service").unwrap();
    assert!(!etcd.contains("192.0.2.11"), "{etcd}");
    let member = manifest.items.iter().find_map(|item| match item {
        Item::Member(spec) => Some(spec.clone()),
        _ => None,
    });
    let member = member.unwrap();
    assert_eq!(member.peer, "https://192.0.2.12:2380");
    assert_eq!(member.others, ["https://192.0.2.11:2379"]);
}

#[test]
fn where_km_scheduler_is_stopped_kube_scheduler_stops_too_so_that_another_hosts_leads() {
    let manifest = with("").unwrap();
    let kube = text(&manifest, "system/kube-scheduler.service").unwrap();
    assert!(
        kube.contains("\nBindsTo=km-scheduler.service\n")
            && kube.contains("kube-apiserver.service km-scheduler.service\n")
    );
    // systemd would not restart it by itself.
    let km = text(&manifest, "system/km-scheduler.service").unwrap();
    assert!(km.contains("\nWants=network-online.target kube-scheduler.service\n"), "{km}");
    let alone = manifest_of("").unwrap();
    assert!(!text(&alone, "system/kube-scheduler.service").unwrap().contains("BindsTo"));
}

#[test]
fn nodes_know_every_api_server() {
    let manifest = with("").unwrap();
    let settings: SchedulerConfiguration =
        serde_yaml::from_str(text(&manifest, "kmctl/scheduler.yaml").unwrap()).unwrap();
    assert_eq!(settings.api_servers, ["https://192.0.2.10:6443", "https://192.0.2.11:6443", "https://192.0.2.12:6443"]);
}

#[test]
fn with_a_network_plugin_the_stock_endpoint_controllers_work() {
    let manifest = with("  network: { mode: cni }\n").unwrap();
    assert!(text(&manifest, "km-endpoints.service").is_none());
    assert!(
        text(&manifest, "kube-controller-manager.service")
            .unwrap()
            .contains("--controllers=*,token-cleaner-controller")
    );
    let own = with("").unwrap();
    let controllers = "--controllers=*,-endpoints-controller,-endpointslice-controller,token-cleaner-controller";
    assert!(text(&own, "kube-controller-manager.service").unwrap().contains(controllers));
    assert!(text(&own, "km-endpoints.service").is_some());
}

#[test]
fn the_settings_of_km_scheduler_can_be_read_back() {
    let manifest = with("").unwrap();
    let settings: SchedulerConfiguration =
        serde_yaml::from_str(text(&manifest, "kmctl/scheduler.yaml").unwrap()).unwrap();
    assert_eq!(settings.mesos.masters, ["http://192.0.2.5:5050"]);
    assert_eq!(settings.artifacts.advertise, "http://192.0.2.12:10271");
}

#[test]
fn the_api_server_answers_to_every_name_of_its_host_and_to_no_other_host_s() {
    let manifest = with("  kubernetes: { serviceCIDR: 10.7.0.0/16 }\n").unwrap();
    let names = manifest.items.iter().find_map(|item| match item {
        Item::Certificate(spec) if spec.path.ends_with("/apiserver") => Some(spec.leaf.names.clone()),
        _ => None,
    });
    let names = names.unwrap();
    for name in ["10.7.0.1", "192.0.2.10", "192.0.2.12", "cp2", "kubernetes.default.svc", "127.0.0.1"] {
        assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
    assert!(!names.iter().any(|known| known == "192.0.2.11"), "{names:?}");
}

#[test]
fn zookeeper_and_names_for_addresses_are_refused() {
    assert_eq!(master_url("https://m:5050/").unwrap(), "https://m:5050");
    assert!(master_url("zk://192.0.2.5:2181/mesos").is_err());
}

#[test]
fn kube_scheduler_pauses_two_seconds_at_most_after_an_error() {
    let manifest = with("").unwrap();
    let settings = text(&manifest, "etc/kubernetes/scheduler.yaml").unwrap();
    assert!(settings.contains("\npodInitialBackoffSeconds: 1\npodMaxBackoffSeconds: 2\n"), "{settings}");
}

#[test]
fn policies_are_among_the_objects_and_are_written_again_when_somebody_changes_them() {
    let manifest = with("").unwrap();
    let objects = manifest.items.iter().find_map(|item| match item {
        Item::Objects(ObjectsSpec { objects, .. }) => Some(objects),
        _ => None,
    });
    let objects = objects.unwrap().iter();
    let policies: Vec<_> = objects.filter(|one| one.object["kind"] == "ValidatingAdmissionPolicy").collect();
    assert_eq!(policies.iter().map(|one| one.keep).collect::<Vec<_>>(), [false, false]);
}

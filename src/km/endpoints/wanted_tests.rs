use super::*;
use crate::endpoints::model::{NamedPort, ServicePort, TargetPort};
use kmctl_core::protocol::launch::PortMapping;

fn service(ports: &[(&str, TargetPort)]) -> Service {
    Service {
        key: Key::new("ns", "web"),
        uid: "service-uid".to_owned(),
        labels: Labels::from([("team".to_owned(), "a".to_owned())]),
        selector: Labels::from([("app".to_owned(), "web".to_owned())]),
        ports: ports
            .iter()
            .map(|(name, target)| ServicePort {
                name: (*name).to_owned(),
                protocol: "TCP".to_owned(),
                target: target.clone(),
                app_protocol: None,
            })
            .collect(),
        headless: false,
        external_name: false,
        publish_not_ready: false,
    }
}

fn pod(name: &str, address: &str, granted: &[(u16, u16)]) -> Pod {
    Pod {
        key: Key::new("ns", name),
        uid: format!("uid-{name}"),
        labels: Labels::new(),
        node: format!("node-{address}"),
        node_address: Some(address.parse().unwrap()),
        host_network: false,
        ready: true,
        terminating: false,
        finished: false,
        hostname: String::new(),
        subdomain: String::new(),
        named_ports: vec![NamedPort { name: "http".to_owned(), number: 80, protocol: "TCP".to_owned() }],
        granted: granted
            .iter()
            .map(|(container_port, host_port)| PortMapping {
                container_port: *container_port,
                host_port: *host_port,
                protocol: "TCP".to_owned(),
            })
            .collect(),
    }
}

fn compute(service: &Service, pods: &[Pod]) -> Wanted {
    wanted(service, pods.iter(), &BTreeMap::new())
}

/// Endpoints as `name address:port`. Addresses that are not ready have a `!` prefix.
fn listed(wanted: &Wanted) -> Vec<String> {
    let mut all = Vec::new();
    for subset in wanted.endpoints["subsets"].as_array().into_iter().flatten() {
        for (list, mark) in [("addresses", ""), ("notReadyAddresses", "!")] {
            for address in subset[list].as_array().into_iter().flatten() {
                let ports = subset["ports"].as_array().into_iter().flatten();
                let ports: Vec<_> = ports.map(|port| port["port"].to_string()).collect();
                let name = address["targetRef"]["name"].as_str().unwrap();
                all.push(format!("{mark}{name} {}:{}", address["ip"].as_str().unwrap(), ports.join(",")));
            }
        }
    }
    all.sort();
    all
}

/// The same for slices.
fn sliced(wanted: &Wanted) -> Vec<String> {
    let mut all = Vec::new();
    for slice in wanted.slices.values() {
        let ports: Vec<_> = slice["ports"].as_array().unwrap().iter().map(|port| port["port"].to_string()).collect();
        for endpoint in slice["endpoints"].as_array().unwrap() {
            let mark = if endpoint["conditions"]["ready"] == json!(true) { "" } else { "!" };
            let name = endpoint["targetRef"]["name"].as_str().unwrap();
            all.push(format!("{mark}{name} {}:{}", endpoint["addresses"][0].as_str().unwrap(), ports.join(",")));
        }
    }
    all.sort();
    all
}

fn named(name: &str) -> TargetPort {
    TargetPort::Name(name.to_owned())
}

#[test]
fn a_port_leads_to_the_granted_host_port_of_each_pod() {
    let unnamed = pod("b", "10.0.0.2", &[(80, 31002), (81, 31003)]);
    let mut elsewhere = pod("c", "10.0.0.2", &[(8080, 31004)]);
    elsewhere.named_ports[0].number = 8080;
    let mut host = pod("h", "10.0.0.3", &[]);
    host.host_network = true;
    let pods = [pod("a", "10.0.0.1", &[(80, 31001)]), unnamed, elsewhere, host];
    let cases = [
        (TargetPort::Number(80), vec!["a 10.0.0.1:31001", "b 10.0.0.2:31002", "h 10.0.0.3:80"]),
        (TargetPort::Number(81), vec!["b 10.0.0.2:31003", "h 10.0.0.3:81"]),
        (named("http"), vec!["a 10.0.0.1:31001", "b 10.0.0.2:31002", "c 10.0.0.2:31004", "h 10.0.0.3:80"]),
        (named("absent"), vec![]),
    ];
    for (target, expected) in cases {
        let wanted = compute(&service(&[("", target.clone())]), &pods);
        assert_eq!(listed(&wanted), expected, "{target:?}");
        assert_eq!(sliced(&wanted), expected, "{target:?}");
    }
}

#[test]
fn a_protocol_that_was_not_granted_is_no_endpoint() {
    let mut udp = service(&[("", TargetPort::Number(80))]);
    udp.ports[0].protocol = "UDP".to_owned();
    assert!(sliced(&compute(&udp, &[pod("a", "10.0.0.1", &[(80, 31001)])])).is_empty());
}

#[test]
fn a_pod_that_serves_some_of_several_ports_is_listed_with_those() {
    let service = service(&[("web", TargetPort::Number(80)), ("admin", TargetPort::Number(81))]);
    let pods = [pod("a", "10.0.0.1", &[(80, 31001), (81, 31002)]), pod("b", "10.0.0.2", &[(80, 31001)])];
    let wanted = compute(&service, &pods);
    let expected = ["a 10.0.0.1:31002,31001", "b 10.0.0.2:31001"];
    assert_eq!(listed(&wanted), expected);
    assert_eq!(sliced(&wanted), expected);
    assert_eq!(
        wanted.endpoints["subsets"][0]["ports"][0],
        json!({ "name": "admin", "port": 31002, "protocol": "TCP" })
    );
}

#[test]
fn readiness_decides_where_a_pod_stands() {
    let with = |change: fn(&mut Pod)| {
        let mut pod = pod("a", "10.0.0.1", &[(80, 31001)]);
        change(&mut pod);
        pod
    };
    let ready = "a 10.0.0.1:31001";
    let unready = "!a 10.0.0.1:31001";
    // The pod; expected Endpoints and slices, first without, then with publishNotReadyAddresses.
    type Places = [Option<&'static str>; 2];
    let cases: [(Pod, Places, Places); 6] = [
        (with(|_| ()), [Some(ready); 2], [Some(ready); 2]),
        (with(|pod| pod.ready = false), [Some(unready); 2], [Some(ready); 2]),
        (with(|pod| pod.terminating = true), [None, Some(unready)], [Some(ready); 2]),
        (with(|pod| pod.finished = true), [None; 2], [None; 2]),
        (with(|pod| pod.node_address = None), [None; 2], [None; 2]),
        (with(|pod| pod.node = String::new()), [None; 2], [None; 2]),
    ];
    for (pod, plain, published) in cases {
        for (publish, expected) in [(false, plain), (true, published)] {
            let mut service = service(&[("", TargetPort::Number(80))]);
            service.publish_not_ready = publish;
            let wanted = compute(&service, std::slice::from_ref(&pod));
            let found = [listed(&wanted), sliced(&wanted)].map(|mut found| found.pop());
            assert_eq!(found, expected.map(|place| place.map(str::to_owned)), "{pod:?} {publish}");
        }
    }
}

#[test]
fn slices_tell_node_zone_and_conditions() {
    let mut ending = pod("a", "10.0.0.1", &[(80, 31001)]);
    ending.terminating = true;
    ending.node = "n1".to_owned();
    let mut service = service(&[("", TargetPort::Number(80))]);
    service.publish_not_ready = true;
    let place = Node { zone: Some("z".to_owned()) };
    let nodes = BTreeMap::from([(Key::new("", "n1"), place)]);
    let wanted = wanted(&service, std::iter::once(&ending), &nodes);
    let endpoint = wanted.slices.into_values().next().unwrap()["endpoints"][0].clone();
    let reference = json!({ "kind": "Pod", "namespace": "ns", "name": "a", "uid": "uid-a" });
    assert_eq!(
        endpoint,
        json!({
            "addresses": ["10.0.0.1"], "targetRef": reference, "nodeName": "n1", "zone": "z",
            "conditions": { "ready": true, "serving": true, "terminating": true },
        })
    );
}

#[test]
fn objects_carry_the_services_labels_our_mark_and_their_owner() {
    let mut service = service(&[("", TargetPort::Number(80))]);
    service.headless = true;
    service.labels.insert(SLICE_MANAGER_LABEL.to_owned(), "somebody".to_owned());
    let wanted = compute(&service, &[pod("a", "10.0.0.1", &[(80, 31001)])]);
    assert_eq!(
        wanted.endpoints["metadata"]["labels"],
        json!({ "team": "a", HEADLESS_LABEL: "", ENDPOINTS_MANAGER_LABEL: MANAGER })
    );
    let slice = wanted.slices.values().next().unwrap();
    assert_eq!(
        slice["metadata"]["labels"],
        json!({ "team": "a", HEADLESS_LABEL: "", SLICE_MANAGER_LABEL: MANAGER, SERVICE_NAME_LABEL: "web" })
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "service-uid");
}

#[test]
fn a_headless_service_without_ports_lists_addresses_and_names() {
    let mut service = service(&[]);
    service.headless = true;
    let mut member = pod("db-0", "10.0.0.1", &[(80, 31001)]);
    member.hostname = "db-0".to_owned();
    member.subdomain = "web".to_owned();
    let mut stranger = pod("x", "10.0.0.2", &[]);
    stranger.hostname = "x".to_owned();
    stranger.subdomain = "other".to_owned();
    let wanted = compute(&service, &[member, stranger]);
    assert_eq!(listed(&wanted), ["db-0 10.0.0.1:", "x 10.0.0.2:"]);
    assert_eq!(sliced(&wanted), ["db-0 10.0.0.1:", "x 10.0.0.2:"]);
    let addresses = &wanted.endpoints["subsets"][0]["addresses"];
    assert_eq!((&addresses[0]["hostname"], &addresses[1]["hostname"]), (&json!("db-0"), &Value::Null));
    let slice = wanted.slices.values().next().unwrap();
    assert_eq!(
        (&slice["endpoints"][0]["hostname"], &slice["endpoints"][1]["hostname"]),
        (&json!("db-0"), &Value::Null)
    );
}

#[test]
fn pods_with_the_same_ports_share_a_slice_and_families_do_not() {
    let service = service(&[("", TargetPort::Number(80))]);
    let pods = [
        pod("a", "10.0.0.1", &[(80, 31001)]),
        pod("b", "10.0.0.2", &[(80, 31001)]),
        pod("c", "10.0.0.2", &[(80, 31002)]),
        pod("d", "fd00::1", &[(80, 31001)]),
    ];
    let wanted = compute(&service, &pods);
    let mut sizes: Vec<_> = wanted
        .slices
        .values()
        .map(|slice| (slice["addressType"].as_str().unwrap(), slice["endpoints"].as_array().unwrap().len()))
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [("IPv4", 1), ("IPv4", 2), ("IPv6", 1)]);
}

#[test]
fn slices_stay_small_and_one_more_pod_touches_one_of_them() {
    let service = service(&[("", TargetPort::Number(80))]);
    let host = |index: usize| {
        let mut pod = pod(&format!("p{index}"), &format!("10.0.{}.{}", index / 250, index % 250 + 1), &[]);
        pod.host_network = true;
        pod
    };
    let mut pods: Vec<Pod> = (0..300).map(host).collect();
    let before = compute(&service, &pods);
    let sizes = before.slices.values().map(|slice| slice["endpoints"].as_array().unwrap().len());
    assert!(sizes.clone().max().unwrap() <= 100, "{:?}", sizes.collect::<Vec<_>>());
    pods.push(host(300));
    let after = compute(&service, &pods);
    let changed = after.slices.iter().filter(|(name, body)| before.slices.get(*name) != Some(body)).count();
    assert_eq!((changed, before.slices.len()), (1, after.slices.len()));
}

#[test]
fn endpoints_are_cut_at_a_thousand_and_lose_those_not_ready_first() {
    let service = service(&[("", TargetPort::Number(80))]);
    let pods: Vec<Pod> = (0..1001)
        .map(|index| {
            let mut pod = pod(&format!("p{index:04}"), &format!("10.0.{}.{}", index / 250, index % 250 + 1), &[]);
            pod.host_network = true;
            pod.ready = index != 0;
            pod
        })
        .collect();
    let wanted = compute(&service, &pods);
    assert_eq!((listed(&wanted).len(), sliced(&wanted).len()), (1000, 1001));
    assert!(wanted.endpoints["subsets"][0].get("notReadyAddresses").is_none());
}

#[test]
fn order_of_pods_does_not_change_the_bodies() {
    let service = service(&[("", TargetPort::Number(80))]);
    let mut pods = vec![
        pod("b", "10.0.0.2", &[(80, 31001)]),
        pod("a", "10.0.0.1", &[(80, 31001)]),
        pod("c", "10.0.0.1", &[(80, 9)]),
    ];
    let before = compute(&service, &pods);
    pods.reverse();
    assert_eq!(compute(&service, &pods), before);
}

#[test]
fn a_slice_name_leads_back_to_its_service() {
    let wanted = compute(&service(&[("", TargetPort::Number(80))]), &[pod("a", "10.0.0.1", &[(80, 31001)])]);
    assert_eq!(service_of_slice(wanted.slices.keys().next().unwrap()), "web");
    assert_eq!(service_of_slice("a-b-0123456789"), "a-b");
    assert_eq!(service_of_slice("odd"), "odd");
}

use serde_json::{Value, json};

use super::super::super::view::upstream::Told;
use super::super::records::Source;
use super::*;

/// The objects of the specification's examples, and of some rules that it states without an example.
fn records() -> Records {
    let mut records = Records::default();
    let service = |name: &str, spec: Value| {
        Told::Object(json!({ "metadata": { "namespace": "default", "name": name }, "spec": spec }))
    };
    let https = json!([{ "name": "https", "protocol": "TCP", "port": 443 }, { "protocol": "UDP", "port": 9 }]);
    let dual = json!(["10.3.0.2", "2001:db8::1"]);
    let services = [
        service("kubernetes", json!({ "clusterIP": "10.3.0.1", "clusterIPs": ["10.3.0.1"], "ports": https })),
        service("dual", json!({ "clusterIP": "10.3.0.2", "clusterIPs": dual, "ports": https })),
        service("headless", json!({ "clusterIP": "None", "ports": https })),
        service("empty", json!({ "clusterIP": "None", "ports": https })),
        service("early", json!({ "clusterIP": "None", "publishNotReadyAddresses": true })),
        service("foo", json!({ "type": "ExternalName", "externalName": "www.example.com" })),
    ];
    tell(&mut records, Source::Services, services.into());
    let slice = |name: &str, service: &str, endpoints: Value, port: u16| {
        Told::Object(json!({
            "metadata": {
                "namespace": "default", "name": name, "labels": { "kubernetes.io/service-name": service },
            },
            "endpoints": endpoints,
            "ports": [{ "name": "https", "protocol": "TCP", "port": port }, { "name": "", "port": 9 }],
        }))
    };
    let ready = json!({ "ready": true });
    let slices = [
        slice("h-1", "headless", json!([{ "addresses": ["10.3.0.100"], "hostname": "my-pet" }]), 31001),
        // Two pods on one node, with the node's address and different ports.
        slice("h-2", "headless", json!([{ "addresses": ["10.3.0.101"], "hostname": "my-pet-2" }]), 31001),
        slice("h-3", "headless", json!([{ "addresses": ["10.3.0.101"], "conditions": ready }]), 31002),
        slice("h-4", "headless", json!([{ "addresses": ["10.3.0.102"], "conditions": { "ready": false } }]), 31003),
        slice("e-1", "empty", json!([{ "addresses": ["10.3.0.102"], "conditions": { "ready": false } }]), 31003),
        slice("y-1", "early", json!([{ "addresses": ["10.3.0.102"], "conditions": { "ready": false } }]), 31003),
    ];
    tell(&mut records, Source::Slices, slices.into());
    records
}

fn tell(records: &mut Records, source: Source, objects: Vec<Told>) {
    records.tell(source, Told::Begin);
    objects.into_iter().for_each(|told| records.tell(source, told));
    records.tell(source, Told::End);
}

fn zone() -> Zone {
    Zone::new("cluster.local", [172, 30, 0, 1].into()).unwrap()
}

/// The answer as lines of a zone file without the TTL.
fn told(answer: Answer) -> Vec<String> {
    let line = |record: &Record| format!("{} IN {} {}", record.name, record.record_type(), record.data);
    match answer {
        Answer::Found { answers, .. } => answers.iter().map(line).collect(),
        Answer::Alias { record, .. } => vec![line(&record)],
        Answer::NoName => vec!["NXDOMAIN".to_owned()],
        Answer::Elsewhere => vec!["elsewhere".to_owned()],
        Answer::NotYet => vec!["not yet".to_owned()],
    }
}

fn ask(records: &Records, question: &str) -> Vec<String> {
    let (name, kind) = question.split_once(" IN ").unwrap();
    told(zone().answer(records, &Name::from_ascii(name).unwrap(), kind.parse().unwrap()))
}

#[test]
fn the_specifications_examples_are_answered_as_it_says() {
    let records = records();
    let cases: [(&str, &[&str]); 15] = [
        // 2.2 Record for schema version
        ("dns-version.cluster.local. IN TXT", &["dns-version.cluster.local. IN TXT 1.1.0"]),
        // 2.3.1 A and AAAA records of a Service with an address
        ("kubernetes.default.svc.cluster.local. IN A", &["kubernetes.default.svc.cluster.local. IN A 10.3.0.1"]),
        ("dual.default.svc.cluster.local. IN AAAA", &["dual.default.svc.cluster.local. IN AAAA 2001:db8::1"]),
        // 2.3.2 SRV
        (
            "_https._tcp.kubernetes.default.svc.cluster.local. IN SRV",
            &[
                "_https._tcp.kubernetes.default.svc.cluster.local. IN SRV 0 100 443 kubernetes.default.svc.cluster.local.",
            ],
        ),
        // 2.3.3 PTR
        ("1.0.3.10.in-addr.arpa. IN PTR", &["1.0.3.10.in-addr.arpa. IN PTR kubernetes.default.svc.cluster.local."]),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR",
            &["1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR \
               dual.default.svc.cluster.local."],
        ),
        // 2.4.1 A of a headless Service, and of one endpoint
        (
            "headless.default.svc.cluster.local. IN A",
            &[
                "headless.default.svc.cluster.local. IN A 10.3.0.100",
                "headless.default.svc.cluster.local. IN A 10.3.0.101",
            ],
        ),
        ("empty.default.svc.cluster.local. IN A", &["NXDOMAIN"]),
        ("early.default.svc.cluster.local. IN A", &["early.default.svc.cluster.local. IN A 10.3.0.102"]),
        (
            "my-pet.headless.default.svc.cluster.local. IN A",
            &["my-pet.headless.default.svc.cluster.local. IN A 10.3.0.100"],
        ),
        (
            "10-3-0-101.headless.default.svc.cluster.local. IN A",
            &["10-3-0-101.headless.default.svc.cluster.local. IN A 10.3.0.101"],
        ),
        // 2.4.2 SRV: the port is the granted host port
        (
            "_https._tcp.headless.default.svc.cluster.local. IN SRV",
            &[
                "_https._tcp.headless.default.svc.cluster.local. IN SRV 0 100 31001 \
                 my-pet.headless.default.svc.cluster.local.",
                "_https._tcp.headless.default.svc.cluster.local. IN SRV 0 100 31001 \
                 my-pet-2.headless.default.svc.cluster.local.",
                "_https._tcp.headless.default.svc.cluster.local. IN SRV 0 100 31002 \
                 10-3-0-101.headless.default.svc.cluster.local.",
            ],
        ),
        // 2.4.3 PTR of an endpoint
        (
            "100.0.3.10.in-addr.arpa. IN PTR",
            &["100.0.3.10.in-addr.arpa. IN PTR my-pet.headless.default.svc.cluster.local."],
        ),
        // 2.5 External names
        ("foo.default.svc.cluster.local. IN A", &["foo.default.svc.cluster.local. IN CNAME www.example.com."]),
        // 2.6 Deprecated records
        ("10-1-2-3.default.pod.cluster.local. IN A", &["10-1-2-3.default.pod.cluster.local. IN A 10.1.2.3"]),
    ];
    for (question, expected) in cases {
        assert_eq!(ask(&records, question), expected, "{question}");
    }
}

#[test]
fn names_without_the_asked_type_exist_and_others_do_not() {
    let records = records();
    let nothing: &[&str] = &[];
    let cases: [(&str, &[&str]); 19] = [
        ("kubernetes.default.svc.cluster.local. IN AAAA", nothing),
        ("headless.default.svc.cluster.local. IN AAAA", nothing),
        ("_tcp.kubernetes.default.svc.cluster.local. IN A", nothing),
        ("_https._tcp.kubernetes.default.svc.cluster.local. IN A", nothing),
        ("default.svc.cluster.local. IN A", nothing),
        ("svc.cluster.local. IN A", nothing),
        ("cluster.local. IN A", nothing),
        ("_http._tcp.kubernetes.default.svc.cluster.local. IN SRV", &["NXDOMAIN"]),
        ("_https._udp.kubernetes.default.svc.cluster.local. IN SRV", &["NXDOMAIN"]),
        // An unnamed port has no record.
        ("_._udp.kubernetes.default.svc.cluster.local. IN SRV", &["NXDOMAIN"]),
        ("nobody.default.svc.cluster.local. IN A", &["NXDOMAIN"]),
        ("kubernetes.other.svc.cluster.local. IN A", &["NXDOMAIN"]),
        ("other.svc.cluster.local. IN A", &["NXDOMAIN"]),
        ("my-pet.kubernetes.default.svc.cluster.local. IN A", &["NXDOMAIN"]),
        ("nonsense.cluster.local. IN A", &["NXDOMAIN"]),
        ("www.example.com. IN A", &["elsewhere"]),
        ("cluster.local.example.com. IN A", &["elsewhere"]),
        ("9.9.9.9.in-addr.arpa. IN PTR", &["elsewhere"]),
        ("ns.dns.cluster.local. IN A", &["ns.dns.cluster.local. IN A 172.30.0.1"]),
    ];
    for (question, expected) in cases {
        assert_eq!(ask(&records, question), expected, "{question}");
    }
}

#[test]
fn case_does_not_matter_and_is_given_back() {
    let answer = ask(&records(), "Kubernetes.DEFAULT.svc.Cluster.Local. IN A");
    assert_eq!(answer, ["Kubernetes.DEFAULT.svc.Cluster.Local. IN A 10.3.0.1"]);
}

#[test]
fn an_srv_answer_brings_the_addresses_of_its_targets() {
    let name = Name::from_ascii("_https._tcp.headless.default.svc.cluster.local.").unwrap();
    let Answer::Found { additionals, .. } = zone().answer(&records(), &name, RecordType::SRV) else { panic!() };
    let told: Vec<String> = additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    assert_eq!(
        told,
        [
            "my-pet.headless.default.svc.cluster.local. 10.3.0.100",
            "my-pet-2.headless.default.svc.cluster.local. 10.3.0.101",
            "10-3-0-101.headless.default.svc.cluster.local. 10.3.0.101",
        ]
    );
}

#[test]
fn before_both_lists_are_known_nothing_is_denied() {
    let mut records = Records::default();
    assert_eq!(ask(&records, "kubernetes.default.svc.cluster.local. IN A"), ["not yet"]);
    tell(&mut records, Source::Services, Vec::new());
    assert_eq!(ask(&records, "kubernetes.default.svc.cluster.local. IN A"), ["not yet"]);
    tell(&mut records, Source::Slices, Vec::new());
    assert_eq!(ask(&records, "kubernetes.default.svc.cluster.local. IN A"), ["NXDOMAIN"]);
    assert_eq!(ask(&Records::default(), "www.example.com. IN A"), ["elsewhere"]);
}

#[test]
fn what_goes_is_forgotten_also_when_a_list_comes_again() {
    let mut records = records();
    let object = |name: &str| Told::Gone(json!({ "metadata": { "namespace": "default", "name": name } }));
    records.tell(Source::Slices, object("h-1"));
    assert_eq!(ask(&records, "my-pet.headless.default.svc.cluster.local. IN A"), ["NXDOMAIN"]);
    assert_eq!(ask(&records, "100.0.3.10.in-addr.arpa. IN PTR"), ["elsewhere"]);
    records.tell(Source::Services, object("kubernetes"));
    assert_eq!(ask(&records, "1.0.3.10.in-addr.arpa. IN PTR"), ["elsewhere"]);
    tell(&mut records, Source::Services, Vec::new());
    assert_eq!(ask(&records, "headless.default.svc.cluster.local. IN A"), ["NXDOMAIN"]);
    assert_eq!(ask(&records, "101.0.3.10.in-addr.arpa. IN PTR"), ["elsewhere"]);
}

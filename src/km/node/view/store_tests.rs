use std::net::IpAddr;

use super::super::translate::NodePort;
use super::*;

fn ports(address: [u8; 4]) -> Translations {
    let port = NodePort { number: 31001, protocol: "TCP".to_owned() };
    [(port, (IpAddr::from(address), 80))].into()
}

fn store() -> Store {
    let here = Here { address: IpAddr::from([10, 0, 0, 1]), ports: Translations::new() };
    Store::new(Resource::EndpointSlices, here)
}

fn slice(name: &str, version: u32, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({ "addresses": [address] })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "ns", "name": name, "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
            "managedFields": [{ "manager": "x" }],
        },
        "endpoints": endpoints,
        "ports": [{ "name": "http", "protocol": "TCP", "port": 31001 }],
    })
}

/// `KIND name first-address`.
fn told(changes: Result<Vec<Change>, Expired>) -> Vec<String> {
    let one = |change: Change| {
        let object = parsed(&change.object);
        assert_eq!(object["metadata"]["resourceVersion"], json!(change.version.to_string()));
        let address = object["endpoints"][0]["addresses"][0].as_str().unwrap_or("-");
        format!("{} {} {address}", change.kind.name(), object["metadata"]["name"].as_str().unwrap())
    };
    changes.unwrap().into_iter().map(one).collect()
}

fn listed(store: &mut Store, objects: &[Value]) {
    store.begin_list();
    objects.iter().for_each(|object| store.apply(object.clone()));
    store.end_list();
}

#[test]
fn a_watch_goes_on_where_a_list_ended() {
    let mut store = store();
    assert!(!store.synced());
    listed(&mut store, &[slice("a", 7, &["10.0.0.2"])]);
    assert!(store.synced());
    let version = store.version();
    let items = store.list();
    assert_eq!(items.len(), 1);
    assert_eq!(parsed(&items[0])["metadata"]["managedFields"], Value::Null);
    assert_eq!(told(store.since(version)), [""; 0]);
    store.apply(slice("b", 8, &["10.0.0.3"]));
    store.apply(slice("a", 9, &["10.0.0.4"]));
    store.delete(&slice("b", 10, &[]));
    assert_eq!(told(store.since(version)), ["ADDED b 10.0.0.3", "MODIFIED a 10.0.0.4", "DELETED b 10.0.0.3"]);
    assert_eq!(told(store.since(version + 2)), ["DELETED b 10.0.0.3"]);
}

#[test]
fn a_pods_new_address_is_a_change_of_its_own() {
    let mut store = store();
    listed(&mut store, &[slice("a", 7, &["10.0.0.1"]), slice("b", 8, &["10.0.0.2"])]);
    let version = store.version();
    store.translate(ports([172, 30, 0, 5]));
    assert_eq!(told(store.since(version)), ["MODIFIED a -", "ADDED a.0-80 172.30.0.5"]);
    let version = store.version();
    store.translate(ports([172, 30, 0, 6]));
    assert_eq!(told(store.since(version)), ["MODIFIED a.0-80 172.30.0.6"]);
    let version = store.version();
    store.translate(ports([172, 30, 0, 6]));
    assert_eq!(store.version(), version, "nothing changed");
    store.translate(Translations::new());
    assert_eq!(told(store.since(version)), ["MODIFIED a 10.0.0.1", "DELETED a.0-80 172.30.0.6"]);
    let version = store.version();
    store.translate(ports([172, 30, 0, 6]));
    store.delete(&slice("a", 9, &[]));
    let end = told(store.since(version));
    assert_eq!(end[2..], ["DELETED a -", "DELETED a.0-80 172.30.0.6"], "all that stood for it goes with it");
}

#[test]
fn a_list_that_comes_again_tells_only_what_is_different() {
    let mut store = store();
    store.translate(ports([172, 30, 0, 5]));
    let (a, b) = (slice("a", 7, &["10.0.0.1"]), slice("b", 8, &["10.0.0.2"]));
    listed(&mut store, &[a.clone(), b.clone()]);
    let version = store.version();
    listed(&mut store, &[a.clone(), b]);
    assert_eq!(store.version(), version);
    listed(&mut store, &[a, slice("c", 9, &["10.0.0.3"])]);
    assert_eq!(told(store.since(version)), ["ADDED c 10.0.0.3", "DELETED b 10.0.0.2"]);
    // Written again with the same content: a proxy needs no event.
    let version = store.version();
    store.apply(slice("c", 11, &["10.0.0.3"]));
    assert_eq!(store.version(), version);
}

#[test]
fn versions_that_are_too_old_or_not_ours_are_expired() {
    let mut store = store();
    listed(&mut store, &[]);
    let first = store.version();
    for version in 0..=HISTORY as u32 {
        store.apply(slice("a", version, &[&format!("10.1.{}.{}", version / 256, version % 256)]));
    }
    assert_eq!(store.since(first), Err(Expired { asked: first, oldest: first + 1 }));
    assert_eq!(store.since(first + 1).map(|changes| changes.len()), Ok(HISTORY));
    let beyond = store.version() + 1;
    assert!(store.since(beyond).is_err(), "of an earlier life of the view");
}

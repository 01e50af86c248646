use super::super::lists::tests::{World, slice, slices};
use super::super::upstream::Told;
use super::*;

#[test]
fn only_what_a_proxy_asks_for_is_answered() {
    let slices = |version: &str| Route::List(Resource::EndpointSlices, version.to_owned());
    let cases = [
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices", slices("v1")),
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices", slices("v1")),
        ("GET", "/api/v1/endpoints", Route::List(Resource::Endpoints, "v1".to_owned())),
        ("GET", "/api/v1/services", Route::Pass),
        ("GET", "/api/v1/nodes/agent-1", Route::Pass),
        ("GET", "/apis/discovery.k8s.io/v1", Route::Pass),
        ("POST", "/apis/events.k8s.io/v1/namespaces/default/events", Route::Pass),
        ("GET", "/api/v1/secrets", Route::Refuse),
        ("GET", "/api/v1/namespaces/ns/endpoints", Route::Refuse),
        ("GET", "/api/v1/namespaces/ns/secrets/s", Route::Refuse),
        ("DELETE", "/api/v1/nodes/agent-1", Route::Refuse),
        ("POST", "/api/v1/namespaces/ns/pods", Route::Refuse),
        ("GET", "/api/v1/nodes/agent-1/proxy/pods", Route::Refuse),
    ];
    for (method, path, expected) in cases {
        assert_eq!(route(&method.parse().unwrap(), path), expected, "{method} {path}");
    }
}

#[test]
fn json_is_told_to_who_takes_it() {
    let cases = [
        (vec!["application/vnd.kubernetes.protobuf, */*"], true),
        (vec!["application/vnd.kubernetes.protobuf,application/json"], true),
        (vec!["application/json;stream=watch"], true),
        (vec![], true),
        (vec!["application/vnd.kubernetes.protobuf"], false),
        (vec!["application/json;as=Table;v=v1;g=meta.k8s.io"], false),
        (vec!["application/vnd.kubernetes.protobuf", "application/json"], true),
    ];
    for (accepted, expected) in cases {
        let mut headers = HeaderMap::new();
        for one in &accepted {
            headers.append(header::ACCEPT, one.parse().unwrap());
        }
        assert_eq!(takes_json(&headers), expected, "{accepted:?}");
    }
}

#[test]
fn questions_are_read_as_clients_write_them() {
    let uri = "/x?allowWatchBookmarks=true&labelSelector=%21a%2C%21b&resourceVersion=12&timeoutSeconds=90&watch=true";
    let (watch, labels, fields, options) = asked(&uri.parse().unwrap()).unwrap();
    assert_eq!((watch, labels.as_str(), fields.as_str()), (true, "!a,!b", ""));
    let limit = Some(Duration::from_secs(90));
    assert_eq!(options, WatchOptions { version: Some(12), bookmarks: true, initial: false, limit });
    let (watch, _, _, options) = asked(&"/x?limit=500&resourceVersion=0".parse().unwrap()).unwrap();
    assert_eq!((watch, options), (false, WatchOptions::default()), "zero is any version");
    assert!(asked(&"/x?resourceVersion=old".parse().unwrap()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_the_token_reads_over_tls_and_nobody_else_does() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (world, lists) = World::new();
    let door = LocalApiServer::open().unwrap();
    let (url, token) = (door.url.clone(), door.token.clone());
    let authority = reqwest::Certificate::from_pem(door.certificate.as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let server = tokio::spawn(door.serve(lists, world.upstream.clone()));
    let get = async |path: &str, token: &str| {
        let accept = "application/vnd.kubernetes.protobuf, */*";
        let request = client.get(format!("{url}{path}")).bearer_auth(token).header("accept", accept);
        let answer = request.send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    };
    let list = "/apis/discovery.k8s.io/v1/endpointslices";
    assert_eq!(get(list, "guessed").await.0, 401);
    assert_eq!(get("/api/v1/secrets", &token).await.0, 403);
    let (code, kind, text) = get("/api/v1/services?watch=true", &token).await;
    assert_eq!((code, kind.as_str()), (200, "text/x"));
    assert_eq!(text, r#"GET /api/v1/services?watch=true Some("application/vnd.kubernetes.protobuf, */*")"#);
    world.map([172, 30, 0, 5]);
    let (answer, ()) =
        tokio::join!(get(list, &token), world.tell(vec![Told::Begin, slice("a", 1, "10.0.0.1"), Told::End]));
    assert_eq!((answer.0, answer.1.as_str()), (200, "application/json"));
    assert!(answer.2.contains(r#""addresses":["172.30.0.5"]"#), "{}", answer.2);
    let (code, _, text) = get(&format!("{list}?watch=true&resourceVersion=99"), &token).await;
    assert_eq!(code, 410);
    assert!(text.contains(r#""reason":"Expired""#), "{text}");
    let (_, _, lines) = get(&format!("{list}?watch=true&timeoutSeconds=1"), &token).await;
    assert_eq!(lines.lines().count(), 2, "the two slices that stand for the one: {lines}");
    assert!(world.upstream.told.lock().unwrap().contains_key(&slices()));
    server.abort();
}

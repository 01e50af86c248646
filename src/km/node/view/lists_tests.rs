use std::net::IpAddr;

use async_trait::async_trait;
use axum::body::Body;

use super::super::super::deps::DepError;
use super::super::translate::NodePort;
use super::*;

/// Gives a test the senders of all followed lists.
#[derive(Default)]
pub struct Recorded {
    /// The sender of each list.
    pub told: Mutex<BTreeMap<ListOf, mpsc::UnboundedSender<Told>>>,
}

#[async_trait]
impl Upstream for Recorded {
    async fn follow(&self, list: ListOf, told: mpsc::UnboundedSender<Told>) {
        self.told.lock().unwrap().insert(list, told.clone());
        told.closed().await;
    }

    async fn pass(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Body>, DepError> {
        let text = format!("{} {} {:?}", request.method(), request.uri(), request.headers().get("accept"));
        Ok(http::Response::builder().header("content-type", "text/x").body(Body::from(text)).unwrap())
    }
}

pub fn slices() -> ListOf {
    ListOf::rewritten(Resource::EndpointSlices, "v1")
}

async fn get(lists: &Lists) -> Option<Arc<Followed>> {
    lists.get(Resource::EndpointSlices, slices()).await
}

pub fn slice(name: &str, version: u32, address: &str) -> Told {
    Told::Object(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "namespace": "ns", "name": name, "uid": name, "resourceVersion": version.to_string() },
        "endpoints": [{ "addresses": [address] }],
        "ports": [{ "name": "", "protocol": "TCP", "port": 31001 }],
    }))
}

pub struct World {
    pub upstream: Arc<Recorded>,
    pub ports: watch::Sender<Translations>,
}

impl World {
    pub fn new() -> (World, Lists) {
        let upstream = Arc::new(Recorded::default());
        let ports = watch::Sender::new(Translations::new());
        let lists = Lists::new(IpAddr::from([10, 0, 0, 1]), ports.subscribe(), upstream.clone());
        (World { upstream, ports }, lists)
    }

    pub async fn tell(&self, what: Vec<Told>) {
        loop {
            let told = self.upstream.told.lock().unwrap().get(&slices()).cloned();
            let Some(told) = told else {
                tokio::task::yield_now().await;
                continue;
            };
            what.into_iter().for_each(|one| told.send(one).unwrap());
            return;
        }
    }

    pub fn map(&self, address: [u8; 4]) {
        let port = NodePort { number: 31001, protocol: "TCP".to_owned() };
        self.ports.send_replace([(port, (IpAddr::from(address), 80))].into());
    }
}

/// `TYPE name version`, or `ERROR code`.
async fn next(watching: &mut Watching) -> String {
    let Some(line) = watching.next().await else { return "end".to_owned() };
    assert!(line.ends_with(b"\n"));
    let event: Value = serde_json::from_slice(&line).unwrap();
    let (kind, object) = (event["type"].as_str().unwrap(), &event["object"]);
    assert!(object["kind"].is_string() && object["apiVersion"].is_string(), "{event}");
    match kind {
        "ERROR" => format!("ERROR {} {}", object["code"], object["reason"].as_str().unwrap()),
        _ => {
            let name = object["metadata"]["name"].as_str().unwrap_or("-");
            format!("{kind} {name} {}", object["metadata"]["resourceVersion"].as_str().unwrap())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_lists_and_watches_as_it_does_with_the_api_server() {
    let (world, lists) = World::new();
    let lists = Arc::new(lists);
    let first = tokio::spawn({
        let lists = lists.clone();
        async move { get(&lists).await }
    });
    world.tell(vec![Told::Begin, slice("a", 1, "10.0.0.2"), Told::End]).await;
    let list = first.await.unwrap().unwrap();
    let body: Value = serde_json::from_slice(&list.list(None).unwrap()).unwrap();
    assert_eq!((&body["kind"], &body["apiVersion"]), (&json!("EndpointSliceList"), &json!("discovery.k8s.io/v1")));
    assert_eq!(body["metadata"]["resourceVersion"], "2");
    assert_eq!(body["items"][0]["metadata"]["name"], "a");

    let options =
        WatchOptions { version: Some(2), bookmarks: true, limit: Some(Duration::from_secs(90)), initial: false };
    let mut watching = list.clone().watch(&options).unwrap();
    world.tell(vec![slice("b", 2, "10.0.0.1")]).await;
    assert_eq!(next(&mut watching).await, "ADDED b 3");
    // The pod's address changes without a change in the API.
    world.map([172, 30, 0, 5]);
    assert_eq!(next(&mut watching).await, "MODIFIED b 4");
    assert_eq!(next(&mut watching).await, "ADDED b.0-80 5");
    // A minute without changes, then the end that the client requested.
    assert_eq!(next(&mut watching).await, "BOOKMARK - 5");
    assert_eq!(next(&mut watching).await, "BOOKMARK - 5");
    assert_eq!(next(&mut watching).await, "end");

    let mut again = list.clone().watch(&WatchOptions { version: Some(3), ..WatchOptions::default() }).unwrap();
    assert_eq!(next(&mut again).await, "MODIFIED b 4");
    assert!(list.clone().watch(&WatchOptions { version: Some(77), ..WatchOptions::default() }).is_err());
    assert!(list.list(Some(77)).is_err(), "what it knows is of another life");
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let (world, lists) = World::new();
    let (list, ()) = tokio::join!(
        get(&lists),
        world.tell(vec![Told::Begin, slice("a", 1, "10.0.0.2"), slice("b", 1, "10.0.0.3"), Told::End])
    );
    let list = list.unwrap();
    let mut plain = list.clone().watch(&WatchOptions::default()).unwrap();
    assert_eq!([next(&mut plain).await, next(&mut plain).await], ["ADDED a 2", "ADDED b 3"]);
    let options = WatchOptions { initial: true, bookmarks: true, ..WatchOptions::default() };
    let mut streamed = list.clone().watch(&options).unwrap();
    next(&mut streamed).await;
    next(&mut streamed).await;
    let line: Value = serde_json::from_slice(&streamed.next().await.unwrap()).unwrap();
    assert_eq!(line["type"], "BOOKMARK");
    assert_eq!(line["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_too_far_behind_is_told_to_list_again() {
    let (world, lists) = World::new();
    let (list, ()) = tokio::join!(get(&lists), world.tell(vec![Told::Begin, Told::End]));
    let list = list.unwrap();
    let mut slow = list.clone().watch(&WatchOptions { version: Some(1), ..WatchOptions::default() }).unwrap();
    let many = (0..3000).map(|n| slice("a", n, &format!("10.1.{}.{}", n / 256, n % 256)));
    world.tell(many.collect()).await;
    let mut version = list.version.subscribe();
    version.wait_for(|version| *version > 3000).await.unwrap();
    assert_eq!(next(&mut slow).await, "ERROR 410 Expired");
    assert_eq!(next(&mut slow).await, "end");
}

#[tokio::test(start_paused = true)]
async fn without_the_api_server_the_first_list_does_not_wait_for_ever() {
    let (_world, lists) = World::new();
    assert!(get(&lists).await.is_none());
}

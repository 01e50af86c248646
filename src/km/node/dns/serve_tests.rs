use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::A;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Sends each list once.
struct Api(Mutex<Vec<(&'static str, Vec<serde_json::Value>)>>);

#[async_trait]
impl Upstream for Api {
    async fn follow(&self, list: ListOf, told: mpsc::UnboundedSender<Told>) {
        let objects = self.0.lock().unwrap().iter().find(|(plural, _)| *plural == list.plural).unwrap().1.clone();
        told.send(Told::Begin).unwrap();
        objects.into_iter().for_each(|object| told.send(Told::Object(object)).unwrap());
        told.send(Told::End).unwrap();
        told.closed().await;
    }

    async fn pass(&self, _: http::Request<Vec<u8>>) -> Result<http::Response<axum::body::Body>, DepError> {
        Err(DepError::NotNow("nothing is handed on".to_owned()))
    }
}

fn api() -> Arc<Api> {
    let service =
        |name: &str, spec: serde_json::Value| json!({ "metadata": { "namespace": "ns", "name": name }, "spec": spec });
    let services = vec![
        service("web", json!({ "clusterIP": "10.96.0.7" })),
        service("out", json!({ "type": "ExternalName", "externalName": "www.example.com" })),
        service("inner", json!({ "type": "ExternalName", "externalName": "web.ns.svc.cluster.local" })),
        service("round", json!({ "type": "ExternalName", "externalName": "round.ns.svc.cluster.local" })),
        service("many", json!({ "clusterIP": "None" })),
    ];
    let endpoints: Vec<_> = (0..200).map(|n| json!({ "addresses": [format!("10.1.0.{n}")] })).collect();
    let slice = json!({
        "metadata": { "namespace": "ns", "name": "many-1", "labels": { "kubernetes.io/service-name": "many" } },
        "endpoints": endpoints,
    });
    Arc::new(Api(Mutex::new(vec![("services", services), ("endpointslices", vec![slice])])))
}

/// A resolver of the host: knows one name, and counts its queries.
async fn host_resolver() -> (SocketAddr, Arc<Mutex<u32>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (socket.local_addr().unwrap(), Arc::new(Mutex::new(0)));
    let asked = count.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (size, peer) = socket.recv_from(&mut buffer).await.unwrap();
            *asked.lock().unwrap() += 1;
            let question = Message::from_vec(&buffer[..size]).unwrap();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.add_queries(question.queries.iter().cloned());
            let name = question.queries[0].name.clone();
            if name.to_ascii().eq_ignore_ascii_case("www.example.com.") {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A([192, 0, 2, 53].into()))));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    (address, count)
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        message.edns = Some(Edns::new());
        message.edns.as_mut().unwrap().set_max_payload(payload);
    }
    message.to_vec().unwrap()
}

async fn udp(server: SocketAddr, name: &str, payload: Option<u16>) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, RecordType::A, payload), server).await.unwrap();
    let mut buffer = vec![0; 65535];
    let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer));
    let size = received.await.unwrap_or_else(|_| panic!("no answer for {name}")).unwrap();
    Message::from_vec(&buffer[..size]).unwrap()
}

async fn tcp(server: SocketAddr, name: &str) -> Message {
    let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
    let question = question(name, RecordType::A, None);
    stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hears_of_the_cluster_and_of_the_world() {
    let (resolver, asked) = host_resolver().await;
    let mut upstream = hickory_resolver::config::NameServerConfig::udp(resolver.ip());
    upstream.connections[0].port = resolver.port();
    // The port that is free for UDP may be in use for TCP, by a concurrent test.
    let server = (0..50).find_map(|_| NameServer::bind("127.0.0.1:0".parse().unwrap()).ok()).unwrap();
    let address = server.address().unwrap();
    let zone = Zone::new("cluster.local", address.ip()).unwrap();
    let slices = ListOf::rewritten(super::super::super::view::translate::Resource::EndpointSlices, "v1");
    let forward = Forward::to(vec![upstream]).unwrap();
    let serving = tokio::spawn(server.serve(zone, forward, slices, api()));
    // Separate tasks load the lists.
    while udp(address, "web.ns.svc.cluster.local.", None).await.metadata.response_code == ResponseCode::ServFail {}

    let told = |message: &Message| -> Vec<String> {
        message.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect()
    };
    let web = udp(address, "web.ns.svc.cluster.local.", None).await;
    assert_eq!(told(&web), ["A 10.96.0.7"]);
    assert!(web.metadata.authoritative && web.metadata.recursion_available);
    let none = udp(address, "nobody.ns.svc.cluster.local.", None).await;
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(none.authorities.len(), 1, "how long that may be kept");

    // Aliases inside and outside the cluster, and external names.
    assert_eq!(
        told(&udp(address, "inner.ns.svc.cluster.local.", None).await),
        ["CNAME web.ns.svc.cluster.local.", "A 10.96.0.7"]
    );
    let round = udp(address, "round.ns.svc.cluster.local.", None).await;
    assert_eq!(round.metadata.response_code, ResponseCode::ServFail);
    for _ in 0..3 {
        let out = udp(address, "out.ns.svc.cluster.local.", None).await;
        assert_eq!(told(&out), ["CNAME www.example.com.", "A 192.0.2.53"]);
        let world = udp(address, "www.example.com.", None).await;
        assert_eq!((told(&world), world.metadata.authoritative), (vec!["A 192.0.2.53".to_owned()], false));
    }
    assert_eq!(*asked.lock().unwrap(), 1, "the first answer is kept");
    let nowhere = udp(address, "nowhere.example.com.", None).await;
    assert_eq!(nowhere.metadata.response_code, ResponseCode::NXDomain);

    // Too long for a packet: truncated over UDP, complete over TCP.
    for (payload, limit) in [(None, 512), (Some(4096), 1232)] {
        let cut = udp(address, "many.ns.svc.cluster.local.", payload).await;
        assert!(cut.metadata.truncation && cut.to_vec().unwrap().len() <= limit, "{payload:?}");
    }
    let whole = tcp(address, "many.ns.svc.cluster.local.").await;
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
    serving.abort();
}

#[tokio::test]
async fn a_port_that_another_resolver_holds_is_named() {
    let held = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let address = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), held.local_addr().unwrap().port());
    let Err(error) = NameServer::bind(address) else { panic!("two resolvers at one port") };
    assert!(matches!(error, DepError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains(&format!("port {} at 127.0.0.1 is in use", address.port())), "{error}");
}

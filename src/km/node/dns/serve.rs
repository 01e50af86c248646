//! The DNS server: UDP and TCP at one address.
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::{Edns, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use super::super::deps::DepError;
use super::super::view::upstream::{ListOf, Told, Upstream};
use super::answer::{Answer, Zone};
use super::forward::{Forward, Forwarded};
use super::records::{Records, Source};

/// An idle TCP client is disconnected after this time.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Number of queued responses of one TCP connection.
const TCP_BUFFER: usize = 32;
/// Largest UDP answer in bytes, whatever the client accepts: larger packets are fragmented, and fragments get lost.
const UDP_LARGEST: u16 = 1232;
/// How many aliases are followed within the cluster.
const ALIASES: usize = 8;

/// A server with bound sockets.
pub struct NameServer {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl NameServer {
    /// Binds UDP and TCP to `address`.
    pub fn bind(address: SocketAddr) -> Result<NameServer, DepError> {
        let taken = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => DepError::Refused(format!(
                "port {} at {} is in use, so pods would have no DNS: a resolver of this host listens on all \
                 addresses; configure it for specific addresses",
                address.port(),
                address.ip()
            )),
            _ => DepError::Io { what: format!("listen on {address} for DNS"), source: error },
        };
        let udp = std::net::UdpSocket::bind(address).map_err(taken)?;
        // TCP uses the same port, also if the UDP port was chosen by the kernel.
        let tcp = udp.local_addr().and_then(std::net::TcpListener::bind).map_err(taken)?;
        NameServer::on(udp, tcp)
    }

    /// From bound sockets.
    pub fn on(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> Result<NameServer, DepError> {
        let what = "listen for DNS";
        udp.set_nonblocking(true).map_err(DepError::io(what))?;
        tcp.set_nonblocking(true).map_err(DepError::io(what))?;
        let udp = UdpSocket::from_std(udp).map_err(DepError::io(what))?;
        Ok(NameServer { udp, tcp: TcpListener::from_std(tcp).map_err(DepError::io(what))? })
    }

    /// The address of the UDP socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.udp.local_addr().ok()
    }

    /// Serves until dropped, from the Services and the EndpointSlices (in the version of `slices`) of `upstream`.
    pub async fn serve(self, zone: Zone, forward: Forward, slices: ListOf, upstream: Arc<dyn Upstream>) {
        let records = Arc::new(RwLock::new(Records::default()));
        let follow = async |source: Source, list: ListOf| {
            let (told, inbox) = mpsc::unbounded_channel();
            tokio::join!(upstream.follow(list, told), note(records.clone(), source, inbox));
        };
        let mut server = Server::new(Handler { zone, forward, records: records.clone() });
        server.register_socket(self.udp);
        server.register_listener(self.tcp, TCP_IDLE, TCP_BUFFER);
        let answer = async {
            if let Err(error) = server.block_until_done().await {
                tracing::error!(%error, "DNS server stopped");
            }
        };
        tokio::join!(follow(Source::Services, ListOf::services()), follow(Source::Slices, slices), answer);
    }
}

async fn note(records: Arc<RwLock<Records>>, source: Source, mut inbox: mpsc::UnboundedReceiver<Told>) {
    while let Some(told) = inbox.recv().await {
        records.write().unwrap_or_else(PoisonError::into_inner).tell(source, told);
    }
}

struct Handler {
    zone: Zone,
    forward: Forward,
    records: Arc<RwLock<Records>>,
}

/// The contents of a response.
#[derive(Debug)]
struct Said {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Option<Record>,
    additionals: Vec<Record>,
}

impl Said {
    fn code(code: ResponseCode) -> Self {
        Said { code, authoritative: false, answers: Vec::new(), authority: None, additionals: Vec::new() }
    }
}

impl Handler {
    async fn say(&self, request: &Request) -> Said {
        let metadata = &request.metadata;
        if metadata.message_type != MessageType::Query || metadata.op_code != OpCode::Query {
            return Said::code(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Said::code(ResponseCode::FormErr) };
        let query = info.query.original();
        if query.query_class != DNSClass::IN {
            return Said::code(ResponseCode::Refused);
        }
        self.look_up(&query.name, query.query_type).await
    }

    async fn look_up(&self, name: &Name, kind: RecordType) -> Said {
        let mut said = Said { authoritative: true, ..Said::code(ResponseCode::NoError) };
        let mut name = name.clone();
        for _ in 0..ALIASES {
            let answer = self.zone.answer(&self.records.read().unwrap_or_else(PoisonError::into_inner), &name, kind);
            match answer {
                Answer::Found { answers, additionals } => {
                    said.authority = answers.is_empty().then(|| self.zone.authority());
                    said.answers.extend(answers);
                    said.additionals = additionals;
                    return said;
                }
                Answer::NoName => {
                    said.code = ResponseCode::NXDomain;
                    said.authority = Some(self.zone.authority());
                    return said;
                }
                Answer::NotYet => return Said::code(ResponseCode::ServFail),
                Answer::Elsewhere => {
                    let Forwarded { code, answers, authority } = self.forward.ask(&name, kind).await;
                    // A query for a name of the cluster gets an authoritative answer, even if the external target has
                    // none.
                    said.authoritative = !said.answers.is_empty();
                    said.code = code;
                    said.answers.extend(answers);
                    said.authority = authority;
                    return said;
                }
                Answer::Alias { record, target } => {
                    said.answers.push(*record);
                    name = target;
                }
            }
        }
        Said::code(ResponseCode::ServFail)
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let said = self.say(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = said.code;
        metadata.authoritative = said.authoritative;
        metadata.recursion_available = true;
        let mut builder = MessageResponseBuilder::from_message_request(request);
        let mut edns = Edns::new();
        if let Some(asked) = &request.edns {
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_LARGEST));
            builder.edns(&edns);
        }
        let built = builder.build(metadata, &said.answers, None, &said.authority, &said.additionals);
        match response.send_response(built).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "failed to send a DNS response");
                let mut failed = Metadata::response_from_request(&request.metadata);
                failed.response_code = ResponseCode::ServFail;
                ResponseInfo::from(hickory_proto::op::Header { metadata: failed, counts: Default::default() })
            }
        }
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;

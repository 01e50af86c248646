//! The node's way to the API servers: a port of loopback that leads to one of them that answers.
//!
//! kubelet and kube-proxy read one address at their start and keep it. This address stays when an API server dies: the
//! connection ends, and the next one leads to another server. Bytes are passed on as they are; TLS is between the
//! client and the API server, whose certificate names 127.0.0.1. So the port opens nothing that the server's own
//! address would not, and holds no credentials.
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::super::deps::DepError;

/// Until the next server is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Seconds after which an idle connection is asked whether its other end still lives, and between such questions.
const IDLE: u32 = 5;
const BETWEEN: u32 = 2;

/// Milliseconds in which the other end has to acknowledge something, be it the question whether it lives. A machine that
/// has lost its power says nothing; a kubelet that is heard of by nobody for 40 s loses its pods.
const UNHEARD: u32 = 10_000;

/// A port that leads to the API servers, for as long as this lives.
pub struct Way {
    /// `https://127.0.0.1:port`.
    pub url: String,
    _serving: AbortOnDropHandle<()>,
}

struct Servers {
    /// `host:port` of each.
    addresses: Vec<String>,
    /// The one that answered last: whoever is tried first is tried by all.
    present: AtomicUsize,
}

impl Way {
    /// Opens it. `servers` are `https://host:port`.
    pub async fn open(servers: &[String]) -> Result<Way, DepError> {
        let what = "listen on loopback for the API servers";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(DepError::io(what))?;
        let url = format!("https://{}", listener.local_addr().map_err(DepError::io(what))?);
        let address = |server: &String| server.trim_start_matches("https://").trim_end_matches('/').to_owned();
        let addresses = servers.iter().map(address).collect();
        let servers = Arc::new(Servers { addresses, present: AtomicUsize::new(0) });
        Ok(Way { url, _serving: AbortOnDropHandle::new(tokio::spawn(serve(listener, servers))) })
    }
}

async fn serve(listener: TcpListener, servers: Arc<Servers>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, for example: a pause, not a busy loop.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let servers = servers.clone();
        tokio::spawn(async move {
            if let Err(error) = servers.pass(client).await {
                debug!(%error, "a connection to an API server ended");
            }
        });
    }
}

impl Servers {
    async fn pass(&self, mut client: TcpStream) -> io::Result<()> {
        let (number, mut server) = self.connect().await?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        notice_its_death(&server)?;
        let ended = copy_bidirectional(&mut client, &mut server).await;
        let gone = match &ended {
            // One that takes connections and says nothing, such as a load balancer without a server, does not answer.
            Ok((asked, said)) => *asked > 0 && *said == 0,
            Err(error) => error.kind() == io::ErrorKind::TimedOut,
        };
        if gone {
            self.give_up(number);
        }
        ended.map(drop)
    }

    /// The first server that takes a connection, from the present one on.
    async fn connect(&self) -> io::Result<(usize, TcpStream)> {
        let (first, count) = (self.present.load(Ordering::Relaxed), self.addresses.len());
        let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no API server");
        for number in (first..first + count).map(|number| number % count) {
            let address = &self.addresses[number];
            let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    if number != first {
                        info!("the API is used through {address} from now on");
                        self.present.store(number, Ordering::Relaxed);
                    }
                    return Ok((number, stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The next connection tries another server first.
    fn give_up(&self, number: usize) {
        let next = (number + 1) % self.addresses.len();
        let _ = self.present.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn notice_its_death(server: &TcpStream) -> io::Result<()> {
    let socket = server.as_fd();
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &IDLE)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &BETWEEN)?;
    setsockopt(&socket, sockopt::TcpUserTimeout, &UNHEARD)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server that says its name to everybody, and keeps the connection until it is dropped itself.
    async fn server(name: &'static str) -> (String, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(name.as_bytes()).await.unwrap();
                taken.push(stream);
            }
        });
        (format!("https://{address}"), AbortOnDropHandle::new(serving))
    }

    /// The name of the server that the way leads to, and the connection.
    async fn asked(way: &Way) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(way.url.trim_start_matches("https://")).await.unwrap();
        stream.write_all(b"who?").await.unwrap();
        let mut name = [0; 3];
        let count = stream.read(&mut name).await.unwrap_or_default();
        (String::from_utf8_lossy(&name[..count]).into_owned(), stream)
    }

    /// Somewhere nobody listens.
    async fn nowhere() -> String {
        let (address, serving) = server("---").await;
        drop(serving);
        // The listener is gone once its task has ended.
        while TcpStream::connect(address.trim_start_matches("https://")).await.is_ok() {
            tokio::task::yield_now().await;
        }
        address
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_passed_over() {
        let (cp2, _serving) = server("cp2").await;
        let way = Way::open(&[nowhere().await, cp2]).await.unwrap();
        assert_eq!(asked(&way).await.0, "cp2");
        assert_eq!(asked(&way).await.0, "cp2");
    }

    #[tokio::test]
    async fn connections_end_with_their_server_and_the_next_ones_lead_elsewhere_and_stay_there() {
        let ((cp1, first), (cp2, _second)) = (server("cp1").await, server("cp2").await);
        let way = Way::open(&[cp1.clone(), cp2]).await.unwrap();
        let (name, mut connection) = asked(&way).await;
        assert_eq!(name, "cp1");
        drop(first);
        assert_eq!(connection.read(&mut [0; 3]).await.unwrap_or_default(), 0, "the client is told");
        assert_eq!(asked(&way).await.0, "cp2");
        // Back again, it is not asked again: clients are left in peace.
        let listener = TcpListener::bind(cp1.trim_start_matches("https://")).await.unwrap();
        assert_eq!(asked(&way).await.0, "cp2");
        drop(listener);
    }

    #[tokio::test]
    async fn one_that_hangs_up_without_a_word_is_no_server() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mute = format!("https://{}", listener.local_addr().unwrap());
        let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4]).await;
            }
        }));
        let (cp2, _second) = server("cp2").await;
        let way = Way::open(&[mute, cp2]).await.unwrap();
        let mut answers = Vec::new();
        while answers.last().map(String::as_str) != Some("cp2") {
            answers.push(asked(&way).await.0);
            assert!(answers.len() < 100, "{answers:?}");
        }
        assert_eq!(answers[0], "");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_any_more_is_noticed_within_seconds() {
        let (cp1, _first) = server("cp1").await;
        let stream = TcpStream::connect(cp1.trim_start_matches("https://")).await.unwrap();
        notice_its_death(&stream).unwrap();
        let socket = stream.as_fd();
        let read = nix::sys::socket::getsockopt(&socket, sockopt::TcpUserTimeout).unwrap();
        assert_eq!((read, nix::sys::socket::getsockopt(&socket, sockopt::KeepAlive).unwrap()), (UNHEARD, true));
    }
}

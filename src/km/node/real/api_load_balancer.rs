//! The node's local proxy to the API servers: a loopback port that forwards to one that answers.
//!
//! kubelet and kube-proxy read one address at their start and keep it. This address remains valid when an API server
//! dies: the connection ends, and the next one is forwarded to another server. Bytes are forwarded unchanged. TLS is
//! between the client and the API server, whose certificate contains 127.0.0.1. So the port exposes nothing beyond the
//! server's own address, and holds no credentials.
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

/// Connect timeout, after which the next server is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Seconds until the first keepalive probe of an idle connection, and between probes.
const IDLE: u32 = 5;
const BETWEEN: u32 = 2;

/// Milliseconds in which the other end must acknowledge data or keepalive probes. A machine that has lost its power
/// sends nothing, and a kubelet without contact to the API for 40 s loses its pods.
const UNHEARD: u32 = 10_000;

/// A port that forwards to the API servers while this value lives.
pub struct Way {
    /// `https://127.0.0.1:port`.
    pub url: String,
    _serving: AbortOnDropHandle<()>,
}

struct Servers {
    /// `host:port` of each.
    addresses: Vec<String>,
    /// The index of the server that answered last; new connections try it first.
    present: AtomicUsize,
}

impl Way {
    /// Opens the port. `servers` are `https://host:port`.
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
            // For example out of file descriptors: pause instead of looping.
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
            // A server that accepts connections and sends nothing, such as a load balancer without a backend, counts as
            // failed.
            Ok((asked, said)) => *asked > 0 && *said == 0,
            Err(error) => error.kind() == io::ErrorKind::TimedOut,
        };
        if gone {
            self.give_up(number);
        }
        ended.map(drop)
    }

    /// Connects to the first server that accepts, starting with the current one.
    async fn connect(&self) -> io::Result<(usize, TcpStream)> {
        let (first, count) = (self.present.load(Ordering::Relaxed), self.addresses.len());
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no API server");
        for number in (first..first + count).map(|number| number % count) {
            let address = &self.addresses[number];
            let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    if number != first {
                        info!("using API server {address}");
                        self.present.store(number, Ordering::Relaxed);
                    }
                    return Ok((number, stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Makes the next connection try another server first.
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

    /// A server that sends its name to every client, and keeps the connections open until it is dropped.
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

    /// The name of the server that the port forwards to, and the connection.
    async fn asked(way: &Way) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(way.url.trim_start_matches("https://")).await.unwrap();
        stream.write_all(b"who?").await.unwrap();
        let mut name = [0; 3];
        let count = stream.read(&mut name).await.unwrap_or_default();
        (String::from_utf8_lossy(&name[..count]).into_owned(), stream)
    }

    /// An address without a listener.
    async fn nowhere() -> String {
        let (address, serving) = server("---").await;
        drop(serving);
        // The listener is closed once its task has ended.
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
        // When it is available again, it is not used again: clients keep their server.
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

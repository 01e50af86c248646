//! HTTP clients that connect from a [`Host`] instead of from this machine: the operator needs only SSH access.
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;

use super::transport::{Command, Host, HostError, Stream};

/// Connects to the address that a request names, from the host's side.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Host>);

impl Dialer {
    /// Connects from `host`.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Dialer(host)
    }
}

/// Resolves `name` as the host itself would.
async fn resolve(host: &dyn Host, name: &str) -> Result<IpAddr, HostError> {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let found = host.run(Command::new(["getent", "ahosts", name])).await?;
    let text = found.text();
    let address = text.split_whitespace().next().and_then(|address| address.parse().ok());
    address.ok_or_else(|| HostError::Connect {
        address: name.to_owned(),
        source: io::Error::new(io::ErrorKind::NotFound, "the host failed to resolve this name"),
    })
}

async fn dial(host: Arc<dyn Host>, uri: Uri) -> Result<Dialed, HostError> {
    let name = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let address = SocketAddr::new(resolve(host.as_ref(), name).await?, port);
    Ok(Dialed(TokioIo::new(host.dial(address).await?)))
}

impl tower::Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = HostError;
    type Future = Pin<Box<dyn Future<Output = Result<Dialed, HostError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HostError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(dial(self.0.clone(), uri))
    }
}

/// A connection that the host opened.
pub struct Dialed(TokioIo<Box<dyn Stream>>);

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

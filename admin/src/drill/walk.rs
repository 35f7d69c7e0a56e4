//! Requests of a drill, through a listener of this process like those of any client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use switchback_config::model::{Listener, ListenerTls};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::tls;

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Whatever may go wrong on the way; it becomes a finding.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A client of this process.
pub(super) struct Walker {
    address: SocketAddr,
    host: String,
    /// The connection begins with a PROXY protocol header.
    announces: bool,
    secure: bool,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Walker {
    /// A client of the first of these listeners that asks for no certificate, in plain text if one takes
    /// it; none does: none.
    pub(super) fn new<'a>(
        listeners: impl Iterator<Item = (&'a Listener, SocketAddr)>,
        host: &str,
    ) -> Option<Self> {
        let asks = |tls: &ListenerTls| tls.client_ca.is_some();
        let open = listeners.filter(|(listener, _)| !listener.tls.as_ref().is_some_and(asks));
        let (listener, address) = open.min_by_key(|(listener, _)| listener.tls.is_some())?;
        Some(Self {
            secure: listener.tls.is_some(),
            address: reachable(address),
            host: host.to_owned(),
            announces: listener.proxy_protocol,
            connection: None,
        })
    }

    /// The listener.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one request, and reads the whole answer.
    pub(super) async fn step(&mut self) -> Result<StatusCode, String> {
        let step = tokio::time::timeout(REQUEST_TIME, self.try_step());
        let answer = match step.await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", REQUEST_TIME.as_secs())),
        };
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn try_step(&mut self) -> Result<StatusCode, Failure> {
        let ready = match &mut self.connection {
            Some(connection) => connection.sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            self.connection = Some(self.connect().await?);
        }
        let Some(connection) = &mut self.connection else {
            return Err("no connection".into());
        };
        let request = Request::get("/")
            .header(header::HOST, &self.host)
            .header(header::USER_AGENT, "switchback-drill")
            .body(Empty::new())?;
        let response = connection.sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok(status)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let mut stream = TcpStream::connect(self.address).await?;
        if self.announces {
            stream.write_all(&announcement(&stream)?).await?;
        }
        if !self.secure {
            return talk(stream).await;
        }
        let name = ServerName::try_from(self.host.clone())?;
        let connector = TlsConnector::from(tls::config()?);
        talk(connector.connect(name, stream).await?).await
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, Failure> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let task = tokio::spawn(async move {
        // How it ends is seen by who asks.
        let _ = connection.await;
    });
    Ok(Connection { sender, task })
}

/// Who asks, in version 1 of the PROXY protocol.
fn announcement(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let (from, to) = (stream.local_addr()?, stream.peer_addr()?);
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let text = format!(
        "PROXY {family} {} {} {} {}\r\n",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    );
    Ok(text.into_bytes())
}

/// Where a listener is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

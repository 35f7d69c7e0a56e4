//! Clients: one that speaks HTTP properly, and one that sends exactly the bytes it is given.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::DEADLINE;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// One HTTP/1.1 connection.
pub(crate) struct Http {
    sender: SendRequest<BoxBody<Bytes, Infallible>>,
    host: String,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    pub(crate) async fn try_connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        Self::over(stream, address).await
    }

    /// The same, as somebody with this address.
    pub(crate) async fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        let stream = socket.connect(address).await.unwrap();
        Self::over(stream, address).await.unwrap()
    }

    async fn over(stream: TcpStream, address: SocketAddr) -> Result<Self, String> {
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            host: address.to_string(),
        })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await.unwrap()
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            request = request.header("host", &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        self.exchange(request.body(body.boxed()).unwrap()).await
    }

    /// Sends a body without saying how long it is.
    pub(crate) async fn send_chunks(
        &mut self,
        method: &str,
        path: &str,
        chunks: &[&[u8]],
    ) -> Result<Answer, String> {
        let frames: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host);
        self.exchange(request.body(BodyExt::boxed(body)).unwrap())
            .await
    }

    async fn exchange(
        &mut self,
        request: Request<BoxBody<Bytes, Infallible>>,
    ) -> Result<Answer, String> {
        let exchange = async {
            self.sender.ready().await?;
            let (parts, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
            })
        };
        match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(answer) => answer.map_err(|error: hyper::Error| format!("{error:?}")),
            Err(_) => Err("no answer in time".into()),
        }
    }
}

/// A connection that is written to byte by byte.
pub(crate) struct RawClient {
    pub(crate) stream: TcpStream,
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // The other side may have closed already, which is often the point.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Everything until the other side closes.
    pub(crate) async fn read_all(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(DEADLINE, self.stream.read_to_end(&mut bytes));
        let ended = read.await;
        assert!(
            ended.is_ok(),
            "not closed in time, after {:?}",
            String::from_utf8_lossy(&bytes)
        );
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whatever comes next; nothing if the other side has closed.
    pub(crate) async fn read_some(&mut self) -> String {
        let mut buffer = [0; 512];
        let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut buffer)).await;
        let count = read.map_or(0, |count| count.unwrap_or(0));
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    /// Reads until what was read contains `end`, or the other side closes.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        let read = async {
            while !text.contains(end) {
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
                }
            }
        };
        let ended = tokio::time::timeout(DEADLINE, read).await;
        assert!(ended.is_ok(), "{end:?} not seen in time in {text:?}");
        text
    }
}

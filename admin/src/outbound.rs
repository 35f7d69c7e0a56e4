//! Requests that switchback makes itself: to an admin API, to hooks, to a metrics store.
//!
//! One connection a request, HTTP/1.1, TLS for https, everything within one deadline and with a
//! bounded answer. Nothing is retried and no redirect is followed here: whoever asks knows what may
//! be repeated. Traffic of users never comes this way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use switchback_config::units::TimeSpan;
use switchback_proxy::tls::{ClientTlsFiles, client_config};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a TCP connection may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// A request that could not be made, or got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    /// The URL cannot be used.
    #[error("{0}")]
    Url(String),
    /// No connection.
    #[error("connect to {authority}: {cause}")]
    Connect {
        /// Whereto.
        authority: String,
        /// What went wrong.
        cause: String,
    },
    /// No answer, or a broken one.
    #[error("ask {authority}: {cause}")]
    Answer {
        /// Whom.
        authority: String,
        /// What went wrong.
        cause: String,
    },
    /// Not everything happened in time.
    #[error("no answer within {0}")]
    Timeout(TimeSpan),
}

/// Where requests go. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    host: String,
    port: u16,
    /// As `Host` names it; never with the user and password of the URL.
    authority: String,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Outbound {
    /// The server of a URL. `authorities`: PEM text to trust instead of the system's, for https.
    ///
    /// # Errors
    /// [`OutboundError::Url`].
    pub(crate) fn new(url: &Uri, authorities: Option<&[u8]>) -> Result<Self, OutboundError> {
        let unusable =
            |reason: String| OutboundError::Url(format!("{url} cannot be used: {reason}"));
        let authority = url
            .authority()
            .ok_or_else(|| unusable("write http://host:port".into()))?;
        let (tls, default_port) = match url.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let files = ClientTlsFiles {
                    authorities,
                    identity: None,
                };
                let config = client_config(&files).map_err(|error| unusable(error.to_string()))?;
                let mut config = rustls::ClientConfig::clone(&config);
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                (Some(Arc::new(config)), 443)
            }
            _ => return Err(unusable("write http://host:port".into())),
        };
        let host = authority.host();
        Ok(Self {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            authority: match authority.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            },
            tls,
        })
    }

    /// Sends one request and reads the whole answer, within `patience` and `body_bytes_max`. `Host` is
    /// added; the URI is the path and query only.
    ///
    /// # Errors
    /// When there is no complete answer in time. The request may have arrived nevertheless.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; the request may have arrived.
    pub(crate) async fn fetch(
        &self,
        request: Request<Bytes>,
        patience: Duration,
        body_bytes_max: usize,
    ) -> Result<Response<Bytes>, OutboundError> {
        let whole = async {
            let response = self.send(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, body_bytes_max).collect().await;
            let body = body.map_err(|error| self.answer(error))?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        match tokio::time::timeout(patience, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(OutboundError::Timeout(TimeSpan(patience))),
        }
    }

    /// Sends one request; the answer's body is still to be read.
    ///
    /// # Errors
    /// When no head of an answer comes. There is no deadline here.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Incoming>, OutboundError> {
        let mut sender = self.connect().await?;
        let (mut parts, body) = request.into_parts();
        let host = HeaderValue::try_from(&self.authority).map_err(|error| self.answer(error))?;
        parts.headers.insert(header::HOST, host);
        let request = Request::from_parts(parts, Full::new(body));
        sender
            .send_request(request)
            .await
            .map_err(|error| self.answer(error))
    }

    /// Connects. The connection ends with its last exchange.
    ///
    /// # Errors
    /// [`OutboundError::Connect`].
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, OutboundError> {
        let refused = |cause: String| OutboundError::Connect {
            authority: self.authority.clone(),
            cause,
        };
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match tokio::time::timeout(CONNECT_TIME, connecting).await {
            Ok(stream) => stream.map_err(|error| refused(error.to_string()))?,
            Err(_) => return Err(refused("no connection in time".into())),
        };
        let Some(tls) = &self.tls else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| refused(error.to_string()))?;
            tokio::spawn(connection);
            return Ok(sender);
        };
        let name =
            ServerName::try_from(self.host.clone()).map_err(|error| refused(error.to_string()))?;
        let stream = TlsConnector::from(tls.clone())
            .connect(name, stream)
            .await
            .map_err(|error| refused(error.to_string()))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| refused(error.to_string()))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn answer(&self, cause: impl std::fmt::Display) -> OutboundError {
        OutboundError::Answer {
            authority: self.authority.clone(),
            cause: cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn server(answer: &'static str) -> Uri {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let socket = socket.expect("a free port");
        let port = socket
            .local_addr()
            .map(|address| address.port())
            .expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
            }
        });
        format!("http://user:secret@127.0.0.1:{port}/x")
            .parse()
            .expect("a URL")
    }

    fn request() -> Request<Bytes> {
        Request::get("/x").body(Bytes::new()).expect("a request")
    }

    #[tokio::test]
    async fn answer_is_read_whole_but_not_beyond_its_bound() {
        let url = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        let outbound = Outbound::new(&url, None).expect("a usable URL");
        assert!(!outbound.authority.contains("secret"));
        let patience = Duration::from_secs(10);
        let answer = outbound.fetch(request(), patience, 5).await;
        assert_eq!(answer.expect("an answer").body(), "hello");
        let answer = outbound.fetch(request(), patience, 4).await;
        assert!(matches!(answer, Err(OutboundError::Answer { .. })));
    }

    #[tokio::test]
    async fn silent_server_is_given_up() {
        let outbound = Outbound::new(&server("").await, None).expect("a usable URL");
        let answer = outbound
            .fetch(request(), Duration::from_millis(20), 5)
            .await;
        assert_eq!(
            answer.expect_err("nobody answers").to_string(),
            "no answer within 20ms"
        );
    }

    #[test]
    fn urls_without_scheme_or_host_are_refused() {
        for url in ["/x", "ftp://host/", "127.0.0.1:9900"] {
            let url: Uri = url.parse().expect("a URI");
            assert!(matches!(
                Outbound::new(&url, None),
                Err(OutboundError::Url(_))
            ));
        }
    }
}

//! Raw bytes on both sides of the proxy: clients over plain text and TLS, and an origin that writes down
//! every byte and answers from a script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{DEADLINE, HEAD, Proxy};

/// A connection of either kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connected client.
pub(crate) struct Wire(pub(crate) Box<dyn Io>);

impl Wire {
    /// Sends; the other side may have closed already, which is often the point.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
        let _ = self.0.flush().await;
    }

    /// Everything until the other side closes or resets; none if it does neither in time.
    pub(crate) async fn rest(&mut self) -> Option<String> {
        let mut seen = Vec::new();
        let mut buffer = [0; 16 << 10];
        let read = async {
            while let Ok(count) = self.0.read(&mut buffer).await {
                if count == 0 {
                    break;
                }
                seen.extend_from_slice(&buffer[..count]);
            }
        };
        let ended = tokio::time::timeout(DEADLINE, read).await;
        ended.ok()?;
        Some(String::from_utf8_lossy(&seen).into_owned())
    }

    /// Reads until what was read contains `end`, or the other side closes.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        let mut buffer = [0; 16 << 10];
        let read = async {
            while !text.contains(end) {
                match self.0.read(&mut buffer).await {
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

/// The status of an answer, `closed` if there was none.
pub(crate) fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

/// A proxy that listens in plain text and with TLS, in front of one origin.
pub(crate) struct Edge {
    pub(crate) proxy: Proxy,
    connector: tokio_rustls::TlsConnector,
}

impl Edge {
    /// `global`: further top-level keys; `listener`: further keys of both listeners, in flow style;
    /// `service`: further keys of the service, in flow style.
    pub(crate) fn start(origin: &str, global: &str, listener: &str, service: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(directory.path().join("a.crt"), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(directory.path().join("a.key"), key).unwrap();
        let listener = if listener.is_empty() {
            String::new()
        } else {
            format!(", {listener}")
        };
        let listeners = format!(
            "  web: {{address: \"127.0.0.1:0\"{listener}}}\n  secure: {{address: \"127.0.0.1:0\", tls: {{certificates: [{{certificate: a.crt, key: a.key}}]}}{listener}}}\n"
        );
        let mut head = HEAD.replace("  web: {address: \"127.0.0.1:0\"}\n", &listeners);
        if global.contains("workers:") {
            head = head.replace("workers: 2\n", "");
        }
        let config = format!(
            "{head}{global}\nservices: {{shop: {{backends: {{only: {{endpoints: [\"{origin}\"]}}}}{service}}}}}\n",
            service = if service.is_empty() {
                String::new()
            } else {
                format!(", {service}")
            },
        );
        std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
        let proxy = Proxy::start_in(directory);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            proxy,
            connector: tokio_rustls::TlsConnector::from(Arc::new(config)),
        }
    }

    /// A connection for HTTP/1, or for HTTP/2 by prior knowledge.
    pub(crate) async fn plain(&self) -> Wire {
        let stream = TcpStream::connect(self.proxy.web).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Wire(Box::new(stream))
    }

    /// A connection over TLS, for HTTP/2 or HTTP/1.
    pub(crate) async fn secure(&self, h2: bool) -> Wire {
        let stream = TcpStream::connect(self.proxy.listener("secure"))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        let connector = if h2 {
            self.connector.clone()
        } else {
            let mut config = (**self.connector.config()).clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            tokio_rustls::TlsConnector::from(Arc::new(config))
        };
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        Wire(Box::new(connector.connect(name, stream).await.unwrap()))
    }

    /// A counter of a metric with this label or without any; 0 when it is not there.
    pub(crate) async fn metric(&self, line: &str) -> u64 {
        let text = self
            .proxy
            .api("GET", "/metrics", serde_json::Value::Null)
            .await
            .text();
        let found = text.lines().find_map(|l| l.strip_prefix(line));
        found.map_or(0, |value| value.trim().parse::<f64>().unwrap() as u64)
    }

    /// How often a limit was hit.
    pub(crate) async fn hits(&self, limit: &str) -> u64 {
        self.metric(&format!("switchback_limit_hits_total{{limit=\"{limit}\"}}"))
            .await
    }

    /// Whether somebody else is served.
    pub(crate) async fn serves(&self) -> bool {
        let mut wire = self.plain().await;
        wire.write(b"GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        let answer = wire.rest().await.unwrap_or_default();
        status(&answer) == "200"
    }
}

/// What an origin does after it has sent an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Reads the next request.
    Stay,
    /// Closes.
    Close,
}

/// An origin that records what arrives, byte for byte, and answers from a script; the last answer is
/// given again and again.
pub(crate) struct RawOrigin {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    answers: Arc<Mutex<VecDeque<(Vec<u8>, After)>>>,
    accepting: JoinHandle<()>,
}

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl RawOrigin {
    /// One that is content with everything.
    pub(crate) async fn start() -> Self {
        Self::script(vec![(OK.to_vec(), After::Stay)]).await
    }

    /// One that always answers with these bytes.
    pub(crate) async fn answering(answer: &[u8], after: After) -> Self {
        Self::script(vec![(answer.to_vec(), after)]).await
    }

    pub(crate) async fn script(answers: Vec<(Vec<u8>, After)>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let accepting = {
            let (requests, connections, answers) =
                (requests.clone(), connections.clone(), answers.clone());
            tokio::spawn(async move {
                let mut open = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = socket.accept().await {
                    let _ = stream.set_nodelay(true);
                    connections.fetch_add(1, SeqCst);
                    open.spawn(serve(stream, requests.clone(), answers.clone()));
                }
            })
        };
        Self {
            address,
            requests,
            connections,
            answers,
            accepting,
        }
    }

    /// Changes what is answered from now on.
    pub(crate) fn answer(&self, answer: &[u8], after: After) {
        self.answer_in_turn(vec![(answer.to_vec(), after)]);
    }

    /// The same for several answers, of which the last is given again and again.
    pub(crate) fn answer_in_turn(&self, answers: Vec<(Vec<u8>, After)>) {
        *self.answers.lock().unwrap() = VecDeque::from(answers);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far: head and body as they arrived.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<(Vec<u8>, After)>>>,
) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        while let Some(end) = end_of_request(&bytes) {
            let request: Vec<u8> = bytes.drain(..end).collect();
            let text = request.iter().map(|byte| char::from(*byte)).collect();
            requests.lock().unwrap().push(text);
            let (answer, after) = {
                let mut answers = answers.lock().unwrap();
                let next = answers.front().cloned().unwrap();
                if answers.len() > 1 {
                    answers.pop_front();
                }
                next
            };
            let _ = stream.write_all(&answer).await;
            if after == After::Close {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                if !bytes.is_empty() {
                    let rest = bytes.iter().map(|byte| char::from(*byte)).collect();
                    requests.lock().unwrap().push(rest);
                }
                return;
            }
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Where the first request ends, by the strictest reading; anything else is never complete.
fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let values = |name: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|value| value.trim().to_owned()).collect()
    };
    let (lengths, codings) = (values("content-length:"), values("transfer-encoding:"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Some(head),
        ([length], []) => {
            let end = head + length.parse::<usize>().ok()?;
            (bytes.len() >= end).then_some(end)
        }
        ([], [coding]) if coding == "chunked" => end_of_chunks(bytes, head),
        _ => None,
    }
}

/// The end of a table of cases: there were some, and none of them went wrong.
pub(crate) fn none_wrong(cases: usize, wrong: &[String]) {
    assert!(cases > 0, "a table without cases shows nothing");
    let count = wrong.len();
    assert!(
        wrong.is_empty(),
        "{count} wrong of {cases}:\n{}",
        wrong.join("\n")
    );
}

fn end_of_chunks(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = bytes[at..].windows(2).position(|end| end == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2;
        if size == 0 {
            if bytes[at..].starts_with(b"\r\n") {
                return Some(at + 2);
            }
            let end = bytes[at..].windows(4).position(|end| end == b"\r\n\r\n")?;
            return Some(at + end + 4);
        }
        at += size;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
}

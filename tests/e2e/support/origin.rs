//! A backend that counts what reaches it and answers as told.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How an origin answers.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) status: u16,
    /// How long a request that does not fail takes.
    pub(crate) delay: Duration,
    /// Until when a request waits: see [`Origin::hold`].
    pub(crate) held: Option<watch::Receiver<()>>,
    /// Closes the connection instead of answering.
    pub(crate) hang_up: bool,
    /// Answers this share of requests with 500, evenly.
    pub(crate) fail_every: Option<u64>,
    /// What is answered to requests without a body, instead of a greeting.
    pub(crate) body: Option<String>,
    /// Further fields of the response.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            status: 200,
            delay: Duration::ZERO,
            held: None,
            hang_up: false,
            fail_every: None,
            body: None,
            headers: Vec::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    by_id: Mutex<HashMap<String, u32>>,
    request_ids: Mutex<HashSet<String>>,
    last: Mutex<Option<http::request::Parts>>,
    last_body: Mutex<Bytes>,
}

/// A backend over HTTP/1.1 and HTTP/2 with prior knowledge.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    behaviour: Arc<Mutex<Behaviour>>,
    accepting: JoinHandle<()>,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let socket = TcpListener::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let behaviour = Arc::new(Mutex::new(Behaviour::default()));
        let accepting = tokio::spawn(accept(socket, seen.clone(), behaviour.clone()));
        Self {
            address,
            seen,
            behaviour,
            accepting,
        }
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn answer_with(&self, status: u16) {
        self.behave(Behaviour {
            status,
            ..Behaviour::default()
        });
    }

    /// Answers nothing until what is returned is dropped, however long that is on a busy machine.
    pub(crate) fn hold(&self) -> watch::Sender<()> {
        let (until, held) = watch::channel(());
        self.behave(Behaviour {
            held: Some(held),
            ..Behaviour::default()
        });
        until
    }

    /// Answers with this version in its header.
    pub(crate) fn name_version(&self, version: &str) {
        self.behave(Behaviour {
            headers: vec![("x-app-version", version.to_owned())],
            ..Behaviour::default()
        });
    }

    /// Requests whose head arrived here, health checks apart.
    pub(crate) fn received(&self) -> u64 {
        self.seen.requests.load(SeqCst)
    }

    /// How often requests with each `x-test-id` arrived here.
    pub(crate) fn deliveries(&self) -> HashMap<String, u32> {
        self.seen.by_id.lock().unwrap().clone()
    }

    /// The `x-request-id` of every request that arrived here.
    pub(crate) fn request_ids(&self) -> HashSet<String> {
        self.seen.request_ids.lock().unwrap().clone()
    }

    /// The head of the last request.
    pub(crate) fn last(&self) -> http::request::Parts {
        self.seen.last.lock().unwrap().clone().unwrap()
    }

    /// The body of the last request that had come to its end.
    pub(crate) fn last_body(&self) -> Bytes {
        self.seen.last_body.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn h2c_url(&self) -> String {
        format!("h2c://{}", self.address)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(socket: TcpListener, seen: Arc<Seen>, behaviour: Arc<Mutex<Behaviour>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        let _ = stream.set_nodelay(true);
        let (seen, behaviour) = (seen.clone(), behaviour.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                answer(request, seen.clone(), behaviour.lock().unwrap().clone())
            });
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    behaviour: Behaviour,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/healthz" {
        return Ok(response(behaviour.status, Bytes::new()));
    }
    let number = seen.requests.fetch_add(1, SeqCst);
    if let Some(id) = parts.headers.get("x-test-id") {
        *seen
            .by_id
            .lock()
            .unwrap()
            .entry(id.to_str().unwrap().to_owned())
            .or_default() += 1;
    }
    if let Some(id) = parts.headers.get("x-request-id") {
        let id = id.to_str().unwrap().to_owned();
        seen.request_ids.lock().unwrap().insert(id);
    }
    *seen.last.lock().unwrap() = Some(parts);
    if behaviour.hang_up {
        return Err(std::io::Error::other("told to hang up"));
    }
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    *seen.last_body.lock().unwrap() = body.clone();
    let fails = behaviour
        .fail_every
        .is_some_and(|every| number.is_multiple_of(every));
    // Failures are fast: this is what makes a healthy canary look bad at its start.
    if !behaviour.delay.is_zero() && !fails {
        tokio::time::timeout(behaviour.delay, std::future::pending::<()>())
            .await
            .unwrap_err();
    }
    if let Some(mut held) = behaviour.held {
        while held.changed().await.is_ok() {}
    }
    let text = if body.is_empty() {
        behaviour
            .body
            .map_or(Bytes::from_static(b"hello\n"), Bytes::from)
    } else {
        body
    };
    let mut response = response(if fails { 500 } else { behaviour.status }, text);
    for (name, value) in behaviour.headers {
        let value = value.parse().expect("a header value");
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn response(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::new(body))
        .unwrap()
}

/// An origin with a name. The name has two addresses, and it listens on both: what is refused is repeated
/// elsewhere, but repetitions have a budget.
#[derive(Debug)]
pub(crate) struct Named {
    v4: Origin,
    v6: Origin,
}

impl Named {
    pub(crate) async fn start() -> Self {
        let v4 = Origin::start().await;
        let address = (std::net::Ipv6Addr::LOCALHOST, v4.address.port());
        let v6 = Origin::start_at(address.into()).await;
        Self { v4, v6 }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://localhost:{}", self.v4.address.port())
    }

    pub(crate) fn received(&self) -> u64 {
        self.v4.received() + self.v6.received()
    }
}

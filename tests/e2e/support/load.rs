//! Clients that never stop asking, and count what goes wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Http;

/// How load is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    clients: JoinSet<()>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    first_failure: std::sync::Mutex<Option<String>>,
    times: std::sync::Mutex<Vec<Duration>>,
}

impl State {
    fn note(&self, began: Instant, result: Result<u16, String>) {
        self.times.lock().unwrap().push(began.elapsed());
        self.done.fetch_add(1, SeqCst);
        let failure = match result {
            Ok(200) => return,
            Ok(status) => format!("status {status}"),
            Err(error) => error,
        };
        self.failed.fetch_add(1, SeqCst);
        self.first_failure.lock().unwrap().get_or_insert(failure);
    }

    fn stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }
}

impl Load {
    /// Starts clients that send GETs as fast as they are answered.
    pub(crate) fn start(address: SocketAddr, protocol: Protocol, clients: usize) -> Self {
        let state = Arc::new(State::default());
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let state = state.clone();
            match protocol {
                Protocol::Http1 => set.spawn(http1(address, state)),
                Protocol::Http2 => set.spawn(http2(address, state)),
            };
        }
        Self {
            clients: set,
            state,
        }
    }

    /// Requests answered so far, one way or the other.
    pub(crate) fn done(&self) -> u64 {
        self.state.done.load(SeqCst)
    }

    /// Stops, waits for the last answers, and requires that none failed. The number of requests.
    pub(crate) async fn finish(mut self) -> u64 {
        let (done, failed, first) = self.stop().await;
        assert_eq!(
            failed, 0,
            "{failed} of {done} requests failed, the first: {first:?}"
        );
        assert!(done > 0, "no request was made");
        done
    }

    /// The same for clients each of whose requests must be answered within `patience`. The number of requests,
    /// and the time within which 99 % of them were answered.
    pub(crate) async fn finish_within(self, patience: Duration) -> (u64, Duration) {
        let state = self.state.clone();
        let done = self.finish().await;
        let mut times = std::mem::take(&mut *state.times.lock().unwrap());
        times.sort_unstable();
        let slowest = times.last().copied().unwrap_or_default();
        assert!(slowest < patience, "a request took {slowest:?}");
        (done, times[times.len() * 99 / 100])
    }

    /// Stops and waits: requests, failures, the first failure.
    pub(crate) async fn stop(&mut self) -> (u64, u64, Option<String>) {
        self.state.stop.store(true, SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        let first = self.state.first_failure.lock().unwrap().clone();
        (self.done(), self.state.failed.load(SeqCst), first)
    }
}

async fn http1(address: SocketAddr, state: Arc<State>) {
    while !state.stopped() {
        let began = Instant::now();
        let mut client = match Http::try_connect(address).await {
            Ok(client) => client,
            Err(error) => {
                state.note(began, Err(error));
                continue;
            }
        };
        while !state.stopped() {
            let began = Instant::now();
            let answer = client.send("GET", "/", &[], b"").await;
            let closing = answer
                .as_ref()
                .is_ok_and(|answer| answer.header("connection") == "close");
            let broken = answer.is_err();
            state.note(began, answer.map(|answer| answer.status));
            if broken || closing {
                break;
            }
        }
    }
}

async fn http2(address: SocketAddr, state: Arc<State>) {
    while !state.stopped() {
        let began = Instant::now();
        if let Err(error) = http2_connection(address, &state).await {
            state.note(began, Err(error));
        }
    }
}

/// Whether the server says of a request that it has not begun with it, so that any client asks again: it was
/// not sent, or its stream is above the last one that the server names as it goes away (RFC 9113, 6.8).
fn was_not_taken(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    let is_above = |cause: &h2::Error| {
        cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR)
    };
    error.is_canceled() || cause.is_some_and(is_above)
}

async fn http2_connection(address: SocketAddr, state: &State) -> Result<(), String> {
    let text = |error: hyper::Error| format!("{error:?}");
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(text)?;
    tokio::spawn(connection);
    while !state.stopped() {
        if sender.ready().await.is_err() {
            // The server has asked to go elsewhere, between two requests.
            return Ok(());
        }
        let began = Instant::now();
        let uri = format!("http://{address}/");
        let request = Request::get(uri).body(Full::new(Bytes::new())).unwrap();
        let result = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            response.into_body().collect().await?;
            Ok(status)
        };
        let result: Result<u16, hyper::Error> = result.await;
        if result.as_ref().is_err_and(was_not_taken) {
            // The same, while the request was not yet on its way.
            return Ok(());
        }
        let result = result.map_err(text);
        let broken = result.is_err();
        state.note(began, result);
        if broken {
            return Ok(());
        }
    }
    Ok(())
}

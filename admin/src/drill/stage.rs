//! Where a drill takes place: two backends within this process, of which one fails when it is told to, and
//! somebody who hears what hooks would be told.
//!
//! They answer only who knows the host of this drill: whatever else finds these ports on the loopback
//! device gets a 404 and is not counted.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::shadow::Set;

/// Connections at a time to each part.
const CONNECTIONS_MAX: usize = 64;

/// How long a connection may take until its request has a whole head.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// Both backends and whoever hears hooks, for as long as this is there.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) set: Set,
    seen: Arc<Seen>,
    /// Ends when this is dropped.
    _accepting: JoinSet<()>,
}

/// What has reached the parts.
#[derive(Debug, Default)]
struct Seen {
    stable: AtomicU64,
    canary: AtomicU64,
    told: AtomicU64,
    canary_fails: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Stable,
    Canary,
    Hooks,
}

impl Stage {
    /// Opens it, for requests to this host.
    pub(super) async fn open(host: String) -> io::Result<Self> {
        let seen = Arc::new(Seen::default());
        let mut accepting = JoinSet::new();
        let mut addresses = Vec::new();
        for part in [Part::Stable, Part::Canary, Part::Hooks] {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push(socket.local_addr()?);
            accepting.spawn(accept(socket, part, host.clone(), seen.clone()));
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = |index: usize| addresses.get(index).copied().unwrap_or(nowhere);
        Ok(Self {
            set: Set {
                host,
                stable: address(0),
                canary: address(1),
                hooks: address(2),
            },
            seen,
            _accepting: accepting,
        })
    }

    /// The fault: the canary answers 500 from now on.
    pub(super) fn inject(&self) {
        self.seen.canary_fails.store(true, Relaxed);
    }

    /// Requests that have reached stable and the canary.
    pub(super) fn reached(&self) -> (u64, u64) {
        (
            self.seen.stable.load(Relaxed),
            self.seen.canary.load(Relaxed),
        )
    }

    /// Messages to hooks that have arrived.
    pub(super) fn told(&self) -> u64 {
        self.seen.told.load(Relaxed)
    }
}

async fn accept(socket: TcpListener, part: Part, host: String, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = socket.accept().await else {
            return;
        };
        let (host, seen) = (host.clone(), seen.clone());
        connections.spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, part, &host, &seen);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME);
            let served = server.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection of a drill");
            }
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    part: Part,
    host: &str,
    seen: &Seen,
) -> Response<Full<Bytes>> {
    let asked = match part {
        Part::Hooks => request.uri().path().trim_start_matches('/').as_bytes(),
        Part::Stable | Part::Canary => {
            let named = request.headers().get(header::HOST);
            named.map_or(&b""[..], http::HeaderValue::as_bytes)
        }
    };
    let mut status = StatusCode::OK;
    if asked != host.as_bytes() {
        status = StatusCode::NOT_FOUND;
    } else {
        let counted = match part {
            Part::Stable => &seen.stable,
            Part::Canary => &seen.canary,
            Part::Hooks => &seen.told,
        };
        counted.fetch_add(1, Relaxed);
        if matches!(part, Part::Canary) && seen.canary_fails.load(Relaxed) {
            status = StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"drill\n")));
    *response.status_mut() = status;
    response
}

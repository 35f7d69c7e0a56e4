//! Where applications ask for flags: the OpenFeature Remote Evaluation Protocol, on a listener and a thread
//! of its own.
//!
//! Applications ask often. So they are kept apart from operators: no load here slows the admin API or a
//! rollback, and a token for one says nothing to the other. What is answered is what is in force at that
//! moment: a flag that was turned off is off in the next answer.

mod answer;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use switchback_config::defaults::{
    ADMIN_HEADER_BYTES, ADMIN_HEADERS, ADMIN_REQUEST_TIME, ADMIN_WRITE_STALL, OFREP_BODY_BYTES,
    OFREP_HEAD_TIME, OFREP_IDLE_TIME, OFREP_RETIRE_TIME,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::api::guard::{Doors, pass_application};
use crate::api::guests::{Guest, Guests};
use crate::api::stall::Impatient;
use crate::api::{Life, discard};
use crate::auth::{Auth, Rejection};
use crate::control::Controls;
use crate::reload::FlagLocks;
use answer::{Question, fault};

/// How applications get in.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// The bound socket.
    pub(crate) socket: std::net::TcpListener,
    /// Who gets in, and how.
    pub(crate) locks: Locks,
}

/// Who gets in, and how. Cheap to clone; what is in it is replaced when the file is read again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    /// Where it listens, if it does.
    pub(crate) address: Option<SocketAddr>,
    /// TLS; loopback addresses may go without.
    pub(crate) tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// The tokens; none: everybody who can connect may ask.
    pub(crate) auth: Option<Arc<Auth>>,
}

impl Locks {
    /// New connections go by what the files hold now.
    pub(crate) fn replace(&self, (tls, tokens): FlagLocks) {
        if let (Some(current), Some(next)) = (&self.tls, tls) {
            current.store(next);
        }
        if let (Some(auth), Some(tokens)) = (&self.auth, tokens) {
            auth.set_tokens(tokens);
        }
    }
}

/// Between two attempts to accept a connection, when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A thread that serves flags as soon as it is told whose. It ends if nobody tells it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Who gets in, and how.
    pub(crate) locks: Locks,
    begin: oneshot::Sender<(Controls, Arc<Life>)>,
}

/// Makes everything ready that may fail, while the process can still refuse to start.
///
/// # Errors
/// When the thread cannot be started or the socket cannot be used.
pub(crate) fn open(entrance: Entrance) -> io::Result<Opened> {
    let Entrance { socket, locks } = entrance;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    socket.set_nonblocking(true)?;
    let doors = Doors {
        address: socket.local_addr()?,
        allowed_hosts: None,
    };
    let socket = {
        let _inside = runtime.enter();
        TcpListener::from_std(socket)?
    };
    let (begin, begun) = oneshot::channel();
    let keys = locks.clone();
    let thread = std::thread::Builder::new().name("flags".into());
    thread.spawn(move || {
        if let Ok((controls, life)) = begun.blocking_recv() {
            let door = Arc::new(Door {
                doors,
                guests: Guests::default(),
                locks: keys,
                controls,
                life,
            });
            runtime.block_on(serve(socket, door));
        }
    })?;
    Ok(Opened { locks, begin })
}

impl Opened {
    /// Serves flags until the process is retired.
    pub(crate) fn begin(self, controls: Controls, life: Arc<Life>) {
        // The thread waits for nothing else.
        let _ = self.begin.send((controls, life));
    }
}

async fn serve(socket: TcpListener, door: Arc<Door>) {
    let life = door.life.clone();
    let places = life.applications.clone();
    let mut connections = tokio::task::JoinSet::new();
    let mut retired = pin!(life.is_retired());
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let accepted = socket.accept().await;
            if accepted.is_ok() && places.available_permits() == 0 {
                door.guests.send_one_away();
            }
            (accepted, places.clone().acquire_owned().await)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = &mut retired => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let door = door.clone();
                let guest = door.guests.enter();
                connections.spawn(async move {
                    door.connection(stream, peer, guest).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection of an application");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    // Each ends with the answer to the request that it carries.
    while connections.join_next().await.is_some() {}
}

struct Door {
    doors: Doors,
    guests: Guests,
    locks: Locks,
    controls: Controls,
    life: Arc<Life>,
}

impl Door {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, guest: Guest) {
        let _ = stream.set_nodelay(true);
        tokio::select! {
            () = self.welcome(stream, peer, &guest) => {}
            () = guest.is_sent_away() => {}
        }
        self.guests.strike(&guest);
    }

    async fn welcome(&self, stream: TcpStream, peer: SocketAddr, guest: &Guest) {
        let Some(tls) = &self.locks.tls else {
            return self.serve(stream, peer, guest).await;
        };
        let acceptor = TlsAcceptor::from(tls.load_full());
        let handshake = tokio::time::timeout(ADMIN_REQUEST_TIME, acceptor.accept(stream));
        if let Ok(Ok(stream)) = handshake.await {
            self.serve(stream, peer, guest).await;
        }
    }

    async fn serve(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
        peer: SocketAddr,
        guest: &Guest,
    ) {
        let heard = AtomicBool::new(false);
        let service = service_fn(|request| {
            heard.store(true, Ordering::Relaxed);
            async move { Ok::<_, Infallible>(self.answer(request, peer, guest).await) }
        });
        let silent = async {
            tokio::time::sleep(OFREP_HEAD_TIME).await;
            if heard.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(OFREP_IDLE_TIME)
            .max_buf_size(ADMIN_HEADER_BYTES)
            .max_headers(ADMIN_HEADERS);
        let stream = TokioIo::new(Impatient::new(stream, ADMIN_WRITE_STALL));
        let mut connection = pin!(builder.serve_connection(stream, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = silent => return,
            () = self.life.is_retired() => {
                // Whoever is just asking is still answered.
                match tokio::time::timeout(OFREP_RETIRE_TIME, connection.as_mut()).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "connection of an application");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        guest: &Guest,
    ) -> Response<Full<Bytes>> {
        let (parts, mut body) = request.into_parts();
        // Whoever is refused has been heard: a connection that is closed before is reset.
        if let Some(refused) = self.refusal(&parts, peer) {
            discard(body).await;
            return refused;
        }
        let needs_token = self.locks.auth.is_some();
        if needs_token {
            self.guests.strike(guest);
        }
        let whole = Limited::new(&mut body, OFREP_BODY_BYTES).collect();
        let body = match tokio::time::timeout(ADMIN_REQUEST_TIME, whole).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                discard(body).await;
                let detail = format!("a context has at most {OFREP_BODY_BYTES} bytes");
                return fault(StatusCode::PAYLOAD_TOO_LARGE, "GENERAL", &detail);
            }
            Ok(Err(_)) => return fault(StatusCode::BAD_REQUEST, "PARSE_ERROR", "it broke off"),
            Err(_) => return fault(StatusCode::REQUEST_TIMEOUT, "GENERAL", "it took too long"),
        };
        if !needs_token {
            self.guests.strike(guest);
        }
        let question = Question {
            method: &parts.method,
            path: parts.uri.path(),
            known: parts.headers.get(header::IF_NONE_MATCH),
            body: &body,
        };
        let flags = self.controls.published().flags.clone();
        let mut response = answer::answer(&flags, Instant::now(), &question);
        if self.life.has_retired() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    /// The answer to one who may not ask.
    fn refusal(
        &self,
        request: &http::request::Parts,
        peer: SocketAddr,
    ) -> Option<Response<Full<Bytes>>> {
        let needs_token = self.locks.auth.is_some();
        if let Err(problem) = pass_application(&self.doors, needs_token, request) {
            let (status, detail, closes) = problem.in_short();
            let mut refused = fault(status, "GENERAL", detail);
            if closes {
                let close = HeaderValue::from_static("close");
                refused.headers_mut().insert(header::CONNECTION, close);
            }
            return Some(refused);
        }
        let auth = self.locks.auth.as_ref()?;
        let token = crate::auth::bearer(&request.headers);
        let rejection = auth.check(peer.ip(), token).err()?;
        let (status, detail) = match rejection {
            Rejection::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "a token of ofrep.tokens_file is needed",
            ),
            Rejection::TooManyFailures => (
                StatusCode::TOO_MANY_REQUESTS,
                "too many failed attempts from this address; wait a minute",
            ),
        };
        Some(fault(status, "GENERAL", detail))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn socket_that_cannot_be_used_is_an_error_before_anything_is_served() {
        let file = std::fs::File::open("/dev/null").expect("there is one");
        let entrance = Entrance {
            socket: OwnedFd::from(file).into(),
            locks: Locks::default(),
        };
        assert!(open(entrance).is_err());
    }
}

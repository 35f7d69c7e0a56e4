//! The admin API: JSON over HTTP/1.1, on its own runtime, apart from the data plane.
//!
//! A small accept loop of our own in front of axum: connections are bounded, requests must arrive in
//! time, bodies are small, and nothing is routed before [`guard`] has let it pass. The API never
//! decides anything: it asks the control thread and describes the answer.

mod asset;
pub(crate) mod body;
mod cluster;
mod condition;
mod dashboard;
mod database;
#[cfg(feature = "api-docs")]
mod docs;
mod document;
mod explain;
mod extract;
mod flags;
pub(crate) mod guard;
pub(crate) mod guests;
mod head;
mod history;
mod hooks;
mod problem;
mod reads;
mod recovery;
pub(crate) mod stall;
mod stream;
pub(crate) mod views;
mod writes;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use switchback_config::defaults::{
    ADMIN_ANSWERS_TIME, ADMIN_BODY_BYTES, ADMIN_CONNECTIONS, ADMIN_DISCARD_TIME,
    ADMIN_HEADER_BYTES, ADMIN_HEADERS, ADMIN_REQUEST_TIME, ADMIN_WRITE_STALL, OFREP_CONNECTIONS,
};
use switchback_proxy::data_plane::DataPlane;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Auth;
use crate::control::Controls;
use crate::drill::Drills;
use crate::events::Events;
use crate::hooks::Hooks;
use crate::ready::Readiness;
use crate::reload::Reloader;
use crate::sightings::Sightings;
use crate::store::Store;
use crate::trend::Trends;
use document::Document;
use guard::Doors;
use guests::{Guest, Guests};
use problem::Problem;
use stall::Impatient;

/// Everything the endpoints need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    /// The control thread.
    pub controls: Controls,
    /// What happened.
    pub events: Events,
    /// What was recorded.
    pub store: Store,
    /// Reads the file again.
    pub reloader: Arc<Reloader>,
    /// Counters.
    pub plane: Arc<DataPlane>,
    /// Whether to send clients here.
    pub life: Arc<Life>,
    /// Whom to tell.
    pub hooks: Hooks,
    /// What backends did in the last minutes.
    pub trends: Trends,
    /// Rehearsals of rollbacks.
    pub drills: Drills,
    /// When versions last got requests.
    pub(crate) sightings: Sightings,
    /// Whether services can be rolled back.
    pub(crate) readiness: Readiness,
    /// Where the API is served.
    pub address: SocketAddr,
}

/// Where the process stands between start and end.
#[derive(Debug)]
pub struct Life {
    ready: AtomicBool,
    /// The API is not served here any more.
    retired: watch::Sender<bool>,
    /// One for each connection that there may be.
    places: Arc<Semaphore>,
    /// The same for applications that ask for flags.
    pub(crate) applications: Arc<Semaphore>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            ready: AtomicBool::default(),
            retired: watch::Sender::default(),
            places: Arc::new(Semaphore::new(ADMIN_CONNECTIONS)),
            applications: Arc::new(Semaphore::new(OFREP_CONNECTIONS)),
        }
    }
}

impl Life {
    /// Says whether clients may be sent here.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Says that the API is served by another process or by none: no connection is accepted any more, and
    /// those that are open end with the answer to the request they carry.
    pub(crate) fn retire(&self) {
        self.retired.send_replace(true);
    }

    /// Waits until that has happened, for a while: whoever is not answered asks again, and a second
    /// rollback goes further back than the first.
    pub(crate) async fn is_quiet(&self) {
        let all = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let operators = self.places.acquire_many(all(ADMIN_CONNECTIONS));
        let applications = self.applications.acquire_many(all(OFREP_CONNECTIONS));
        let all = async { tokio::join!(operators, applications) };
        let _ = tokio::time::timeout(ADMIN_ANSWERS_TIME, all).await;
    }

    /// Whether it has happened.
    pub(crate) fn has_retired(&self) -> bool {
        *self.retired.borrow()
    }

    pub(crate) async fn is_retired(&self) {
        let mut retired = self.retired.subscribe();
        // The sender is part of this.
        let _ = retired.wait_for(|retired| *retired).await;
    }

    /// Whether clients may be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// How the API is reached.
#[derive(Debug)]
pub struct Entrance {
    /// The bound socket.
    pub socket: std::net::TcpListener,
    /// TLS; loopback addresses may go without.
    pub tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// Host names accepted besides the literal address.
    pub allowed_hosts: Vec<String>,
    /// Who may do what.
    pub auth: Arc<Auth>,
}

/// The routes, and the document that describes them: what is registered here is described, and the
/// other way around.
fn routes() -> OpenApiRouter<Api> {
    let routes = OpenApiRouter::with_openapi(document::outline());
    #[cfg(feature = "api-docs")]
    let routes = routes
        .routes(routes!(docs::moved))
        .routes(routes!(docs::page))
        .routes(routes!(docs::file));
    let routes = routes
        .routes(routes!(dashboard::home))
        .routes(routes!(dashboard::moved))
        .routes(routes!(dashboard::page))
        .routes(routes!(dashboard::file))
        .routes(routes!(reads::overview::overview))
        .routes(routes!(reads::services))
        .routes(routes!(reads::service))
        .routes(routes!(reads::overview::trend))
        .routes(routes!(explain::explain))
        .routes(routes!(writes::traffic::weights))
        .routes(routes!(writes::traffic::rollback))
        .routes(routes!(writes::traffic::switch))
        .routes(routes!(writes::traffic::set_backend))
        .routes(routes!(writes::traffic::block))
        .routes(routes!(writes::traffic::unblock))
        .routes(routes!(reads::rollout, writes::rollout::start))
        .routes(routes!(writes::rollout::promote))
        .routes(routes!(writes::rollout::pause))
        .routes(routes!(writes::rollout::resume))
        .routes(routes!(writes::drill::show, writes::drill::drill))
        .routes(routes!(writes::runbook::runbooks))
        .routes(routes!(writes::runbook::show, writes::runbook::begin))
        .routes(routes!(writes::runbook::tick))
        .routes(routes!(writes::runbook::stop))
        .routes(routes!(writes::traffic::rollback_all))
        .routes(routes!(writes::process::acknowledge))
        .routes(routes!(history::revisions))
        .routes(routes!(history::revision))
        .routes(routes!(history::diff))
        .routes(routes!(history::restore::restore))
        .routes(routes!(reads::rollbacks::rollbacks))
        .routes(routes!(reads::rollbacks::rollback))
        .routes(routes!(stream::events))
        .routes(routes!(reads::audit))
        .routes(routes!(reads::check_audit))
        .routes(routes!(writes::process::reload))
        .routes(routes!(hooks::hooks))
        .routes(routes!(hooks::deliveries))
        .routes(routes!(hooks::dead_letters))
        .routes(routes!(hooks::drop))
        .routes(routes!(hooks::retry))
        .routes(routes!(flags::flags))
        .routes(routes!(flags::flag, flags::set, flags::unset))
        .routes(routes!(flags::shares))
        .routes(routes!(flags::off))
        .routes(routes!(flags::on))
        .routes(routes!(flags::evaluate_flag))
        .routes(routes!(database::show, database::set))
        .routes(routes!(database::phase))
        .routes(routes!(database::rehearsed))
        .routes(routes!(database::reverse, database::confirm_reverse))
        .routes(routes!(database::gate))
        .routes(routes!(recovery::ready))
        .routes(routes!(recovery::methods))
        .routes(routes!(recovery::diagnose));
    with_process(routes)
}

/// Adds those that are about the process, and about others beside it.
fn with_process(routes: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    routes
        .routes(routes!(cluster::show))
        .routes(routes!(cluster::drain))
        .routes(routes!(cluster::remove))
        .routes(routes!(reads::config))
        .routes(routes!(reads::whoami))
        .routes(routes!(document::openapi))
        .routes(routes!(reads::probes::livez))
        .routes(routes!(reads::probes::readyz))
        .routes(routes!(reads::probes::healthz))
        .routes(routes!(reads::metrics))
}

fn router(api: Api) -> Router {
    let (router, described) = routes().split_for_parts();
    let document = Document::new(described);
    router
        .fallback(|| async { Problem::not_found("there is no such endpoint") })
        .method_not_allowed_fallback(|| async {
            let detail = "this endpoint does not take this method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        })
        .layer(Extension(document))
        .with_state(api)
}

/// Serves the API until the process ends.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve(entrance: Entrance, api: Api) -> io::Result<()> {
    let address = entrance.socket.local_addr()?;
    entrance.socket.set_nonblocking(true)?;
    let socket = TcpListener::from_std(entrance.socket)?;
    let life = api.life.clone();
    let door = Arc::new(Door {
        life: life.clone(),
        guests: Guests::default(),
        doors: Doors {
            address,
            allowed_hosts: Some(entrance.allowed_hosts),
        },
        auth: entrance.auth,
        router: router(api),
        tls: entrance.tls,
    });
    let places = life.places.clone();
    let mut retired = pin!(life.is_retired());
    loop {
        let next = async {
            let accepted = socket.accept().await;
            if accepted.is_ok() && places.available_permits() == 0 {
                door.guests.send_one_away();
            }
            (accepted, places.clone().acquire_owned().await)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = &mut retired => return Ok(()),
            next = next => next,
        };
        let place = place.map_err(io::Error::other)?;
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(door.clone().connection(stream, peer, place));
            }
            Err(error) => {
                tracing::warn!(%error, "accept an admin connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

struct Door {
    life: Arc<Life>,
    guests: Guests,
    doors: Doors,
    auth: Arc<Auth>,
    router: Router,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
}

/// Takes what a refused request still sends, within bounds and without keeping it: a connection that is
/// closed with unread bytes is reset, and the refusal lost on its way.
pub(crate) async fn discard(body: Incoming) {
    let mut body = Limited::new(body, ADMIN_BODY_BYTES);
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(ADMIN_DISCARD_TIME, all).await;
}

impl Door {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
    ) {
        let _ = stream.set_nodelay(true);
        let guest = self.guests.enter();
        tokio::select! {
            () = self.clone().welcome(stream, peer, &guest) => {}
            () = guest.is_sent_away() => {}
        }
        self.guests.strike(&guest);
        drop(place);
    }

    async fn welcome(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, guest: &Guest) {
        let Some(tls) = &self.tls else {
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
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
        peer: SocketAddr,
        guest: &Guest,
    ) {
        let service = service_fn(|request| async move {
            Ok::<_, Infallible>(self.answer(request, peer, guest).await)
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(ADMIN_REQUEST_TIME)
            .max_buf_size(ADMIN_HEADER_BYTES)
            .max_headers(ADMIN_HEADERS);
        let stream = TokioIo::new(Impatient::new(stream, ADMIN_WRITE_STALL));
        let mut connection = pin!(builder.serve_connection(stream, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.life.is_retired() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "admin connection");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        guest: &Guest,
    ) -> Response {
        let mut response = match self.let_in(request, peer, guest).await {
            Ok(request) => match self.router.clone().call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(problem) => problem.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        response
    }

    async fn let_in(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        guest: &Guest,
    ) -> Result<Request<Body>, Problem> {
        let (mut parts, body) = request.into_parts();
        match guard::pass(&self.doors, &self.auth, peer.ip(), &parts) {
            Ok(Some(caller)) => {
                self.guests.strike(guest);
                parts.extensions.insert(caller);
            }
            Ok(None) => {}
            Err(problem) => {
                discard(body).await;
                return Err(problem);
            }
        }
        let too_large = || {
            let detail = format!("a body has at most {ADMIN_BODY_BYTES} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Problem::new(status, "body_too_large", detail)
        };
        if body.size_hint().lower() > ADMIN_BODY_BYTES as u64 {
            // Nobody has to send it first to be told.
            discard(body).await;
            return Err(too_large());
        }
        let body = Limited::new(body, ADMIN_BODY_BYTES).collect();
        let body = match tokio::time::timeout(ADMIN_REQUEST_TIME, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(_)) => return Err(Problem::bad_request("invalid_body", "the body broke off")),
            Err(_) => {
                let detail = "the body did not arrive in time";
                return Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "body_timeout",
                    detail,
                ));
            }
        };
        Ok(Request::from_parts(parts, Body::from(body)))
    }
}

//! The one truth the data plane works with: an immutable table of routes, services and backends.
//!
//! A snapshot is built by the controller and swapped in whole; a request sees exactly one. What must
//! survive a swap (counters, health) is shared by `Arc` between the old and the new snapshot, and
//! what belongs to one worker (connection pools, places in strata) lives in that worker's own
//! view, which follows the snapshot. There is no other way to change where traffic goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use switchback_config::model::{
    Affinity, Balance, HeaderChanges, LimitOverrides, Limits, LogFormat, Name, Preview, Redirect,
    Rescue, Rewrite,
};
use switchback_config::units::{ByteSize, Percent, Scheme, TimeSpan};

use crate::exposure::Exposure;
use crate::flag::FlagHeader;
use crate::h1::facts::HeadLimits;
use crate::health::EndpointHealth;
use crate::mixture::Mixture;
use crate::outcome::ErrorRules;
use crate::pin::Pin;
use crate::route_use::RouteUse;
use crate::router::Router;
use crate::slow::Slowness;
use crate::split::Split;
use crate::stats::mirrored::PairCells;
use crate::stats::{BackendStats, JudgeCells};
use crate::tls::ClientTls;

/// Everything a request needs to know.
#[derive(Debug)]
pub struct Snapshot {
    /// The number of the recorded state this was built from.
    pub revision: u64,
    /// Finds a route's position in `routes`.
    pub router: Arc<Router>,
    /// Routes in the order of the file.
    pub routes: Arc<[Route]>,
    /// Services, sorted by name; routes refer to them by position.
    pub services: Vec<Arc<Service>>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Shape of access log lines.
    pub access_log: LogFormat,
}

impl Snapshot {
    /// A snapshot that serves nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            revision: 0,
            router: Arc::default(),
            routes: Arc::new([]),
            services: Vec::new(),
            trusted_proxies: Vec::new(),
            access_log: LogFormat::Off,
        }
    }
}

/// A route that leads somewhere.
#[derive(Debug)]
pub struct Route {
    /// Where to.
    pub action: RouteAction,
    /// Whether it is for certain hosts only.
    pub names_host: bool,
    /// The matched prefix, which a rewrite replaces.
    pub path: String,
    /// Changes to the target.
    pub rewrite: Rewrite,
    /// Changes to the headers sent to the backend.
    pub request_headers: HeaderChanges,
    /// Changes to the headers sent to the client.
    pub response_headers: HeaderChanges,
    /// When it was last asked for, where that matters.
    pub used: Option<Arc<RouteUse>>,
    /// Whether its requests are written to the access log: those that no client sends are not.
    pub logged: bool,
    /// The limits of its requests.
    pub limits: RequestLimits,
    /// The limits of its requests that arrive on listeners with limits of their own.
    pub limits_by_listener: Vec<(Name, RequestLimits)>,
}

impl Route {
    /// The limits of a request that arrived on `listener`.
    pub(crate) fn limits_on(&self, listener: &str) -> &RequestLimits {
        self.limits_by_listener
            .iter()
            .find(|(name, _)| name == listener)
            .map_or(&self.limits, |(_, limits)| limits)
    }
}

/// What a route does with a request.
#[derive(Debug)]
pub enum RouteAction {
    /// Forward to the service at this position.
    Service(usize),
    /// Answer with a redirect.
    Redirect(Redirect),
}

/// The limits that hold for one request, after routing. `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of the request body.
    pub request_body_bytes: Option<u64>,
    /// Between two pieces of it.
    pub request_body_idle: Option<Duration>,
    /// How long a client may take no byte of the response.
    pub write_stall: Option<Duration>,
    /// How long a tunnel may be silent.
    pub tunnel_idle: Option<Duration>,
    /// From the end of the request to the response headers.
    pub upstream_response: Option<Duration>,
    /// Between two pieces of the response body.
    pub upstream_body_idle: Option<Duration>,
    /// 1xx responses.
    pub informational_responses: u32,
}

impl RequestLimits {
    /// The limits of a route's requests. More specific ones win: route, service, listener, global.
    #[must_use]
    pub fn resolve(global: &Limits, narrowing: &[&LimitOverrides]) -> Self {
        let limits = narrowing.iter().fold(global.clone(), |limits, narrower| {
            limits.overridden_by(narrower)
        });
        let time = |limit: Option<TimeSpan>| limit.map(|span| span.0);
        Self {
            request_body_bytes: limits.request_body_bytes.map(|ByteSize(bytes)| bytes),
            request_body_idle: time(limits.request_body_idle_timeout),
            write_stall: time(limits.write_stall_timeout),
            tunnel_idle: time(limits.tunnel_idle_timeout),
            upstream_response: time(limits.upstream_response_timeout),
            upstream_body_idle: time(limits.upstream_body_idle_timeout),
            informational_responses: limits
                .informational_responses
                .map_or(u32::MAX, std::num::NonZeroU32::get),
        }
    }
}

/// A service with its effective state.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// Its backends; everything below refers to them by position.
    pub backends: Vec<Arc<Backend>>,
    /// Effective shares: blocked backends have none.
    pub split: Split,
    /// The effective stable.
    pub stable: usize,
    /// Backends that get nothing at all, preview included.
    pub blocked: Vec<bool>,
    /// Where finished requests are counted for the judge, by backend. Empty: nobody judges.
    pub judged: Vec<Arc<JudgeCells>>,
    /// Who meets each backend, for those that are watched and have weight.
    pub exposures: Vec<Option<Arc<Exposure>>>,
    /// Which outcomes are failures.
    pub errors: ErrorRules,
    /// From when on requests are slow; none: it does not matter how long they take.
    pub slow: Option<Slowness>,
    /// How endpoints are chosen.
    pub balance: Balance,
    /// Which clients stay on one backend.
    pub affinity: Option<Affinity>,
    /// What keeps a page and its files on one version.
    pub pin: Option<Arc<Pin>>,
    /// Which testers choose a backend.
    pub preview: Option<Preview>,
    /// Which requests are copied, while somebody gets copies.
    pub mirror: Option<Arc<Mirror>>,
    /// When a failed canary attempt is repeated on stable.
    pub rescue: Rescue,
    /// Whether canaries take the share of a stable without healthy endpoints.
    pub spill_to_canary: bool,
    /// Whether clients see which backend answered.
    pub expose: bool,
    /// Replaces `Host` upstream.
    pub upstream_host: Option<String>,
    /// Streams on a backend without weight are closed after this.
    pub drain_streams: Option<Duration>,
    /// When streams of each backend began to be cut (`rollback --cut`), as a count: a stream that
    /// began at a lower count is closed now.
    pub cuts: Vec<u64>,
    /// Limits of its upstream connections.
    pub upstream: UpstreamLimits,
    /// Which flags its backends are told.
    pub flags: Option<Arc<FlagHeader>>,
    /// Where responses are counted by the version that they name.
    pub versions: Option<VersionHeader>,
    /// Whether caches may not keep responses of each backend. Empty: they may.
    pub no_store: Vec<bool>,
}

/// A response header that names the version which answers.
#[derive(Debug)]
pub struct VersionHeader {
    /// Its name, in lower case.
    pub header: String,
    /// What is counted, by backend.
    pub backends: Vec<Arc<Mixture>>,
}

impl Service {
    /// Whether split traffic may go to a backend.
    #[must_use]
    pub fn is_open(&self, backend: usize) -> bool {
        self.split.weight(backend) > 0 && !self.blocked[backend]
    }

    /// Whether copies may go to a backend.
    #[must_use]
    pub fn mirrors_to(&self, backend: usize) -> bool {
        self.mirror
            .as_ref()
            .is_some_and(|mirror| mirror.to == backend)
    }
}

/// Copies of stable's requests for another backend.
#[derive(Debug)]
pub struct Mirror {
    /// The backend that gets them; neither stable nor blocked.
    pub to: usize,
    /// Which requests are chosen, see [`Mirror::sampling`].
    pub sample: Split,
    /// Their methods.
    pub methods: Vec<String>,
    /// Requests with a larger body are not copied.
    pub body_bytes_max: usize,
    /// How much longer than its original a copy may take.
    pub patience: Duration,
    /// Copies of one worker at a time.
    pub concurrency: u32,
    /// Where pairs are counted for the judge, if it is to hear of them.
    pub judged: Option<Arc<PairCells>>,
}

impl Mirror {
    /// What a chosen request is called in [`Mirror::sample`].
    pub(crate) const CHOSEN: usize = 1;

    /// A split between requests that are not chosen and those that are.
    #[must_use]
    pub fn sampling(share: Percent) -> Split {
        Split::new(
            &[Percent::WHOLE - share.millionths(), share.millionths()],
            0,
        )
    }

    pub(crate) fn has_method(&self, method: &[u8]) -> bool {
        self.methods
            .iter()
            .any(|listed| listed.as_bytes() == method)
    }
}

/// Limits of the connections to one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Open connections, all workers together.
    pub connections: u64,
    /// Requests of one worker that wait for one.
    pub queue: usize,
    /// How long.
    pub queue_timeout: Option<Duration>,
    /// Connect and TLS handshake.
    pub connect_timeout: Option<Duration>,
    /// Bytes and fields of a response head.
    pub response_header_bytes: Option<ByteSize>,
    /// Fields of a response head.
    pub response_header_count: Option<std::num::NonZeroU32>,
    /// Streams on one HTTP/2 connection.
    pub h2_streams: u32,
}

impl UpstreamLimits {
    /// The limits of a service.
    #[must_use]
    pub fn resolve(global: &Limits, service: &LimitOverrides) -> Self {
        let limits = global.overridden_by(service);
        let count =
            |limit: Option<std::num::NonZeroU32>| limit.map_or(u32::MAX, std::num::NonZeroU32::get);
        Self {
            connections: count(limits.upstream_connections).into(),
            queue: usize::try_from(count(limits.upstream_queue)).unwrap_or(usize::MAX),
            queue_timeout: limits.upstream_queue_timeout.map(|span| span.0),
            connect_timeout: limits.upstream_connect_timeout.map(|span| span.0),
            response_header_bytes: limits.response_header_bytes,
            response_header_count: limits.response_header_count,
            h2_streams: count(limits.h2_streams),
        }
    }
}

impl UpstreamLimits {
    /// The limits of response heads.
    pub(crate) fn response_head(&self) -> HeadLimits {
        HeadLimits::of_responses(self.response_header_bytes, self.response_header_count)
    }
}

/// One deployed version.
#[derive(Debug)]
pub struct Backend {
    /// Its name.
    pub name: Arc<str>,
    /// Label of what is deployed.
    pub version: Arc<str>,
    /// Its endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What was counted for this version.
    pub stats: Arc<BackendStats>,
}

/// One address of a backend.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// How to speak.
    pub scheme: Scheme,
    /// `host[:port]` as its own clients would name it.
    pub authority: String,
    /// TLS, for `https`.
    pub tls: Option<ClientTls>,
    /// Whether it can be used.
    pub health: Arc<EndpointHealth>,
}

/// Holds the current snapshot; shared by the controller, which swaps, and the workers, who read.
#[derive(Debug)]
pub struct Routing {
    current: ArcSwap<Snapshot>,
    /// Counts swaps, so that workers notice one with a single load of an unshared line.
    generation: AtomicU64,
}

impl Routing {
    /// Starts with a snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(snapshot),
            generation: AtomicU64::new(1),
        })
    }

    /// Replaces the snapshot. From the moment this returns, a worker that looks sees the new one;
    /// [`crate::fence`] tells when all have.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        self.current.store(snapshot);
        self.generation.fetch_add(1, Release);
    }

    /// The current snapshot.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// How many swaps there have been. Read before [`Routing::current`], it never runs ahead of it.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }
}

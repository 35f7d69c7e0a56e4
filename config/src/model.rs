//! The configuration as meant: what the rest of the product works with.
//!
//! A [`Config`] exists only if the whole file was valid: every name refers to something, every
//! default is filled in, every quantity is in range. Code that holds one never asks "is this set?"
//! about anything but true options. The file as written is [`crate::raw`]; the way from there to
//! here is [`crate::validate`].
//!
//! Serialising a model writes it in the notation of the file, which is what `check --explain`,
//! `GET /v1/config` and the stored overrides show.

mod cluster;
mod database;
mod deprecation;
mod flag;
mod hooks;
mod limits;
mod mirror;
mod pin;
mod rollback;
mod rollout;
mod rule;
pub(crate) mod runbook;
mod slow;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use indexmap::IndexMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Endpoint, Percent, TimeSpan};
pub use cluster::{Cluster, Etcd};
pub use database::{Database, Migration, SchemaSupport};
pub use deprecation::Deprecation;
pub use flag::{Condition, Flag, FlagHeader, FlagRule, Ofrep};
pub use hooks::{
    CarriedOut, CarriedWay, Check, Gate, GateFailure, Hook, HookAction, HookEvent, HttpHook,
    Preset, RunHook, Until,
};
use limits::or_off;
pub use limits::{LimitOverrides, Limits};
pub use mirror::Mirror;
pub use pin::Pin;
pub use rollback::{CompareTo, ErrorClass, OnFailure, Rollback, Uncontrolled};
pub use rollout::{Bake, ROLLOUT_PARTS, Rollout, RolloutFault, Step};
pub use rule::{RateRule, Rule, Signal, SignalSource};
pub use runbook::{Method, Runbook, RunbookSource, RunbookStep, StepKind, Trigger};
pub use slow::Slow;

/// Name of a service, listener or backend: letters, digits, `-`, `_` and `.`, 1 to 63 characters.
pub type Name = String;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Data-plane threads.
    pub workers: Workers,
    /// The admin API.
    pub admin: Admin,
    /// Addresses that accept client connections, by name.
    pub listeners: IndexMap<Name, Listener>,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `x-request-id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What happens to request headers with an underscore in their name.
    pub underscores: Underscores,
    /// Where finished requests are written.
    pub access_log: AccessLog,
    /// Limits that hold where nothing more specific is set.
    pub limits: Limits,
    /// Matches that lead to services, in the order of the file.
    pub routes: Vec<Route>,
    /// Services by name, in the order of the file.
    pub services: IndexMap<Name, Service>,
    /// Feature flags by name, in the order of the file.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub flags: IndexMap<Name, Flag>,
    /// Where applications ask for flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ofrep: Option<Ofrep>,
    /// Several instances that share one state; none: this one is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// What is done when a release has gone wrong, by name.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub runbooks: IndexMap<Name, RunbookSource>,
    /// The files of those that were read from files.
    #[serde(skip)]
    pub runbook_files: Vec<PathBuf>,
}

/// How many data-plane threads to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Workers {
    /// One for each CPU core that this process may use.
    Auto,
    /// Exactly so many, 1 to 1024.
    #[serde(untagged)]
    Count(NonZeroUsize),
}

/// What happens to request headers with an underscore in their name, which some backends take for a
/// hyphen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Underscores {
    /// They are left out.
    #[default]
    Drop,
    /// The request is refused.
    Reject,
    /// They pass.
    Allow,
}

/// The admin API and its guards.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Admin {
    /// Where the API listens. Anything but loopback has `tls`.
    pub address: SocketAddr,
    /// TLS of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<AdminTls>,
    /// Host names accepted besides the literal address.
    pub allowed_hosts: Vec<String>,
    /// File of tokens; without one, an admin token is generated into the state directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_file: Option<PathBuf>,
    /// Where endpoints set over the API may point.
    pub endpoint_allow: Vec<IpNet>,
    /// Revisions kept in the history; those of the last three versions of a service stay anyway.
    pub revisions: NonZeroU32,
}

/// TLS of the admin API.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdminTls {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the authorities whose client certificates are required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// One bound address that accepts client connections.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listener {
    /// What to bind.
    pub address: SocketAddr,
    /// TLS; plain text without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Whether each connection begins with a PROXY protocol header (version 1 or 2), which then
    /// names the client.
    pub proxy_protocol: bool,
    /// Limits of this listener.
    #[serde(skip_serializing_if = "LimitOverrides::is_empty")]
    pub limits: LimitOverrides,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListenerTls {
    /// Certificates, chosen by the client's SNI; the first one serves names that match none.
    pub certificates: Vec<CertificateFiles>,
    /// The lowest TLS version accepted.
    pub min_version: TlsVersion,
    /// PEM file with the authorities whose certificates clients must show; none: no client
    /// certificate is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFiles {
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3
    #[serde(rename = "1.3")]
    Tls13,
}

/// Where and how finished requests are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessLog {
    /// Standard output or a file.
    pub path: LogPath,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Destination of the access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogPath {
    /// Standard output.
    Stdout,
    /// A file, reopened on SIGUSR1.
    #[serde(untagged)]
    File(PathBuf),
}

/// Shape of an access log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
    /// No access log.
    Off,
}

/// A match that leads to a service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Route {
    /// Which `Host` matches.
    #[serde(skip_serializing_if = "HostPattern::is_any")]
    pub host: HostPattern,
    /// Path prefix, matched on segment boundaries: `/a` matches `/a` and `/a/b`, not `/ab`.
    pub path: String,
    /// Methods that match; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Headers that must be there with exactly this value; names in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Listeners this route belongs to; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Name>,
    /// What to do with a request that matches.
    #[serde(flatten)]
    pub action: Action,
    /// What to change on the way.
    #[serde(skip_serializing_if = "Rewrite::is_empty")]
    pub rewrite: Rewrite,
    /// Changes to the headers sent to the backend.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Changes to the headers sent to the client.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
    /// What clients are told about its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<Deprecation>,
    /// A reload may remove it only when it has had no request for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_while_used: Option<TimeSpan>,
    /// Limits of this route.
    #[serde(skip_serializing_if = "LimitOverrides::is_empty")]
    pub limits: LimitOverrides,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Forward to this service.
    Service(Name),
    /// Answer 308 with the same URL on another scheme.
    Redirect(Redirect),
}

/// Where a redirecting route sends clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redirect {
    /// Same host and path, scheme https.
    pub https: bool,
}

/// Which values of `Host` a route matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub enum HostPattern {
    /// Every host.
    Any,
    /// Exactly this one, in lower case, without port.
    Exact(String),
    /// `*.example.com`: any name with one or more labels before this suffix, which is stored
    /// in lower case with its leading dot.
    Suffix(String),
}

impl HostPattern {
    /// Whether every host matches.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        match pattern {
            HostPattern::Any => "*".into(),
            HostPattern::Exact(host) => host,
            HostPattern::Suffix(suffix) => format!("*{suffix}"),
        }
    }
}

/// Changes to the target of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rewrite {
    /// Replaces the route's matched path prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Replaces `Host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Rewrite {
    /// Whether nothing is changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.prefix.is_none() && self.host.is_none()
    }
}

/// Headers to set and to remove; names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeaderChanges {
    /// Replaced or added.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Added beside what is there: what switchback itself has to say.
    #[serde(skip)]
    pub add: Vec<(String, String)>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty() && self.add.is_empty()
    }
}

/// What a route points at; owns one split over its backends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Service {
    /// What a canary gives its traffic back to; every other backend is a canary.
    pub stable: Name,
    /// Share of each backend: weight / sum. All backends are named; the sum is above 0.
    pub weights: IndexMap<Name, u32>,
    /// The versions of this service, by name, in the order of the file.
    pub backends: IndexMap<Name, Backend>,
    /// How an endpoint of the picked backend is chosen.
    pub balance: Balance,
    /// Which clients stay on one backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// What keeps a page and its files on one version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Which testers may choose a backend themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// Active checks; passive ones only without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// When a failed canary attempt is repeated on stable.
    pub rescue: Rescue,
    /// Copies of stable's requests for another backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// The judge.
    pub rollback: Rollback,
    /// How a canary grows, unless whoever starts it says otherwise.
    pub rollout: Rollout,
    /// Whom to tell what happens, and what to ask before a switch, in the order of the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Whether canaries take the share of a stable without healthy endpoints.
    pub spill_to_canary: bool,
    /// Whether clients see which backend answered.
    pub expose: bool,
    /// Replaces `Host` upstream; the client's is kept without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_host: Option<String>,
    /// What happens to long-lived streams of a backend that has lost its weight.
    pub drain: Drain,
    /// Limits of this service.
    #[serde(skip_serializing_if = "LimitOverrides::is_empty")]
    pub limits: LimitOverrides,
    /// Which flags the backends are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<FlagHeader>,
    /// The response header in which backends name their version, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_header: Option<String>,
    /// Whether caches are told to keep nothing of versions that may be rolled back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_store_on_trial: bool,
    /// How often a rollback is rehearsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// The database behind it.
    #[serde(skip_serializing_if = "Database::is_default")]
    pub database: Database,
    /// Earlier stable versions that have to stay reachable.
    #[serde(skip_serializing_if = "is_zero")]
    pub retain: u32,
}

/// When a rollback is rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Drill {
    /// From one rehearsal to the next.
    pub every: TimeSpan,
}

const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One deployed version of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Label of what is deployed; empty only where a service has a single backend.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its addresses, at least one.
    pub endpoints: Vec<Endpoint>,
    /// TLS towards `https` endpoints.
    #[serde(default, skip_serializing_if = "UpstreamTls::is_default")]
    pub tls: UpstreamTls,
    /// Flags that go off when this version is rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub off_on_rollback: Vec<Name>,
    /// Which database schemas it can live with; none: nothing is known of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaSupport>,
    /// What its release does to the database.
    #[serde(default, skip_serializing_if = "Migration::is_none")]
    pub migration: Migration,
}

/// TLS towards endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// PEM file with the authorities to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The name to ask for and to verify, instead of the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// PEM file with the chain to present. Set together with `client_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

impl UpstreamTls {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How an endpoint is chosen among the healthy ones of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The less busy of two random ones (power of two choices).
    P2c,
    /// One after the other.
    RoundRobin,
}

/// Which clients stay on one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Affinity {
    /// Where the key of a client is found.
    #[serde(flatten)]
    pub key: AffinityKey,
    /// Whether a missing cookie is set. Always false for a header.
    pub issue: bool,
}

/// Where the key of a client is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AffinityKey {
    /// In this cookie.
    Cookie(String),
    /// In this header; its name in lower case.
    Header(String),
}

/// Lets testers choose a backend, also one at weight 0; such requests are never judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The header that names the backend, in lower case.
    pub header: String,
    /// The clients who may use it.
    pub from: Vec<IpNet>,
}

/// Active checks of every endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// Path of the GET request; healthy is a 2xx answer.
    pub path: String,
    /// From one check to the next.
    pub interval: TimeSpan,
    /// How long one check may take.
    pub timeout: TimeSpan,
    /// Good checks in a row that make an endpoint healthy.
    pub rise: NonZeroU32,
    /// Bad checks in a row that make it unhealthy.
    pub fall: NonZeroU32,
}

/// When a failed canary attempt is repeated on stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rescue {
    /// Whether at all.
    pub enabled: bool,
    /// Safe methods whose requests are repeated.
    pub methods: Vec<String>,
    /// Requests with a larger body are not repeated.
    pub max_body: ByteSize,
    /// Share of the requests of the last 10 s that may be repeated (at least 3).
    pub budget: Percent,
    /// Whether a request with an `Idempotency-Key` may be repeated whatever its method.
    pub idempotency_key: bool,
}

/// What happens to tunnels and streams on a backend that has lost its weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drain {
    /// They are closed after this time; `None` (`off`): never.
    #[serde(serialize_with = "or_off")]
    pub streams: Option<TimeSpan>,
    /// A backend that has had neither weight nor requests for so long may be stopped.
    pub safe_to_stop_after: TimeSpan,
}

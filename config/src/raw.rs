//! The file as written: every key, its type and its meaning, in one list.
//!
//! Nothing here knows whether values fit together; that is [`crate::validate`]. What is declared here
//! is what the decoder accepts and what the JSON Schema shows.

mod cluster;
mod database;
mod flags;
mod hooks;
mod rule;
mod runbook;

use std::net::SocketAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;

use crate::decode::{OrOff, Table, Words, section};
use crate::model::{
    Balance, CompareTo, LogFormat, Migration, OnFailure, Slow, TlsVersion, Underscores,
};
use crate::units::{ByteSize, Date, Endpoint, Percent, Rate, TimeSpan};
pub(crate) use cluster::{Cluster, Etcd};
pub(crate) use database::{Database, SchemaSupport};
pub(crate) use flags::{Condition, Flag, FlagHeader, FlagRule, FlagValue, Number, Ofrep};
pub(crate) use hooks::{Hook, Until};
pub(crate) use rule::{Rule, RuleItem, Signal};
pub(crate) use runbook::{RunbookItem, RunbookSource, RunbookStepItem};

section! {
    /// Configuration of switchback.
    File {
        /// Version of this file's format: 1.
        version: u32,
        /// Data-plane threads: a number, or `auto` (default) for one per CPU core.
        workers: String,
        /// The admin API.
        admin: Admin,
        /// Addresses that accept client connections, by name.
        listeners: Table<Listener>,
        /// Networks of peers whose X-Forwarded-*, Forwarded and x-request-id are believed. Default: none.
        trusted_proxies: Vec<IpNetItem>,
        /// Request headers with an underscore in their name: `drop` (default), `reject` or `allow`.
        underscores: Underscores,
        /// Where finished requests are written. Default: standard output, JSON.
        access_log: AccessLog,
        /// Limits that hold where nothing more specific is set.
        limits: Limits,
        /// What leads where; the best match wins, not the order.
        routes: Vec<RouteItem>,
        /// What routes point at, by name.
        services: Table<Service>,
        /// Feature flags, by name.
        flags: Table<Flag>,
        /// Where applications ask for flags. Default: nowhere.
        ofrep: Ofrep,
        /// Several instances that share one state. Default: this one is alone.
        cluster: Cluster,
        /// What is done when a release has gone wrong, by name: here, or in a file of its own.
        runbooks: Table<RunbookSource>,
    }
    later ["otel", "telemetry"]
}

/// A network with its place.
pub(crate) type IpNetItem = crate::decode::Spanned<IpNet>;
/// A route with its place.
pub(crate) type RouteItem = crate::decode::Spanned<Route>;
/// A step with its place.
pub(crate) type StepItem = crate::decode::Spanned<Step>;
/// Text with its place.
pub(crate) type TextItem = crate::decode::Spanned<String>;
/// A hook with its place.
pub(crate) type HookItem = crate::decode::Spanned<Hook>;
/// An endpoint with its place.
pub(crate) type EndpointItem = crate::decode::Spanned<Endpoint>;

section! {
    /// The admin API and its guards.
    Admin {
        /// Where the API listens. Default: 127.0.0.1:9900. Anything but loopback needs `tls`.
        address: SocketAddr,
        /// TLS of the API.
        tls: AdminTls,
        /// Host names accepted besides the literal address.
        allowed_hosts: Vec<TextItem>,
        /// File with tokens. Default: one admin token is generated into the state directory.
        tokens_file: String,
        /// Networks to which endpoints set over the API may point. Default: loopback and private ones.
        endpoint_allow: Vec<IpNetItem>,
        /// Revisions kept in the history, 10 to 100000. Default: 500.
        revisions: NonZeroU32,
    }
}

section! {
    /// TLS of the admin API.
    AdminTls {
        /// PEM file with the certificate chain.
        certificate: String,
        /// PEM file with the private key.
        key: String,
        /// PEM file with the authorities whose client certificates are required.
        client_ca: String,
    }
}

section! {
    /// One bound address that accepts client connections.
    Listener {
        /// What to bind: 0.0.0.0:8080.
        address: SocketAddr,
        /// TLS. Default: plain text.
        tls: ListenerTls,
        /// Whether connections begin with a PROXY protocol header. Default: false.
        proxy_protocol: bool,
        /// Limits of this listener.
        limits: Limits,
    }
}

section! {
    /// TLS of a listener.
    ListenerTls {
        /// Certificates, chosen by SNI; the first one serves names that match none.
        certificates: Vec<CertificateItem>,
        /// Lowest version: "1.2" (default) or "1.3".
        min_version: TlsVersion,
        /// PEM file with authorities: only clients that show a certificate of theirs are served.
        client_ca: String,
    }
}

/// A certificate with its place.
pub(crate) type CertificateItem = crate::decode::Spanned<Certificate>;

section! {
    /// A certificate chain and its key.
    Certificate {
        /// PEM file with the chain, leaf first.
        certificate: String,
        /// PEM file with the private key.
        key: String,
    }
}

section! {
    /// The access log.
    AccessLog {
        /// `stdout` (default) or a file.
        path: String,
        /// `json` (default), `combined` or `off`.
        format: LogFormat,
    }
}

section! {
    /// A match that leads somewhere.
    Route {
        /// `shop.example.com`, `*.example.com` or `*` (default).
        host: String,
        /// Path prefix on segment boundaries. Default: /.
        path: String,
        /// Methods that match. Default: all.
        methods: Vec<TextItem>,
        /// Headers that must be there with exactly this value.
        headers: Table<String>,
        /// Listeners this route belongs to. Default: all.
        listeners: Vec<TextItem>,
        /// The service requests go to.
        service: String,
        /// Answer with a redirect instead.
        redirect: Redirect,
        /// Changes to the target of requests.
        rewrite: Rewrite,
        /// Changes to the headers sent to the backend.
        request_headers: HeaderChanges,
        /// Changes to the headers sent to the client.
        response_headers: HeaderChanges,
        /// What clients are told about its end.
        deprecation: Deprecation,
        /// A reload does not remove it before it has had no request for so long, unless forced. Default: it does.
        keep_while_used: TimeSpan,
        /// Limits of this route.
        limits: Limits,
    }
    later ["mirror"]
}

section! {
    /// That a route is on its way out: headers for its clients, and at least one of the two dates.
    Deprecation {
        /// From when on it should not be used any more: `deprecation` (RFC 9745). A day, or a time in UTC.
        since: Date,
        /// When it will be gone: `sunset` (RFC 8594). A day, or a time in UTC.
        sunset: Date,
        /// What to read about it, for `link`.
        link: String,
    }
}

section! {
    /// Where a redirecting route sends clients.
    Redirect {
        /// To the same URL with https.
        https: bool,
    }
}

section! {
    /// Changes to the target of requests.
    Rewrite {
        /// Replaces the matched path prefix.
        prefix: String,
        /// Replaces Host.
        host: String,
    }
}

section! {
    /// Headers to set and to remove.
    HeaderChanges {
        /// Replaced or added.
        set: Table<String>,
        /// Removed.
        remove: Vec<TextItem>,
    }
}

section! {
    /// What routes point at: versions and the split of traffic over them.
    Service {
        /// What a canary gives its traffic back to; the other backends are canaries. Needed with several backends.
        stable: String,
        /// Share of each backend: weight / sum. Default: all to stable.
        weights: Table<u32>,
        /// The versions of this service, by name.
        backends: Table<Backend>,
        /// How an endpoint is chosen: `p2c` (default) or `round_robin`.
        balance: Balance,
        /// Which clients stay on one backend. Default: none.
        affinity: Affinity,
        /// What keeps a page and its files on one version. Default: nothing.
        pin: Pin,
        /// Which testers may choose a backend. Default: none.
        preview: Preview,
        /// Active checks. Default: passive only.
        health: HealthCheck,
        /// When a failed canary attempt is repeated on stable.
        rescue: Rescue,
        /// Copies of stable's requests for another backend, whose responses nobody sees. Default: none.
        mirror: Mirror,
        /// The judge.
        rollback: Rollback,
        /// What `rollout start` does. Default: 1%, 10% and 50%, then a bake.
        rollout: Rollout,
        /// Whom to tell what happens, and what to ask before a switch. Default: nobody.
        hooks: Vec<HookItem>,
        /// Whether canaries take the share of a stable without healthy endpoints. Default: false.
        spill_to_canary: bool,
        /// Whether clients see which backend answered. Default: false.
        expose: bool,
        /// Replaces Host upstream. Default: the client's is kept.
        upstream_host: String,
        /// What happens to long-lived streams of a backend without weight.
        drain: Drain,
        /// Limits of this service.
        limits: Limits,
        /// Which flags the backends are told, in a header of every request. Default: none.
        flags: FlagHeader,
        /// Response header in which backends name their version, to notice several behind one label. Default: none.
        version_header: String,
        /// Whether responses of canaries and of a stable on trial go out with Cache-Control: no-store. Default: false.
        no_store_on_trial: bool,
        /// When a rollback is rehearsed. Default: only when somebody asks for it.
        drill: Drill,
        /// The database behind it: when its old form may be removed, and how it would come back.
        database: Database,
        /// Earlier stable versions that have to stay reachable, or `ready` is red. Default: 0.
        retain: u32,
    }
    later ["runbook"]
}

section! {
    /// When a rollback is rehearsed, on a shadow of the service that no user meets.
    Drill {
        /// From one rehearsal to the next: 30d. The first one follows the start.
        every: TimeSpan,
    }
}

section! {
    /// One deployed version.
    Backend {
        /// Label of what is deployed: digest, tag, build number.
        version: String,
        /// Addresses: http://, https:// or h2c://.
        endpoints: Vec<EndpointItem>,
        /// TLS towards https endpoints.
        tls: UpstreamTls,
        /// Flags that go off when this version is rolled back. Default: none.
        off_on_rollback: Vec<TextItem>,
        /// Which versions of the database schema it can live with. Default: nothing is known of that.
        schema: SchemaSupport,
        /// What its release does to the database: `none` (default), `expand`, `contract` or `destructive`.
        migration: Migration,
    }
}

section! {
    /// TLS towards endpoints.
    UpstreamTls {
        /// PEM file with the authorities to trust instead of the system's.
        ca: String,
        /// The name to ask for and to verify, instead of the endpoint's host.
        server_name: String,
        /// PEM file with the chain to present.
        client_certificate: String,
        /// PEM file with its key.
        client_key: String,
    }
}

section! {
    /// Which clients stay on one backend: exactly one of `cookie` and `header`.
    Affinity {
        /// Name of the cookie with the client's key.
        cookie: String,
        /// Name of the header with the client's key.
        header: String,
        /// Whether a missing cookie is set. Default: true.
        issue: bool,
    }
}

section! {
    /// Keeps a client on the version that its page came from.
    Pin {
        /// Name of a cookie that is set to stand for the version.
        cookie: String,
        /// Name of a header in which the page's own code names its version.
        header: String,
        /// Paths of files that belong to one version: where one answers 404, the other is asked.
        assets: Vec<TextItem>,
    }
}

section! {
    /// Which testers may choose a backend, also one at weight 0.
    Preview {
        /// The header that names the backend. Default: x-switchback-backend.
        header: String,
        /// The testers' networks.
        from: Vec<IpNetItem>,
    }
}

section! {
    /// Active checks of every endpoint.
    HealthCheck {
        /// Path of the GET request; healthy is a 2xx answer.
        path: String,
        /// From one check to the next. Default: 2s.
        interval: TimeSpan,
        /// How long one check may take. Default: 1s.
        timeout: TimeSpan,
        /// Good checks in a row that make an endpoint healthy. Default: 2.
        rise: NonZeroU32,
        /// Bad checks in a row that make it unhealthy. Default: 3.
        fall: NonZeroU32,
    }
}

section! {
    /// When a failed canary attempt is repeated on stable.
    Rescue {
        /// Whether at all. Default: true.
        enabled: bool,
        /// Safe methods that are repeated. Default: GET, HEAD, OPTIONS.
        methods: Vec<TextItem>,
        /// Requests with a larger body are not repeated. Default: 64KiB.
        max_body: ByteSize,
        /// Share of requests that may be repeated. Default: 20%.
        budget: Percent,
        /// Whether requests with an Idempotency-Key may be repeated. Default: false.
        idempotency_key: bool,
    }
}

section! {
    /// Copies of stable's requests for another backend, which executes them; its responses are compared and dropped.
    Mirror {
        /// The backend that gets the copies; not stable.
        to: String,
        /// Share of stable's requests with these methods. Default: 100%.
        share: Percent,
        /// Methods that are copied. Default: GET, HEAD, OPTIONS.
        methods: Vec<TextItem>,
        /// Requests with a larger body are not copied. Default: 64KiB.
        max_body: ByteSize,
        /// How much longer than its original a copy may take. Default: 10s.
        timeout: TimeSpan,
        /// Copies of one worker at a time; more are dropped and counted. Default: 100.
        concurrency: NonZeroU32,
        /// Whether the judge blocks a version that fails its copies. Default: false.
        judge: bool,
    }
}

section! {
    /// The judge of a service.
    Rollback {
        /// How much more of its requests than stable the canary may fail. Default: 1%.
        max_extra_errors: Percent,
        /// How much more of its requests than stable the canary may answer slowly, or `off` (default).
        max_extra_slow: OrOff<Percent>,
        /// A request without a response head for so long is slow: a time, or a quantile of stable's
        /// times: `stable p99` (default), p90, p95 or p99.9. Waiting for the client does not count.
        slow: Slow,
        /// At most so many false rollbacks of healthy versions. Default: 1/year.
        false_rollbacks: Rate,
        /// What the canary is compared to: `stable` (default) or `before`.
        compare_to: CompareTo,
        /// A rollback needs at least so many failures. Default: 3.
        min_failures: u32,
        /// A rollback needs at least so many requests. Default: 0.
        min_requests: u32,
        /// Outcomes that are failures: 5xx, 4xx, "503", grpc:13,14, connect, timeout, reset, slow.
        errors: Vec<TextItem>,
        /// Plain rules beside the judge: error_rate > 5% for 5m [and not stable], or a table about what is measured elsewhere.
        rules: Vec<RuleItem>,
        /// What a verdict does: `rollback` (default), `hold` or `notify`.
        on_failure: OnFailure,
        /// How long a new stable is watched, and the previous one stays the rollback target. Default: 48h.
        window: TimeSpan,
        /// Automatic rollback without a control group.
        uncontrolled: Uncontrolled,
        /// A canary without a healthy endpoint for so long is rolled back. Default: 10s.
        unhealthy_for: TimeSpan,
        /// After a rollback, errors must be back to usual within this time. Default: 5m.
        verify: TimeSpan,
        /// Whether samples of failed requests show their paths, numbers and names left out. Default: false.
        sample_paths: bool,
    }
}

section! {
    /// How a canary grows.
    Rollout {
        /// Its shares, one after the other.
        steps: Vec<StepItem>,
        /// The last stretch, with a control group held back; `off`: none.
        bake: OrOff<Bake>,
        /// Requests the canary must have answered before a step is left. Default: 20.
        min_requests: u32,
        /// A rollout that stands still for so long is given up. Default: 24h.
        deadline: TimeSpan,
    }
}

section! {
    /// One share of a canary, and what it takes to go on.
    Step {
        /// Share of the canary.
        weight: Percent,
        /// How long it lasts at least.
        span ("for"): TimeSpan,
        /// How many requests the canary answers at least.
        requests: u32,
        /// Whether somebody has to say that it may go on.
        approve: bool,
    }
}

section! {
    /// The last stretch of a rollout.
    Bake {
        /// Share that stays on stable as the control group. Default: 2%.
        holdback: Percent,
        /// How long it lasts at least. Default: 30m.
        span ("for"): TimeSpan,
    }
}

section! {
    /// Automatic rollback without a control group.
    Uncontrolled {
        /// How long after the change it is automatic. Default: 30m.
        span ("for"): TimeSpan,
        /// What a verdict does afterwards: `rollback`, `hold` or `notify` (default).
        then: OnFailure,
    }
}

section! {
    /// What happens to long-lived streams of a backend that has lost its weight.
    Drain {
        /// They are closed after this time; `off` (default): never.
        streams: OrOff<TimeSpan>,
        /// A backend without weight and requests may be stopped after this time. Default: 30s.
        safe_to_stop_after: TimeSpan,
    }
}

section! {
    /// Limits and timeouts; `off` means no limit.
    Limits {
        /// From the first byte of a request to the end of its headers. Default: 10s.
        header_read_timeout: OrOff<TimeSpan>,
        /// From accept to the end of the TLS handshake. Default: 10s.
        tls_handshake_timeout: OrOff<TimeSpan>,
        /// Between two pieces of a request body. Default: 30s.
        request_body_idle_timeout: OrOff<TimeSpan>,
        /// How long a client may take no bytes of a response. Default: 30s.
        write_stall_timeout: OrOff<TimeSpan>,
        /// How long a client connection may be idle. Default: 60s.
        keep_alive_timeout: OrOff<TimeSpan>,
        /// How long both directions of a tunnel may be silent. Default: 300s.
        tunnel_idle_timeout: OrOff<TimeSpan>,
        /// TCP connect plus TLS handshake with an endpoint. Default: 2s.
        upstream_connect_timeout: OrOff<TimeSpan>,
        /// From the end of the request to the response headers. Default: 30s.
        upstream_response_timeout: OrOff<TimeSpan>,
        /// Between two pieces of a response body. Default: 60s.
        upstream_body_idle_timeout: OrOff<TimeSpan>,
        /// How long a graceful stop waits for requests in flight. Default: 30s.
        shutdown_timeout: OrOff<TimeSpan>,
        /// Request line and headers together. Default: 64KiB.
        request_header_bytes: OrOff<ByteSize>,
        /// One header line. Default: 16KiB.
        request_header_line_bytes: OrOff<ByteSize>,
        /// Number of header lines. Default: 100.
        request_header_count: OrOff<NonZeroU32>,
        /// The request target. Default: 8KiB.
        uri_bytes: OrOff<ByteSize>,
        /// One request body. Default: 64MiB.
        request_body_bytes: OrOff<ByteSize>,
        /// Status line and headers of a response. Default: 64KiB.
        response_header_bytes: OrOff<ByteSize>,
        /// Number of header lines of a response. Default: 200.
        response_header_count: OrOff<NonZeroU32>,
        /// 1xx responses to one request. Default: 16.
        informational_responses: OrOff<NonZeroU32>,
        /// Requests on one client connection. Default: 10000.
        requests_per_connection: OrOff<NonZeroU32>,
        /// Client connections of the whole process. Default: 10000.
        connections: OrOff<NonZeroU32>,
        /// Client connections from one address. Default: 1000.
        connections_per_client: OrOff<NonZeroU32>,
        /// Connections to one backend. Default: 512.
        upstream_connections: OrOff<NonZeroU32>,
        /// Requests waiting for a connection to one backend, on one worker. Default: 1024.
        upstream_queue: OrOff<NonZeroU32>,
        /// How long a request waits for a connection. Default: 1s.
        upstream_queue_timeout: OrOff<TimeSpan>,
        /// Concurrent streams of one HTTP/2 connection. Default: 100.
        h2_streams: OrOff<NonZeroU32>,
        /// Streams over the life of one HTTP/2 connection. Default: 100000.
        h2_streams_per_connection: OrOff<NonZeroU32>,
        /// Streams that a client resets, or makes us reset, in 10 s. Default: 100.
        h2_resets: OrOff<NonZeroU32>,
        /// CONTINUATION frames of one header block; more than five are refused in any case. Default: 16.
        h2_continuations: OrOff<NonZeroU32>,
        /// DATA frames without content in 10 s. Default: 100.
        h2_empty_data: OrOff<NonZeroU32>,
        /// PING, SETTINGS and PRIORITY frames in 10 s. Default: 100.
        h2_control_frames: OrOff<NonZeroU32>,
        /// Request data that one stream may send ahead. Default: 64KiB.
        h2_stream_window: OrOff<ByteSize>,
        /// Request data that all streams of a connection may send ahead. Default: 1MiB.
        h2_connection_window: OrOff<ByteSize>,
        /// Largest frame a client may send. Default: 16KiB.
        h2_frame_bytes: OrOff<ByteSize>,
        /// Table for the compression of request headers. Default: 4KiB.
        h2_header_table_bytes: OrOff<ByteSize>,
    }
}

/// Words for the model's choices.
macro_rules! word_lists {
    ($($kind:ty: $($word:literal => $value:expr),+;)+) => {
        $(impl Words for $kind {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $value)),+];
        })+
    };
}

word_lists! {
    TlsVersion: "1.2" => TlsVersion::Tls12, "1.3" => TlsVersion::Tls13;
    LogFormat: "json" => LogFormat::Json, "combined" => LogFormat::Combined, "off" => LogFormat::Off;
    Underscores: "drop" => Underscores::Drop, "reject" => Underscores::Reject, "allow" => Underscores::Allow;
    Balance: "p2c" => Balance::P2c, "round_robin" => Balance::RoundRobin;
    CompareTo: "stable" => CompareTo::Stable, "before" => CompareTo::Before;
    OnFailure: "rollback" => OnFailure::Rollback, "hold" => OnFailure::Hold, "notify" => OnFailure::Notify;
}

//! Every default and every bound, each with its reason.
//!
//! Two kinds live here: what a key means when the file omits it, and the fixed bounds of queues,
//! buffers and waits that no key changes. A number that limits something anywhere in the product
//! belongs on this page, so that an operator can read all of them at once.

mod cluster;
mod database;
mod flag;
mod import;
mod pin;
mod runbook;
mod stop;
mod takeover;
mod trace;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::model::{
    Bake, CompareTo, ErrorClass, Limits, Mirror, Name, OnFailure, Rescue, Rollback, Rollout, Slow,
    Step, Uncontrolled,
};
use crate::units::{ByteSize, Percent, Period, Rate, TimeSpan};

pub use cluster::*;
pub use database::*;
pub use flag::*;
pub use import::*;
pub use pin::*;
pub use runbook::*;
pub use stop::*;
pub use takeover::*;
pub use trace::*;

/// The admin port, on loopback only, since the API can take a site down.
pub const ADMIN_PORT: u16 = 9900;

/// Config files above this are refused before parsing; 10 000 routes need about 1 MiB.
pub const CONFIG_BYTES_MAX: usize = 16 << 20;

/// Nesting depth of a config file or API body; the schema needs 8.
pub const CONFIG_DEPTH_MAX: usize = 32;

/// Nodes that aliases may expand to; keeps "billion laughs" small.
pub const CONFIG_NODES_MAX: usize = 2_000_000;

/// Faults reported at once; more would scroll the first ones away.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Services in one file.
pub const SERVICES_MAX: usize = 10_000;

/// Routes in one file.
pub const ROUTES_MAX: usize = 100_000;

/// Backends of one service. Rollouts use two, N-2 retention three or four.
pub const BACKENDS_MAX: usize = 32;

/// Endpoints of one backend.
pub const ENDPOINTS_MAX: usize = 1_024;

/// Largest weight, so that sums of weights stay far inside `u64`.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// Header conditions on one route.
pub const ROUTE_HEADERS_MAX: usize = 16;

/// Read and write buffer of one direction of one connection: back-pressure begins here.
pub const BUFFER_BYTES: usize = 64 << 10;

/// What one read from an endpoint or client asks for: a 16 KiB response and its head fit in one.
pub const READ_BYTES: usize = 32 << 10;

/// Chunk extensions of one chunk, and of one message: they are dropped, never needed.
pub const CHUNK_EXTENSION_BYTES: u64 = 4 << 10;

/// Chunk extensions of a whole message.
pub const CHUNK_EXTENSIONS_BYTES: u64 = 16 << 10;

/// Trailer section of one message.
pub const TRAILER_BYTES: usize = 16 << 10;

/// Trailer fields of one message.
pub const TRAILER_COUNT: usize = 64;

/// Unread request body that is read and dropped after an early answer, so that the client sees the
/// answer instead of a reset.
pub const LINGER_BYTES: u64 = 256 << 10;

/// How long that may take.
pub const LINGER_TIME: Duration = Duration::from_secs(1);

/// All 1xx responses of one request together.
pub const INFORMATIONAL_TIME: Duration = Duration::from_secs(5);

/// Window in which floods of HTTP/2 frames are counted.
pub const H2_FLOOD_TIME: Duration = Duration::from_secs(10);

/// A response open for so long counts once, as a success: long polls and streams must not hide
/// from the judge, nor be failed by a deploy that closes them.
pub const LONG_RESPONSE: Duration = Duration::from_secs(30);

/// Backends a request may pick before it is refused: each further pick means that the backend was
/// closed between the pick and the first byte.
pub const PICKS_MAX: u32 = 3;

/// How long a look at the past waits for the disk: whoever asks holds one of [`ADMIN_CONNECTIONS`], and those who
/// want to act need them.
pub const STORE_READ_TIME: Duration = Duration::from_secs(5);

/// How long a write waits for all workers to acknowledge a new snapshot.
pub const FENCE_TIME: Duration = Duration::from_secs(1);

/// How long the rest of a request that the admin API refuses is waited for.
pub const ADMIN_DISCARD_TIME: Duration = Duration::from_secs(1);

/// How long the admin API's last requests may take to be answered when a process ends: as long as a change
/// that everybody confirms in time.
pub const ADMIN_ANSWERS_TIME: Duration = Duration::from_secs(2);

/// How long a rollback's answer waits for the disk.
pub const DURABLE_TIME: Duration = Duration::from_millis(250);

/// Judge tick; JUDGE measured no gain below it except right after a failure.
pub const TICK: Duration = Duration::from_millis(50);

/// After a canary failure the judge looks at once, but not more often than this.
pub const TICK_MIN: Duration = Duration::from_millis(1);

/// Failures in a row, while connecting, that eject an endpoint.
pub const EJECT_FAILURES: u32 = 3;

/// First ejection; doubles up to [`EJECT_TIME_MAX`].
pub const EJECT_TIME: Duration = Duration::from_secs(5);

/// Longest ejection.
pub const EJECT_TIME_MAX: Duration = Duration::from_secs(60);

/// Upstream connections idle for longer are closed. Below the 60 s of common origins.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(55);

/// A kept-alive connection that was idle for at least this long and breaks without one byte of a
/// response says nothing about the version behind it: its origin had just closed it.
pub const STALE_AFTER: Duration = Duration::from_secs(1);

/// Retry and rescue budget: never below this many in the window.
pub const RETRY_MIN: u32 = 3;

/// Window of the retry and rescue budget.
pub const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// Commands waiting for the controller.
pub const COMMAND_QUEUE: usize = 256;

/// Events kept for clients that reconnect.
pub const EVENTS_KEPT: usize = 1_024;

/// Streams of events at a time: half of [`ADMIN_CONNECTIONS`], so that there is always room to act.
pub const EVENT_READERS: usize = 32;

/// How far back the recent past of backends is kept: ten minutes, what somebody on call looks at first.
pub const TREND_SECONDS: u32 = 600;

/// Backends whose recent past is kept: 1 000 services with four each. Each takes 12 kB if it serves
/// requests all the time, and nothing if it serves none.
pub const TREND_BACKENDS: usize = 4_000;

/// Seconds over which the pace of a service is taken: long enough to be calm, short enough to be of now.
pub const PACE_SECONDS: u32 = 10;

/// How soon a client of a broken stream of events comes back.
pub const EVENT_RETRY: Duration = Duration::from_secs(1);

/// Revisions kept in the history: months of changes by people, days of changes by machines.
pub const REVISIONS_KEPT: NonZeroU32 = NonZeroU32::new(500).expect("not 0");

/// Bounds of that number: enough to see what happened last, and a database that stays small.
pub const REVISIONS_BOUNDS: (u32, u32) = (10, 100_000);

/// Versions of a service whose revisions outlive [`REVISIONS_KEPT`]: what one may want to go back to.
pub const VERSIONS_KEPT: usize = 3;

/// Steps of a rollout; more are a ramp that nobody watches.
pub const ROLLOUT_STEPS_MAX: usize = 50;

/// Requests that a step may ask for.
pub const STEP_REQUESTS_MAX: u32 = 1_000_000_000;

/// A step is not left on silence: fewer answers than this say nothing about a version.
pub const STEP_REQUESTS_MIN: u32 = 20;

/// How often running rollouts are looked at.
pub const ROLLOUT_POLL: Duration = Duration::from_millis(100);

/// A rollout that nobody advances for a day was forgotten.
pub const ROLLOUT_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// After a rollback, errors must be back to usual within this time.
pub const VERIFY: Duration = Duration::from_secs(300);

/// Hooks of one service.
pub const HOOKS_MAX: usize = 32;

/// How long one attempt to reach a hook's URL may take.
pub const HOOK_HTTP_TIME: Duration = Duration::from_secs(5);

/// How long a hook's program may run.
pub const HOOK_RUN_TIME: Duration = Duration::from_secs(300);

/// Longest attempt of a hook; what takes longer should be started, not waited for.
pub const HOOK_TIME_MAX: Duration = Duration::from_secs(3600);

/// Attempts after the first to reach a hook's URL: with the waits between them, about a quarter of an
/// hour, which outlasts a restart of whoever listens.
pub const HOOK_RETRIES: u32 = 5;

/// Most attempts after the first.
pub const HOOK_RETRIES_MAX: u32 = 20;

/// Wait before the first repeated attempt; each further one is four times as long.
pub const HOOK_BACKOFF: Duration = Duration::from_secs(1);

/// Longest wait between two attempts.
pub const HOOK_BACKOFF_MAX: Duration = Duration::from_secs(900);

/// From one look at the condition of a `before_switch` hook to the next.
pub const UNTIL_EVERY: Duration = Duration::from_secs(2);

/// Shortest time between two looks.
pub const UNTIL_EVERY_MIN: Duration = Duration::from_millis(100);

/// How long such a condition is waited for.
pub const UNTIL_DEADLINE: Duration = Duration::from_secs(600);

/// Longest wait for such a condition.
pub const UNTIL_DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Words of a hook's command line, and variables of its environment.
pub const HOOK_WORDS_MAX: usize = 256;

/// Deliveries that wait for their hooks; beyond it the oldest become dead letters.
pub const OUTBOX_MAX: usize = 1_000;

/// Dead letters kept; beyond it the oldest are dropped.
pub const DEAD_LETTERS_MAX: usize = 1_000;

/// Finished deliveries kept for people to look at.
pub const DELIVERIES_KEPT: usize = 200;

/// What a hook answers or prints: the last bytes that are kept.
pub const HOOK_OUTPUT_BYTES: usize = 16 << 10;

/// Requests to hooks at a time.
pub const HOOK_REQUESTS_MAX: usize = 32;

/// Programs of hooks at a time.
pub const HOOK_PROGRAMS_MAX: usize = 8;

/// From asking a program to end to killing it.
pub const HOOK_KILL_TIME: Duration = Duration::from_secs(2);

/// Secrets that sign one request: the new one and the old one.
pub const HOOK_SECRETS_MAX: usize = 2;
/// Rollbacks whose evidence is kept: with some 100 KiB each, at most as large as what is worth keeping.
pub const ROLLBACKS_KEPT: u64 = 200;

/// Largest record of a rollback; a larger one is kept without the recordings of its judges.
pub const ROLLBACK_BYTES_MAX: usize = 1 << 20;

/// What is recorded before a rollback, second by second: long enough to see what was usual.
pub const EVIDENCE_BEFORE: Duration = Duration::from_secs(120);

/// What is recorded after it.
pub const EVIDENCE_AFTER: Duration = Duration::from_secs(60);

/// Access log buffers on their way to the disk; further lines are dropped and counted.
pub const ACCESS_LOG_QUEUE: usize = 64;

/// One access log buffer.
pub const ACCESS_LOG_BUFFER_BYTES: usize = 32 << 10;

/// Series of a version that is gone are dropped after this.
pub const SERIES_KEPT: Duration = Duration::from_secs(3600);

/// Admin request body: the largest legitimate one is a backend with 1 024 endpoints.
pub const ADMIN_BODY_BYTES: usize = 256 << 10;

/// Arrays and objects around each other in an admin request: none of the API's own has more than five.
pub const ADMIN_BODY_DEPTH: usize = 32;

/// Request head on the admin API: the same as on listeners.
pub const ADMIN_HEADER_BYTES: usize = 64 << 10;

/// One header field of an admin request: the same as on listeners.
pub const ADMIN_HEADER_LINE_BYTES: usize = 16 << 10;

/// Target of an admin request: the same as on listeners.
pub const ADMIN_URI_BYTES: usize = 8 << 10;

/// Header fields of an admin request: the same as on listeners.
pub const ADMIN_HEADERS: usize = 100;

/// Time for one admin request to arrive.
pub const ADMIN_REQUEST_TIME: Duration = Duration::from_secs(10);

/// An admin connection that takes no byte of its answer for so long is cut: its place is needed.
pub const ADMIN_WRITE_STALL: Duration = Duration::from_secs(30);

/// Longest reason given for a change: it is kept with the revision, the audit and the event.
pub const REASON_CHARS_MAX: usize = 1_000;

/// Admin connections at a time.
pub const ADMIN_CONNECTIONS: usize = 64;

/// A certificate that expires within this time is warned about every day: long enough to get a new one
/// even where people do it by hand.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// Failed admin logins of one address in a minute before it is told to wait.
pub const ADMIN_FAILURES_PER_MINUTE: u32 = 10;

/// Wait for editors and ConfigMap swaps to finish before a changed file is read.
pub const RELOAD_DEBOUNCE: Duration = Duration::from_millis(150);

/// How soon a file that could not be taken over just now is tried again: a hand-over takes a second, a full
/// disk longer.
pub const RELOAD_AGAIN: Duration = Duration::from_secs(1);

/// The file is looked at this often even if no event arrives (network file systems send none).
pub const RELOAD_POLL: Duration = Duration::from_secs(60);

/// Lowest time between two lookups of an endpoint's name.
pub const RESOLVE_MIN: Duration = Duration::from_secs(5);

/// Weight window after a switch or promote.
pub const WINDOW: Duration = Duration::from_secs(48 * 3600);

/// A canary without a healthy endpoint for so long is rolled back.
pub const UNHEALTHY_FOR: Duration = Duration::from_secs(10);

/// Times a canary may lose its last healthy endpoint within [`FLAP_WINDOW`].
pub const FLAPS_MAX: u32 = 3;

/// See [`FLAPS_MAX`].
pub const FLAP_WINDOW: Duration = Duration::from_secs(300);

/// `max_extra_errors`: what an operator would call "clearly worse".
pub const MAX_EXTRA_ERRORS: Percent = Percent::from_millionths(10_000);

/// `slow`: by the last of stable's requests that are ordinary, so that it fits any service.
pub const SLOW: Slow = Slow::Stable(990);

/// Requests of one worker and service that are watched for becoming slow while they have no answer.
/// Some hundred are in flight where things go well; a hundred times that is an outage, and of the
/// requests beyond it is noticed when they are answered that they were slow.
pub const SLOW_WATCHED_MAX: usize = 1 << 16;

/// Stable's usual times are those of so long a time, by half-life.
pub const SLOW_HALF_LIFE: Duration = Duration::from_secs(150);

/// Requests of stable that must have been answered before anything is slow, for `stable p90` to
/// `stable p99`: with fewer, less than two of them are slower than the limit. `p99.9` takes ten times
/// as many.
pub const SLOW_REQUESTS_MIN: u32 = 200;

/// `false_rollbacks`: rare enough to trust each one.
pub const FALSE_ROLLBACKS: Rate = Rate {
    count: 1,
    per: Period::Year,
};

/// `min_failures`: one or two failures are an anecdote.
pub const MIN_FAILURES: u32 = 3;

/// Plain rules of one service: each is looked at in every tick.
pub const RULES_MAX: usize = 32;

/// From one look at a signal to the next: metrics are rarely scraped more often.
pub const SIGNAL_EVERY: Duration = Duration::from_secs(10);

/// Shortest time between two looks; the judge's tick is not much shorter.
pub const SIGNAL_EVERY_MIN: Duration = Duration::from_millis(100);

/// How long one look may take.
pub const SIGNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A signal that has said nothing for so many times `every` has no data.
pub const SIGNAL_FRESH: u32 = 3;

/// Longest query or URL of a signal: it travels in a request's first line.
pub const SIGNAL_TEXT_BYTES_MAX: usize = 4 << 10;

/// Largest answer to a look that is read: some thousand series.
pub const SIGNAL_ANSWER_BYTES_MAX: usize = 512 << 10;

/// Looks under way at the same time, so that many services do not fall over one metrics store.
pub const SIGNALS_AT_ONCE: usize = 16;

/// Largest file of authorities for a signal; those of whole systems have some 200 KiB.
pub const SIGNAL_AUTHORITIES_BYTES_MAX: usize = 1 << 20;

/// Largest token file; bearer tokens travel in one header line.
pub const SIGNAL_TOKEN_BYTES_MAX: usize = 8 << 10;

/// The header by which testers choose a backend.
pub const PREVIEW_HEADER: &str = "x-switchback-backend";

/// From one health check to the next.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(2);

/// Shortest interval between health checks.
pub const HEALTH_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// How long one health check may take.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// Good checks in a row that make an endpoint healthy.
pub const HEALTH_RISE: NonZeroU32 = NonZeroU32::new(2).expect("not 0");

/// Bad checks in a row that make an endpoint unhealthy.
pub const HEALTH_FALL: NonZeroU32 = NonZeroU32::new(3).expect("not 0");

/// Largest request body that is kept for a rescue.
pub const RESCUE_BODY_MAX: u64 = 1 << 20;

/// Largest request body that is kept for a mirrored copy.
pub const MIRROR_BODY_MAX: u64 = 1 << 20;

/// Shortest and longest time a mirrored copy may take.
pub const MIRROR_TIME_BOUNDS: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(300));

/// Most mirrored copies of one worker at a time: with bodies of 1 MiB they hold 1 GiB.
pub const MIRROR_CONCURRENCY_MAX: u32 = 1_000;

/// A mirrored response is read up to here and then left, with its connection: what nobody wants
/// must not fill the line.
pub const MIRROR_RESPONSE_BYTES: u64 = 1 << 20;

const fn seconds(seconds: u64) -> Option<TimeSpan> {
    Some(TimeSpan(Duration::from_secs(seconds)))
}

const fn kibibytes(kibibytes: u64) -> Option<ByteSize> {
    Some(ByteSize(kibibytes << 10))
}

/// The default limits; the reasons stand beside the values.
#[must_use]
pub const fn limits() -> Limits {
    Limits {
        // A request's headers fit in one round trip; slower senders are slowloris.
        header_read_timeout: seconds(10),
        // Three round trips on a bad mobile link.
        tls_handshake_timeout: seconds(10),
        request_body_idle_timeout: seconds(30),
        write_stall_timeout: seconds(30),
        // Browsers reuse a connection within a minute.
        keep_alive_timeout: seconds(60),
        tunnel_idle_timeout: seconds(300),
        // Endpoints are near; a second retransmission already means trouble.
        upstream_connect_timeout: seconds(2),
        upstream_response_timeout: seconds(30),
        upstream_body_idle_timeout: seconds(60),
        // Kubernetes kills after 30 s by default.
        shutdown_timeout: seconds(30),
        request_header_bytes: kibibytes(64),
        request_header_line_bytes: kibibytes(16),
        request_header_count: NonZeroU32::new(100),
        uri_bytes: kibibytes(8),
        request_body_bytes: kibibytes(64 << 10),
        response_header_bytes: kibibytes(64),
        response_header_count: NonZeroU32::new(200),
        informational_responses: NonZeroU32::new(16),
        // Spreads clients over workers and restarts in the long run.
        requests_per_connection: NonZeroU32::new(10_000),
        connections: NonZeroU32::new(10_000),
        connections_per_client: NonZeroU32::new(1_000),
        upstream_connections: NonZeroU32::new(512),
        upstream_queue: NonZeroU32::new(1_024),
        upstream_queue_timeout: seconds(1),
        h2_streams: NonZeroU32::new(100),
        h2_streams_per_connection: NonZeroU32::new(100_000),
        // Browsers cancel what a page no longer needs, a few dozen at a time.
        h2_resets: NonZeroU32::new(100),
        // 64 KiB of headers fit in four frames.
        h2_continuations: NonZeroU32::new(16),
        h2_empty_data: NonZeroU32::new(100),
        h2_control_frames: NonZeroU32::new(100),
        h2_stream_window: kibibytes(64),
        h2_connection_window: kibibytes(1 << 10),
        h2_frame_bytes: kibibytes(16),
        h2_header_table_bytes: kibibytes(4),
    }
}

/// Rescue as it is when the file does not mention it.
#[must_use]
pub fn rescue() -> Rescue {
    Rescue {
        enabled: true,
        methods: ["GET", "HEAD", "OPTIONS"].map(String::from).to_vec(),
        max_body: ByteSize(64 << 10),
        budget: Percent::from_millionths(200_000),
        // Two versions may not share the store of idempotency keys.
        idempotency_key: false,
    }
}

/// A mirror of which the file says only where to.
#[must_use]
pub fn mirror(to: Name) -> Mirror {
    Mirror {
        to,
        share: Percent::from_millionths(Percent::WHOLE),
        // These change nothing (RFC 9110, 9.2.1), so executing them twice does no harm.
        methods: ["GET", "HEAD", "OPTIONS"].map(String::from).to_vec(),
        max_body: ByteSize(64 << 10),
        // Whoever is slower than that is broken; nobody waits for it.
        timeout: TimeSpan(Duration::from_secs(10)),
        // 1 000 copies a second of 100 ms, and less than a fifth of a backend's connections.
        concurrency: 100,
        judge: false,
    }
}

/// The judge as it is when the file does not mention it.
#[must_use]
pub fn rollback() -> Rollback {
    Rollback {
        max_extra_errors: MAX_EXTRA_ERRORS,
        max_extra_slow: None,
        slow: SLOW,
        false_rollbacks: FALSE_ROLLBACKS,
        compare_to: CompareTo::Stable,
        min_failures: MIN_FAILURES,
        min_requests: 0,
        errors: vec![
            ErrorClass::Class(5),
            ErrorClass::Connect,
            ErrorClass::Timeout,
            ErrorClass::Reset,
        ],
        rules: Vec::new(),
        on_failure: OnFailure::Rollback,
        window: TimeSpan(WINDOW),
        uncontrolled: uncontrolled(),
        unhealthy_for: TimeSpan(UNHEALTHY_FOR),
        verify: TimeSpan(VERIFY),
        // Paths may name people; an incident report is passed around.
        sample_paths: false,
    }
}

/// Rollouts as they are when the file does not mention them: a few users, then some, then half, then
/// all but a control group.
#[must_use]
pub fn rollout() -> Rollout {
    let step = |percent: u32, minutes: u64| Step {
        weight: Percent::from_millionths(percent * 10_000),
        span: Some(TimeSpan(Duration::from_secs(minutes * 60))),
        requests: None,
        approve: false,
    };
    Rollout {
        steps: vec![step(1, 5), step(10, 10), step(50, 10)],
        bake: Some(bake()),
        min_requests: STEP_REQUESTS_MIN,
        deadline: TimeSpan(ROLLOUT_DEADLINE),
    }
}

/// The last stretch, as it is when the file does not mention it.
#[must_use]
pub const fn bake() -> Bake {
    Bake {
        holdback: Percent::from_millionths(20_000),
        span: TimeSpan(Duration::from_secs(30 * 60)),
    }
}

/// Automatic rollback without a control group, as it is when the file does not mention it.
#[must_use]
pub const fn uncontrolled() -> Uncontrolled {
    Uncontrolled {
        span: TimeSpan(Duration::from_secs(1_800)),
        then: OnFailure::Notify,
    }
}

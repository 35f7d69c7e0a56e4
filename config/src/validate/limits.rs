//! Limits: where each may stand, and the bounds of the limits themselves.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::decode::{Context, OrOff, Spanned};
use crate::defaults;
use crate::diagnostic::Code;
use crate::model::{LimitOverrides, Limits};
use crate::raw;
use crate::units::{ByteSize, TimeSpan};

/// A place where limits are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// At the top of the file.
    Global,
    /// On a listener.
    Listener,
    /// On a route.
    Route,
    /// On a service.
    Service,
}

/// Where a limit works, apart from the top of the file.
#[derive(Clone, Copy)]
enum Scope {
    Process,
    Connection,
    Upstream,
    Request,
}

impl Scope {
    fn holds_on(self, level: Level) -> bool {
        match (self, level) {
            (_, Level::Global) | (Self::Request, _) => true,
            (Self::Connection, Level::Listener) | (Self::Upstream, Level::Service) => true,
            (Self::Process | Self::Connection | Self::Upstream, _) => false,
        }
    }

    const fn places(self) -> &'static str {
        match self {
            Self::Process => {
                "it holds for the whole process: move it to the limits at the top of the file"
            }
            Self::Connection => {
                "it holds before a route is known: move it to a listener or to the top of the file"
            }
            Self::Upstream => {
                "it holds for the connections to backends: move it to the service or to the top of the file"
            }
            Self::Request => "it may stand anywhere",
        }
    }
}

/// A limit's own bounds.
trait Bounded: Copy {
    fn check(self, at: &Spanned<OrOff<Self>>, cx: &Context<'_>);
}

/// Shortest timeout: below it, ordinary scheduling already counts as a fault.
const TIME_MIN: Duration = Duration::from_millis(10);

/// Smallest size: no head fits into less.
const BYTES_MIN: u64 = 256;

/// Most header fields that are ever kept.
const FIELDS_MAX: u32 = 512;

impl Bounded for TimeSpan {
    fn check(self, at: &Spanned<OrOff<Self>>, cx: &Context<'_>) {
        if self.0 < TIME_MIN {
            let reason = format!("{self} is too short for anything to finish");
            cx.error(Code::OutOfRange, at, reason, "use 10ms or more, or off");
        }
    }
}

impl Bounded for ByteSize {
    fn check(self, at: &Spanned<OrOff<Self>>, cx: &Context<'_>) {
        let (least, most, repair) = match at.path.rsplit('.').next().unwrap_or_default() {
            "request_body_bytes" => (0, u64::MAX >> 1, "use less, or off".into()),
            // RFC 9113, 6.5.2 and 6.9.2: smaller frames cannot be asked for, nor can a smaller window
            // of a connection.
            "h2_frame_bytes" => (16 << 10, 1 << 20, "use 16KiB to 1MiB".into()),
            "h2_connection_window" => (64 << 10, 64 << 20, "use 64KiB to 64MiB".into()),
            "h2_stream_window" => (1 << 10, 64 << 20, "use 1KiB to 64MiB".into()),
            _ => (BYTES_MIN, 1 << 20, format!("use {BYTES_MIN}B to 1MiB")),
        };
        if self.0 < least || self.0 > most {
            let reason = format!("{self} is outside what this limit can be");
            cx.error(Code::OutOfRange, at, reason, repair);
        }
    }
}

impl Bounded for NonZeroU32 {
    fn check(self, at: &Spanned<OrOff<Self>>, cx: &Context<'_>) {
        let counts_headers = at.path.ends_with("header_count");
        if counts_headers && self.get() > FIELDS_MAX {
            let reason = format!("more than {FIELDS_MAX} header lines are never kept");
            cx.error(
                Code::OutOfRange,
                at,
                reason,
                format!("use 1 to {FIELDS_MAX}"),
            );
        }
    }
}

/// Reads the limits of a place.
pub(super) fn overrides(
    written: Option<&Spanned<raw::Limits>>,
    level: Level,
    cx: &Context<'_>,
) -> LimitOverrides {
    let mut overrides = LimitOverrides::default();
    let Some(raw) = written.map(|written| &written.value) else {
        return overrides;
    };
    macro_rules! limits {
        ($($scope:ident: $($name:ident),+;)+) => {
            $($(overrides.$name = raw.$name.as_ref().and_then(|limit| read(limit, Scope::$scope, level, cx));)+)+
        };
    }
    limits! {
        Process: connections, shutdown_timeout;
        Connection: header_read_timeout, tls_handshake_timeout, keep_alive_timeout, request_header_bytes,
            request_header_line_bytes, request_header_count, uri_bytes, requests_per_connection,
            connections_per_client, h2_streams, h2_streams_per_connection, h2_resets, h2_continuations,
            h2_empty_data, h2_control_frames, h2_stream_window, h2_connection_window, h2_frame_bytes,
            h2_header_table_bytes;
        Upstream: upstream_connections, upstream_queue, upstream_queue_timeout, upstream_connect_timeout,
            response_header_bytes, response_header_count;
        Request: request_body_idle_timeout, write_stall_timeout, tunnel_idle_timeout,
            upstream_response_timeout, upstream_body_idle_timeout, request_body_bytes, informational_responses;
    }
    overrides
}

/// The limits at the top of the file.
pub(super) fn global(written: Option<&Spanned<raw::Limits>>, cx: &Context<'_>) -> Limits {
    defaults::limits().overridden_by(&overrides(written, Level::Global, cx))
}

fn read<T: Bounded>(
    limit: &Spanned<OrOff<T>>,
    scope: Scope,
    level: Level,
    cx: &Context<'_>,
) -> Option<Option<T>> {
    if !scope.holds_on(level) {
        cx.error(
            Code::MisplacedLimit,
            limit,
            "this limit has no effect here",
            scope.places(),
        );
        return None;
    }
    let OrOff(value) = limit.value;
    if let Some(value) = value {
        value.check(limit, cx);
    } else if limit.path.contains("header_bytes")
        || limit.path.contains("header_line_bytes")
        || limit.path.ends_with("uri_bytes")
        || limit.path.ends_with("header_count")
    {
        let reason = "heads are kept in memory and cannot be unlimited";
        cx.error(Code::OutOfRange, limit, reason, "use a number");
    } else if ["_window", "frame_bytes", "table_bytes"]
        .iter()
        .any(|end| limit.path.ends_with(end))
    {
        let reason = "HTTP/2 has no unlimited windows, frames and tables";
        cx.error(Code::OutOfRange, limit, reason, "use a number");
    }
    Some(value)
}

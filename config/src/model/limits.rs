//! Limits and timeouts: every one with its value, or only those that a place sets differently.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::units::{ByteSize, TimeSpan};

/// Declares [`Limits`] and [`LimitOverrides`] from one list, so that they cannot drift apart.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty,)+) => {
        /// Every limit and timeout with the value that holds. `None` means `off`: no limit.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        pub struct Limits {
            $($(#[doc = $doc])+ #[serde(serialize_with = "or_off")] pub $name: Option<$kind>,)+
        }

        /// The limits that one listener, route or service sets differently.
        /// The outer `None` means "not set here", the inner one `off`.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct LimitOverrides {
            $($(#[doc = $doc])+
              #[serde(skip_serializing_if = "Option::is_none", serialize_with = "or_off_if_set")]
              pub $name: Option<Option<$kind>>,)+
        }

        impl Limits {
            /// These limits, with those that `overrides` sets replaced.
            #[must_use]
            pub fn overridden_by(&self, overrides: &LimitOverrides) -> Self {
                Self { $($name: overrides.$name.unwrap_or(self.$name),)+ }
            }
        }

        impl LimitOverrides {
            /// Whether nothing is set.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                $(self.$name.is_none())&&+
            }
        }
    };
}

limits! {
    /// From the first byte of a request to the end of its headers.
    header_read_timeout: TimeSpan,
    /// From accept to the end of the TLS handshake.
    tls_handshake_timeout: TimeSpan,
    /// Between two pieces of a request body.
    request_body_idle_timeout: TimeSpan,
    /// How long a client may take no bytes of a response.
    write_stall_timeout: TimeSpan,
    /// How long a client connection may be idle between two requests.
    keep_alive_timeout: TimeSpan,
    /// How long both directions of a tunnel (WebSocket) may be silent.
    tunnel_idle_timeout: TimeSpan,
    /// TCP connect plus TLS handshake with an endpoint.
    upstream_connect_timeout: TimeSpan,
    /// From the end of the request to the response headers.
    upstream_response_timeout: TimeSpan,
    /// Between two pieces of a response body.
    upstream_body_idle_timeout: TimeSpan,
    /// How long a graceful stop waits for requests in flight.
    shutdown_timeout: TimeSpan,
    /// Request line and headers together.
    request_header_bytes: ByteSize,
    /// One header line.
    request_header_line_bytes: ByteSize,
    /// Number of header lines.
    request_header_count: NonZeroU32,
    /// The request target.
    uri_bytes: ByteSize,
    /// One request body.
    request_body_bytes: ByteSize,
    /// Status line and headers of a response.
    response_header_bytes: ByteSize,
    /// Number of header lines of a response.
    response_header_count: NonZeroU32,
    /// 1xx responses to one request.
    informational_responses: NonZeroU32,
    /// Requests on one client connection.
    requests_per_connection: NonZeroU32,
    /// Client connections of the whole process.
    connections: NonZeroU32,
    /// Client connections from one address.
    connections_per_client: NonZeroU32,
    /// Connections to one backend.
    upstream_connections: NonZeroU32,
    /// Requests waiting for a connection to one backend, on one worker.
    upstream_queue: NonZeroU32,
    /// How long a request waits for a connection.
    upstream_queue_timeout: TimeSpan,
    /// Concurrent streams of one HTTP/2 connection.
    h2_streams: NonZeroU32,
    /// Streams over the life of one HTTP/2 connection.
    h2_streams_per_connection: NonZeroU32,
    /// Streams that a client resets, or makes us reset, in 10 s.
    h2_resets: NonZeroU32,
    /// CONTINUATION frames of one header block.
    h2_continuations: NonZeroU32,
    /// DATA frames without content in 10 s.
    h2_empty_data: NonZeroU32,
    /// PING, SETTINGS and PRIORITY frames in 10 s.
    h2_control_frames: NonZeroU32,
    /// Request data that one stream may send ahead.
    h2_stream_window: ByteSize,
    /// Request data that all streams of a connection may send ahead.
    h2_connection_window: ByteSize,
    /// Largest frame a client may send.
    h2_frame_bytes: ByteSize,
    /// Table for the compression of request headers.
    h2_header_table_bytes: ByteSize,
}

pub(super) fn or_off<T: Serialize, S: serde::Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(limit) => limit.serialize(serializer),
        None => serializer.serialize_str("off"),
    }
}

fn or_off_if_set<T: Serialize, S: serde::Serializer>(
    value: &Option<Option<T>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(limit) => or_off(limit, serializer),
        None => serializer.serialize_none(),
    }
}

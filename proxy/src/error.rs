//! What can go wrong with a request, whose fault it is, and which status that becomes.
//!
//! This is the only file that chooses a status for a failure. Clients get the status, a stable code
//! and a request id; the log line with the same id has the cause. A judge is impossible without
//! the first distinction made here: a fault of the client or of the proxy never counts against a
//! backend.

use std::io;

use crate::limit::Limit;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client sent something wrong, too much, too slowly, or went away.
    Client,
    /// The backend did not answer, or not properly.
    Backend,
    /// The proxy has nowhere to send the request, or no room for it.
    Proxy,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    #[error("the HTTP version of the request is not supported")]
    VersionNotSupported,
    #[error("the request target is longer than uri_bytes")]
    UriTooLong,
    #[error("the request headers exceed {0}")]
    HeadersTooLarge(&'static str),
    #[error("the request body exceeds request_body_bytes")]
    BodyTooLarge,
    #[error("the request headers took longer than header_read_timeout")]
    HeaderTimeout,
    #[error("no byte of the request body within request_body_idle_timeout")]
    BodyTimeout,
    #[error("the transfer coding of the request is not known")]
    UnknownCoding,
    #[error("method CONNECT is not supported")]
    ConnectMethod,
    #[error("no route matches")]
    NoRoute,
    /// One version does not have it, and the other one could not be asked.
    #[error("no version has this file")]
    NoFile,
    #[error("the TLS connection is for another host than the request")]
    Misdirected,
    #[error("the caller's deadline has passed")]
    CallerDeadline,
    #[error("the client went away")]
    ClientGone(#[source] Option<io::Error>),

    #[error("connect to {address}")]
    Connect {
        address: std::net::SocketAddr,
        #[source]
        cause: io::Error,
    },
    #[error("connect to {0}: timed out after upstream_connect_timeout")]
    ConnectTimeout(std::net::SocketAddr),
    #[error("no response within upstream_response_timeout")]
    ResponseTimeout,
    #[error("no byte of the response body within upstream_body_idle_timeout")]
    ResponseBodyTimeout,
    #[error("the connection broke before the response was complete")]
    Reset(#[source] Option<io::Error>),
    #[error("the stream was reset before the response was complete")]
    StreamReset(#[source] hyper::Error),
    #[error("invalid response: {0}")]
    BadResponse(&'static str),
    #[error("the response exceeds {0}")]
    ResponseTooLarge(&'static str),

    #[error("no endpoint of backend {0} is healthy")]
    NoHealthyEndpoint(String),
    #[error("too many requests wait for a connection to the backend")]
    QueueFull,
    #[error("no connection to the backend became free within upstream_queue_timeout")]
    QueueTimeout,
    #[error("connect to the backend: this machine has run out of something")]
    OutOfSockets(#[source] io::Error),
    #[error("every backend picked was closed before the request could begin")]
    Closed,
    #[error("the backend lost its weight and its streams were cut")]
    Cut,
}

impl RequestError {
    /// Whose fault this is.
    pub(crate) const fn fault(&self) -> Fault {
        match self {
            Self::Malformed(_)
            | Self::VersionNotSupported
            | Self::UriTooLong
            | Self::HeadersTooLarge(_)
            | Self::BodyTooLarge
            | Self::HeaderTimeout
            | Self::BodyTimeout
            | Self::UnknownCoding
            | Self::ConnectMethod
            | Self::NoRoute
            | Self::NoFile
            | Self::Misdirected
            | Self::CallerDeadline
            | Self::ClientGone(_) => Fault::Client,
            Self::Connect { .. }
            | Self::ConnectTimeout(_)
            | Self::ResponseTimeout
            | Self::ResponseBodyTimeout
            | Self::Reset(_)
            | Self::StreamReset(_)
            | Self::BadResponse(_)
            | Self::ResponseTooLarge(_) => Fault::Backend,
            Self::NoHealthyEndpoint(_)
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::OutOfSockets(_)
            | Self::Closed
            | Self::Cut => Fault::Proxy,
        }
    }

    /// The status the client gets; 499 is only for the log, since nobody is left to read it.
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NoRoute | Self::NoFile => 404,
            Self::ConnectMethod => 405,
            Self::HeaderTimeout | Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::Misdirected => 421,
            Self::HeadersTooLarge(_) => 431,
            Self::ClientGone(_) => 499,
            Self::UnknownCoding => 501,
            Self::Connect { .. }
            | Self::Reset(_)
            | Self::StreamReset(_)
            | Self::BadResponse(_)
            | Self::ResponseTooLarge(_) => 502,
            Self::NoHealthyEndpoint(_)
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::OutOfSockets(_)
            | Self::Closed
            | Self::Cut => 503,
            Self::ConnectTimeout(_)
            | Self::ResponseTimeout
            | Self::ResponseBodyTimeout
            | Self::CallerDeadline => 504,
            Self::VersionNotSupported => 505,
        }
    }

    /// The stable code clients and logs see.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::VersionNotSupported => "version_not_supported",
            Self::UriTooLong => "uri_too_long",
            Self::HeadersTooLarge(_) => "headers_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::HeaderTimeout => "header_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::UnknownCoding => "unknown_transfer_coding",
            Self::ConnectMethod => "method_not_allowed",
            Self::NoRoute => "no_route",
            Self::NoFile => "no_file",
            Self::Misdirected => "misdirected_request",
            Self::CallerDeadline => "caller_deadline",
            Self::ClientGone(_) => "client_gone",
            Self::Connect { .. } => "connect_failed",
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::ResponseBodyTimeout => "response_body_timeout",
            Self::Reset(_) | Self::StreamReset(_) => "connection_reset",
            Self::BadResponse(_) | Self::ResponseTooLarge(_) => "bad_response",
            Self::NoHealthyEndpoint(_) => "no_healthy_endpoint",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::OutOfSockets(_) => "out_of_sockets",
            Self::Closed => "backend_closed",
            Self::Cut => "stream_cut",
        }
    }

    /// The `error` token of `Proxy-Status` (RFC 9209, section 2.3).
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connection_refused",
            Self::ConnectTimeout(_) => "connection_timeout",
            Self::ResponseTimeout | Self::CallerDeadline => "http_response_timeout",
            Self::ResponseBodyTimeout => "connection_read_timeout",
            Self::Reset(_) | Self::StreamReset(_) => "connection_terminated",
            Self::BadResponse(_) => "http_protocol_error",
            Self::ResponseTooLarge("informational_responses") => "http_protocol_error",
            Self::ResponseTooLarge(_) => "http_response_header_section_size",
            Self::NoHealthyEndpoint(_) | Self::Closed => "destination_unavailable",
            Self::QueueFull | Self::QueueTimeout | Self::OutOfSockets(_) => {
                "connection_limit_reached"
            }
            Self::Cut => "proxy_internal_response",
            Self::NoRoute | Self::NoFile => "destination_not_found",
            _ => "http_request_error",
        }
    }

    /// The limit that was hit, if it was one.
    pub(crate) fn limit(&self) -> Option<Limit> {
        Some(match self {
            Self::UriTooLong => Limit::UriBytes,
            Self::HeadersTooLarge(name) | Self::ResponseTooLarge(name) => {
                return Limit::named(name);
            }
            Self::BodyTooLarge => Limit::RequestBodyBytes,
            Self::HeaderTimeout => Limit::HeaderReadTimeout,
            Self::BodyTimeout => Limit::RequestBodyIdleTimeout,
            Self::ConnectTimeout(_) => Limit::UpstreamConnectTimeout,
            Self::ResponseTimeout => Limit::UpstreamResponseTimeout,
            Self::ResponseBodyTimeout => Limit::UpstreamBodyIdleTimeout,
            Self::QueueFull => Limit::UpstreamQueue,
            Self::QueueTimeout => Limit::UpstreamQueueTimeout,
            _ => return None,
        })
    }

    /// Whether the endpoint was not there at all, as this machine or the other one said at once: refused, or no
    /// way to it.
    pub(crate) fn is_unreached(&self) -> bool {
        use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable};
        let Self::Connect { cause, .. } = self else {
            return false;
        };
        let kinds = [ConnectionRefused, NetworkUnreachable, AddrNotAvailable];
        kinds.contains(&cause.kind())
    }

    /// Seconds after which a client may try again, where that is useful.
    pub(crate) const fn retry_after(&self) -> Option<&'static str> {
        match self.status() {
            503 => Some("1"),
            _ => None,
        }
    }

    /// The gRPC status code of this failure (by gRPC's HTTP mapping).
    pub(crate) const fn grpc_status(&self) -> &'static str {
        match self.status() {
            400 => "3",
            413 | 414 | 431 => "8",
            404 | 405 | 421 | 501 | 505 => "12",
            408 | 504 => "4",
            _ => "14",
        }
    }

    /// Whether nothing sensible can be read from the client's connection any more.
    pub(crate) const fn breaks_framing(&self) -> bool {
        matches!(self.fault(), Fault::Client)
            && !matches!(
                self,
                Self::NoRoute
                    | Self::NoFile
                    | Self::ConnectMethod
                    | Self::Misdirected
                    | Self::CallerDeadline
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_faults_are_gateway_statuses() {
        let backend = [
            RequestError::ResponseTimeout,
            RequestError::ResponseBodyTimeout,
            RequestError::Reset(None),
            RequestError::BadResponse("x"),
            RequestError::ResponseTooLarge("response_header_bytes"),
            RequestError::ConnectTimeout(([127, 0, 0, 1], 1).into()),
        ];
        for error in backend {
            assert_eq!(error.fault(), Fault::Backend);
            assert!(matches!(error.status(), 502 | 504), "{error}");
            assert_ne!(error.proxy_status(), "http_request_error");
        }
    }

    #[test]
    fn every_limit_that_is_named_in_an_error_is_counted() {
        for name in [
            "request_header_bytes",
            "request_header_line_bytes",
            "request_header_count",
        ] {
            let limit = RequestError::HeadersTooLarge(name).limit();
            assert_eq!(limit.map(Limit::name), Some(name));
        }
        for name in [
            "response_header_bytes",
            "response_header_count",
            "informational_responses",
        ] {
            let limit = RequestError::ResponseTooLarge(name).limit();
            assert_eq!(limit.map(Limit::name), Some(name));
        }
        assert_eq!(RequestError::NoRoute.limit(), None);
    }

    #[test]
    fn only_refusals_that_come_at_once_leave_an_endpoint_unreached() {
        let address = ([127, 0, 0, 1], 1).into();
        let connect = |cause: io::ErrorKind| RequestError::Connect {
            address,
            cause: cause.into(),
        };
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::AddrNotAvailable,
        ] {
            assert!(connect(kind).is_unreached(), "{kind}");
        }
        assert!(!connect(io::ErrorKind::HostUnreachable).is_unreached());
        assert!(!RequestError::ConnectTimeout(address).is_unreached());
        assert!(!RequestError::Reset(None).is_unreached());
    }

    #[test]
    fn refusals_for_want_of_room_say_when_to_come_back() {
        for error in [
            RequestError::QueueFull,
            RequestError::QueueTimeout,
            RequestError::OutOfSockets(io::Error::from_raw_os_error(24)),
            RequestError::Closed,
        ] {
            assert_eq!(
                (error.fault(), error.status(), error.retry_after()),
                (Fault::Proxy, 503, Some("1"))
            );
        }
        assert_eq!(RequestError::NoRoute.retry_after(), None);
    }
}

//! What a client gets: an endpoint's response, or one the proxy makes itself.
//!
//! Both have the same shape, so each protocol's writer knows one. Replies the proxy makes say what
//! happened in a stable code and the request id, never why in detail: that is in the log, under the
//! same id. gRPC clients get their error where they look for it, in a trailers-only response.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use switchback_config::model::Redirect;

use crate::body::Body;
use crate::choice::{Choice, is_tester};
use crate::error::RequestError;
use crate::head::{FieldSink, Framing, RequestHead, ResponseHead};
use crate::headers::{self, ResponsePolicy};
use crate::pin;
use crate::report::Report;
use crate::request::Request;
use crate::tunnel::Tunnel;
use crate::view::{ServiceView, View};
use crate::worker::Worker;

/// What a request leads to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every reply is a response; a box would cost each of them an allocation"
)]
pub(crate) enum Reply {
    Response(Response),
    /// The connection becomes a tunnel.
    Tunnel(Box<Tunnel>),
}

/// A response for the client.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: ResponseHead,
    pub(crate) notes: ResponseNotes,
    pub(crate) body: Body,
    /// How long the client may take no byte of it.
    pub(crate) write_stall: Option<Duration>,
}

/// What the proxy adds to an endpoint's response.
#[derive(Debug, Default)]
pub(crate) struct ResponseNotes {
    /// Holds the route's changes.
    route: Option<(Rc<View>, usize)>,
    exposes: bool,
    backend: Option<(Arc<str>, Arc<str>)>,
    pub(crate) rescued: bool,
    no_store: bool,
    set_cookie: Option<String>,
    set_pin: Option<String>,
    /// The client's connection cannot be used again.
    pub(crate) close: bool,
}

impl ResponseNotes {
    pub(crate) fn new(request: &Request<'_>, service: &ServiceView, choice: &mut Choice) -> Self {
        let shows_testers = || {
            service
                .service
                .preview
                .as_ref()
                .is_some_and(|preview| is_tester(request, &preview.from))
        };
        let mut notes = Self {
            route: (!request.route.response_headers.is_empty())
                .then(|| (request.view.clone(), request.route_index)),
            exposes: service.service.expose || shows_testers(),
            set_cookie: choice.set_cookie.take(),
            ..Self::default()
        };
        notes.show_backend(request, service, choice);
        notes
    }

    /// The same for the header policy.
    pub(crate) fn policy(&self) -> ResponsePolicy<'_> {
        ResponsePolicy {
            expose: self
                .backend
                .as_ref()
                .map(|(backend, version)| (&**backend, &**version)),
            rescued: self.rescued,
            no_store: self.no_store,
            set_cookie: self.set_cookie.as_deref(),
            set_pin: self.set_pin.as_deref(),
            changes: self
                .route
                .as_ref()
                .map(|(view, route)| &view.snapshot.routes[*route].response_headers),
        }
    }

    /// Notes who answers now.
    pub(crate) fn show_backend(
        &mut self,
        request: &Request<'_>,
        service: &ServiceView,
        choice: &Choice,
    ) {
        let backend = choice.backend;
        let no_store = service.service.no_store.get(backend);
        self.no_store = no_store.copied().unwrap_or_default();
        self.set_pin = pin::cookie(request, service, choice);
        if self.exposes {
            let backend = &service.backends[choice.backend].backend;
            self.backend = Some((backend.name.clone(), backend.version.clone()));
        }
    }
}

impl Response {
    /// Writes the header fields for the client, apart from the framing.
    pub(crate) fn write_headers<S: FieldSink>(&self, sink: &mut S) {
        headers::write_response(sink, &self.head, &self.notes.policy());
    }

    /// An answer about a request that failed.
    pub(crate) fn refusal(
        worker: &Rc<Worker>,
        head: &RequestHead,
        request_id: Option<&str>,
        report: Option<Report>,
        error: &RequestError,
    ) -> Self {
        let status = error.status();
        log_refusal(error, request_id);
        worker.stats().count_refusal(status);
        let mut response = if head.is_grpc() {
            Self::grpc_refusal(worker, error)
        } else {
            Self::plain_refusal(worker, head, error, request_id.unwrap_or("-"))
        };
        let fields = &mut response.head.fields;
        fields.push(
            b"proxy-status",
            format!("switchback; error={}", error.proxy_status()).as_bytes(),
        );
        if let Some(seconds) = error.retry_after() {
            fields.push(b"retry-after", seconds.as_bytes());
        }
        if status == 405 {
            fields.push(b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        }
        if let Some(id) = request_id {
            fields.push(b"x-request-id", id.as_bytes());
        }
        response.notes.close = error.breaks_framing();
        if let Some(mut report) = report {
            report.note_error(error);
            report.note(|record| {
                record.status = status;
                record.bytes = match response.head.framing {
                    Framing::Length(bytes) => bytes,
                    _ => 0,
                };
            });
        }
        response
    }

    fn plain_refusal(
        worker: &Rc<Worker>,
        head: &RequestHead,
        error: &RequestError,
        request_id: &str,
    ) -> Self {
        let status = error.status();
        let title = title(status);
        let code = error.code();
        let wants_json = head
            .fields
            .values(b"accept")
            .any(|accept| memchr::memmem::find(accept, b"json").is_some());
        let (kind, body) = if wants_json {
            let body = format!(
                "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"code\":\"{code}\",\"request_id\":\"{request_id}\"}}\n"
            );
            (&b"application/problem+json"[..], body)
        } else {
            (
                &b"text/plain; charset=utf-8"[..],
                format!("{status} {title}\ncode: {code}\nrequest id: {request_id}\n"),
            )
        };
        Self::made(worker, status, kind, body.into())
    }

    fn grpc_refusal(worker: &Rc<Worker>, error: &RequestError) -> Self {
        let mut response = Self::made(worker, 200, b"application/grpc", Bytes::new());
        response
            .head
            .fields
            .push(b"grpc-status", error.grpc_status().as_bytes());
        response
            .head
            .fields
            .push(b"grpc-message", error.code().as_bytes());
        response
    }

    /// The same URL on another scheme.
    pub(crate) fn redirect(request: &Request<'_>, redirect: &Redirect, mut report: Report) -> Self {
        debug_assert!(redirect.https, "the only redirect there is");
        let authority = String::from_utf8_lossy(request.head.authority().unwrap_or_default());
        let host = match authority.rfind(':') {
            Some(colon) if !authority.ends_with(']') => &authority[..colon],
            _ => &authority,
        };
        let location = format!(
            "https://{host}{}",
            String::from_utf8_lossy(request.head.target())
        );
        let mut response = Self::made(
            request.worker,
            308,
            b"text/plain; charset=utf-8",
            Bytes::new(),
        );
        response.head.fields.push(b"location", location.as_bytes());
        report.note(|record| record.status = 308);
        response
    }

    fn made(worker: &Rc<Worker>, status: u16, content_type: &[u8], body: Bytes) -> Self {
        let mut head = worker.spare_response_head();
        head.clear();
        head.status = status;
        head.framing = Framing::Length(body.len() as u64);
        head.fields.push(b"content-type", content_type);
        head.fields.push(
            b"date",
            httpdate::fmt_http_date(std::time::UNIX_EPOCH + worker.unix_time(worker.now()))
                .as_bytes(),
        );
        Self {
            head,
            notes: ResponseNotes::default(),
            body: Body::made(body),
            write_stall: None,
        }
    }
}

fn title(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}

fn log_refusal(error: &RequestError, request_id: Option<&str>) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::debug!(request_id, code = error.code(), cause, "{error}");
}

/// How the body of a response is framed for an HTTP/1 client.
pub(crate) fn client_framing(request: &RequestHead, response: &ResponseHead) -> Framing {
    let bodiless =
        request.is_head() || response.status < 200 || matches!(response.status, 204 | 304);
    match response.framing {
        _ if bodiless => Framing::Empty,
        Framing::Empty => Framing::Length(0),
        Framing::UntilClose => Framing::Streamed,
        framing => framing,
    }
}

/// The `Content-Length` to announce although no body follows (HEAD, 304).
pub(crate) fn announced_bytes(request: &RequestHead, response: &ResponseHead) -> Option<u64> {
    let speaks_of_a_body = request.is_head() || response.status == 304;
    speaks_of_a_body
        .then_some(response.announced_bytes)
        .flatten()
}

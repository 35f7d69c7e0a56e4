//! Requests and events as spans, with the attribute names of the semantic conventions for HTTP
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), and `switchback.*` for what only switchback has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use switchback_proxy::access_log::Record;
use switchback_proxy::trace::Span;

use crate::events::Event;

/// The span of a request: a server's span, the parent of what the backend does.
pub(super) fn of_request(span: Span) -> SpanData {
    let record = *span.record;
    let begun = UNIX_EPOCH + span.begun;
    let parent = span.context.parent;
    // Whoever asks must not choose how many names there are.
    let method = known(&record.method).unwrap_or("HTTP");
    let name = match &record.service {
        Some(service) => format!("{method} {service}"),
        None => method.to_owned(),
    };
    SpanData {
        span_context: context(span.context.trace, span.context.span),
        parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Server,
        name: name.into(),
        start_time: begun,
        end_time: begun + span.took,
        status: match (record.status, record.error) {
            (500.., error) => Status::error(error.unwrap_or_default()),
            _ => Status::Unset,
        },
        attributes: attributes(record),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        instrumentation_scope: scope(),
    }
}

/// The span of an event: a moment, in a trace of its own.
pub(super) fn of_event(event: &Event) -> SpanData {
    let millis = u64::try_from(event.at.as_millisecond()).unwrap_or(0);
    let at: SystemTime = UNIX_EPOCH + Duration::from_millis(millis);
    let mut attributes = vec![
        KeyValue::new("switchback.event", event.kind),
        KeyValue::new("switchback.by", event.by.clone()),
        KeyValue::new("switchback.message", event.message.clone()),
    ];
    let service = event.service.clone();
    attributes.extend(service.map(|name| KeyValue::new("switchback.service", name)));
    let revision = event.revision.and_then(|number| i64::try_from(number).ok());
    attributes.extend(revision.map(|number| KeyValue::new("switchback.revision", number)));
    let (trace, span) = (uuid::Uuid::new_v4(), event.id.to_be_bytes());
    SpanData {
        span_context: context(trace.into_bytes(), span),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: event.kind.into(),
        start_time: at,
        end_time: at,
        status: Status::Unset,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        instrumentation_scope: scope(),
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("switchback")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

fn context(trace: [u8; 16], span: [u8; 8]) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace),
        SpanId::from_bytes(span),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    )
}

fn attributes(record: Record) -> Vec<KeyValue> {
    let mut list = vec![
        KeyValue::new(
            "http.request.method",
            known(&record.method).unwrap_or("_OTHER"),
        ),
        KeyValue::new("url.path", record.path),
        KeyValue::new("url.scheme", if record.secure { "https" } else { "http" }),
        KeyValue::new("client.address", record.client.to_string()),
        KeyValue::new("network.protocol.version", version(record.protocol)),
        KeyValue::new(
            "http.response.body.size",
            i64::try_from(record.bytes).unwrap_or(i64::MAX),
        ),
        KeyValue::new("switchback.listener", record.listener),
        KeyValue::new("switchback.request_id", record.request_id),
    ];
    let mut add = |name: &'static str, value: Option<Value>| {
        list.extend(value.map(|value| KeyValue::new(name, value)));
    };
    let original = Some(record.method).filter(|method| known(method).is_none());
    add("http.request.method_original", original.map(Value::from));
    let (host, port) = host_and_port(record.host);
    add(
        "server.address",
        Some(host).filter(|host| !host.is_empty()).map(Value::from),
    );
    add("server.port", port.map(|port| i64::from(port).into()));
    let query = Some(record.query).filter(|query| !query.is_empty());
    add("url.query", query.map(Value::from));
    let status = Some(record.status).filter(|status| *status != 0);
    add(
        "http.response.status_code",
        status.map(|status| i64::from(status).into()),
    );
    add("error.type", record.error.map(Value::from));
    add("user_agent.original", record.user_agent.map(Value::from));
    add("switchback.service", record.service.map(Value::from));
    add("switchback.backend", record.backend.map(Value::from));
    add("switchback.version", record.version.map(Value::from));
    add("switchback.pick", record.pick.map(Value::from));
    add(
        "switchback.rescued_from",
        record.rescued_from.map(Value::from),
    );
    add(
        "switchback.rescued_outcome",
        record.rescued_outcome.map(Value::from),
    );
    list
}

/// A method that everybody knows (RFC 9110, RFC 5789).
fn known(method: &str) -> Option<&'static str> {
    const METHODS: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    METHODS.into_iter().find(|known| *known == method)
}

/// `shop.example:8080` is two things.
fn host_and_port(mut host: String) -> (String, Option<u16>) {
    let port = host.rsplit_once(':').and_then(|(before, port)| {
        let is_whole = !before.contains(':') || before.ends_with(']');
        Some((before.len(), port.parse().ok()?)).filter(|_| is_whole)
    });
    let Some((length, port)) = port else {
        return (host, None);
    };
    host.truncate(length);
    (host, Some(port))
}

/// `HTTP/1.1` is 1.1, and `HTTP/2.0` is 2.
fn version(protocol: &'static str) -> &'static str {
    let version = protocol.trim_start_matches("HTTP/");
    version
        .strip_suffix(".0")
        .filter(|major| *major != "1")
        .unwrap_or(version)
}

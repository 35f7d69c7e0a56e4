//! The stream of events.
//!
//! Server-sent events, so that any HTTP client can follow them and resume: each message has an id, and
//! whoever comes back with the last one in `Last-Event-ID` goes on where they were. If that cannot be,
//! because too much has happened or the process is another one, the first message is a `gap`. A reader
//! that does not keep up is cut off and may come back; nobody waits for readers.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use switchback_config::defaults::EVENT_RETRY;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use utoipa::IntoParams;

use super::Api;
use super::extract::Query;
use super::problem::Problem;
use super::views::list::Message;
use crate::events::{Event, Reading};

/// How often an idle stream shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Follow {
    /// `false`: only what is kept, then the end.
    follow: Option<bool>,
}

/// Where to go on.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "described here, read by `last_id`")]
pub(super) struct LastEventId {
    /// Only what came after this event.
    #[param(rename = "Last-Event-ID")]
    last_event_id: Option<u64>,
}

/// What happens, as server-sent events: first what is kept, then what comes.
///
/// Comments keep an idle stream alive. With `Last-Event-ID` the stream goes on after that event; if it
/// cannot, its first message is a `gap`.
#[utoipa::path(get, path = "/v1/events", operation_id = "events", tag = "record",
    params(Follow, LastEventId),
    responses(
        (status = 200, body = Message, content_type = "text/event-stream", description = "Messages whose `data` is an `Event`"),
        (status = 503, body = super::problem::ProblemBody, content_type = "application/problem+json", description = "Too many streams are open"),
    ))]
pub(super) async fn events(
    State(api): State<Api>,
    Query(Follow { follow }): Query<Follow>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = last_id(&headers)?;
    let place = match follow {
        Some(false) => None,
        _ => Some(api.events.reader().ok_or_else(|| {
            let detail = "too many streams of events are open; close one, or read without follow";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail)
        })?),
    };
    let Reading { kept, coming } = api.events.follow(last);
    let coming = live(coming).take(if place.is_some() { usize::MAX } else { 0 });
    let retry = sse::Event::default().retry(EVENT_RETRY);
    let messages = stream::iter(kept).chain(coming).map(move |event| {
        // Held until the stream is dropped.
        let _place = &place;
        let message = sse::Event::default()
            .id(event.id.to_string())
            .event(event.kind);
        message.json_data(&event).unwrap_or_default()
    });
    // Whoever follows comes back, to the process that serves then.
    let ends = async move { api.life.is_retired().await };
    let stream = stream::iter([retry])
        .chain(messages)
        .take_until(Box::pin(ends));
    Ok(Sse::new(stream.map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response())
}

fn last_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut lines = headers.get_all("last-event-id").iter();
    let (first, second) = (lines.next(), lines.next());
    let Some(text) = first.map(|line| line.to_str().unwrap_or("?")) else {
        return Ok(None);
    };
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| plain && second.is_none());
    id.map(Some).ok_or_else(|| {
        let detail = "Last-Event-ID holds the id of an event, a whole number";
        Problem::bad_request("invalid_last_event_id", detail)
    })
}

/// Events as they come. A reader that falls behind is cut off.
fn live(coming: Receiver<Event>) -> impl Stream<Item = Event> {
    stream::unfold(coming, |mut coming| async move {
        match coming.recv().await {
            Ok(event) => Some((event, coming)),
            Err(RecvError::Lagged(_) | RecvError::Closed) => None,
        }
    })
}

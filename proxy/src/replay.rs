//! Recorded requests, counted as the worker that served them would have counted them.
//!
//! Whoever replays an access log comes in here, so that which outcome is a failure, from when on a
//! request is slow and whom stable takes over from the canary are decided by the code that decides it
//! live. There is one worker, and the time is whatever the record says.
//!
//! What a log does not tell is not made up: gRPC status codes are not in it, and the time of a request
//! is that of the whole response.

use std::time::{Duration, Instant};

use switchback_config::model::Rescue;

use crate::outcome::{CLASSES, Finding, Outcome};
use crate::rescue::{Budget, rescues_method};
use crate::snapshot::Service;

/// The only worker.
const WORKER: usize = 0;

/// How a recorded request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What the backend made of it.
    pub outcome: Outcome,
    /// How long it took, if that is known.
    pub took: Option<Duration>,
    /// The hash of its affinity key, where clients stay on one backend.
    pub key: Option<u64>,
}

/// Counts a request of a backend for its judges; says what it was counted as.
pub fn count(service: &Service, backend: usize, ended: &Ended, now: Duration) -> Finding {
    let finding = service.errors.find(ended.outcome);
    let Some(cells) = service.judged.get(backend) else {
        return finding;
    };
    if finding == Finding::NotCounted {
        return finding;
    }
    let slow = count_time(service, backend, ended, now);
    let finding = match slow && service.errors.slow_fails() {
        true => Finding::Failure,
        false => finding,
    };
    cells.record(WORKER, finding, ended.key, now);
    finding
}

/// Counts how long it took, where that matters; tells whether it was slow.
fn count_time(service: &Service, backend: usize, ended: &Ended, now: Duration) -> bool {
    let (Some(slowness), Some(took)) = (&service.slow, ended.took) else {
        return false;
    };
    let slow = slowness.limit.get().map(|limit| took > limit);
    if let (Some(slow), Some(cells)) = (slow, service.judged.get(backend)) {
        cells.record_time(WORKER, slow, ended.key, now);
    }
    if let Some(times) = slowness.limit.times()
        && slowness.usual == backend
    {
        times.record(WORKER, took);
    }
    slow.unwrap_or(false)
}

/// Which failed requests of a service stable would have repeated.
#[derive(Debug)]
pub struct Repeats {
    start: Instant,
    budget: Budget,
}

impl Repeats {
    /// With a budget that begins now; `start` is only what times are added to.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            budget: Budget::new(start),
        }
    }

    /// Counts a request, of any backend.
    pub fn note_request(&self, now: Duration) {
        self.budget.note_request(self.start + now);
    }

    /// Whether stable would have answered in the place of a canary that failed.
    #[must_use]
    pub fn take(&self, rescue: &Rescue, now: Duration) -> bool {
        self.budget.take(self.start + now, rescue.budget)
    }
}

/// Whether a service rescues requests with this method.
#[must_use]
pub fn is_rescuable(rescue: &Rescue, method: &[u8]) -> bool {
    rescues_method(rescue, method)
}

/// The outcome behind the `error` of a line in the access log; none for words that are not known.
#[must_use]
pub fn outcome_of_error(code: &[u8]) -> Option<Outcome> {
    Some(match code {
        b"connect_failed" | b"connect_timeout" => Outcome::Connect,
        b"response_timeout" | b"response_body_timeout" => Outcome::Timeout,
        b"connection_reset" | b"bad_response" => Outcome::Reset,
        b"no_healthy_endpoint"
        | b"queue_full"
        | b"queue_timeout"
        | b"out_of_sockets"
        | b"backend_closed"
        | b"stream_cut" => Outcome::NotSent,
        b"malformed_request"
        | b"version_not_supported"
        | b"uri_too_long"
        | b"headers_too_large"
        | b"body_too_large"
        | b"header_timeout"
        | b"body_timeout"
        | b"unknown_transfer_coding"
        | b"method_not_allowed"
        | b"no_route"
        | b"no_file"
        | b"misdirected_request"
        | b"caller_deadline"
        | b"client_gone" => Outcome::ClientGone,
        _ => return None,
    })
}

/// The outcome behind the `rescued_outcome` of a line; a class of statuses is told by its first one.
#[must_use]
pub fn outcome_of_class(class: &[u8]) -> Option<Outcome> {
    let class = CLASSES.iter().position(|name| name.as_bytes() == class)?;
    Some(match class {
        5 => Outcome::Connect,
        6 => Outcome::Timeout,
        7 => Outcome::Reset,
        8 => Outcome::ClientGone,
        digit => Outcome::Status(u16::try_from(digit + 1).unwrap_or(0) * 100),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RequestError;
    use crate::report::outcome_of;

    #[test]
    fn errors_in_the_log_mean_what_they_meant_when_they_were_counted() {
        let address = ([127, 0, 0, 1], 1).into();
        let error = || std::io::Error::other("broken");
        for error in [
            RequestError::Malformed("x"),
            RequestError::VersionNotSupported,
            RequestError::UriTooLong,
            RequestError::HeadersTooLarge("x"),
            RequestError::BodyTooLarge,
            RequestError::HeaderTimeout,
            RequestError::BodyTimeout,
            RequestError::UnknownCoding,
            RequestError::ConnectMethod,
            RequestError::NoRoute,
            RequestError::NoFile,
            RequestError::Misdirected,
            RequestError::CallerDeadline,
            RequestError::ClientGone(None),
            RequestError::ConnectTimeout(address),
            RequestError::ResponseTimeout,
            RequestError::ResponseBodyTimeout,
            RequestError::Reset(None),
            RequestError::BadResponse("x"),
            RequestError::ResponseTooLarge("x"),
            RequestError::NoHealthyEndpoint("blue".into()),
            RequestError::QueueFull,
            RequestError::QueueTimeout,
            RequestError::OutOfSockets(error()),
            RequestError::Closed,
            RequestError::Cut,
        ] {
            let code = error.code().as_bytes();
            assert_eq!(outcome_of_error(code), Some(outcome_of(&error)), "{error}");
        }
        assert_eq!(outcome_of_error(b"unheard_of"), None);
    }

    #[test]
    fn classes_are_told_apart() {
        for (index, class) in CLASSES.iter().enumerate() {
            let outcome = outcome_of_class(class.as_bytes()).expect("a class");
            assert_eq!(outcome.class(), Some(index), "{class}");
        }
        assert_eq!(outcome_of_class(b"6xx"), None);
    }
}

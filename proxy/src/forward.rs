//! Sending a request to the claimed endpoint, up to the head of its response.
//!
//! One attempt, over either protocol: get a connection, give it the request, wait. The first byte is
//! given to the socket in the same synchronous step that checks that the backend has not been taken
//! away; this is what makes a switch exact. Everything that is waited for has a deadline, and a
//! client that goes away ends the attempt.

mod h1;
mod h2;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::balance::Claim;
use crate::connect::acquire;
use crate::error::RequestError;
use crate::head::ResponseHead;
use crate::message::{Begin, WaitsFor};
use crate::pool::Connection;
use crate::request::Request;
use crate::source::Source;
use crate::timer::Timer;
use crate::upload::Upload;

/// The head of a response, and what is still under way. In a box, since it goes through many hands.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) source: Source,
    pub(crate) claim: Claim,
    pub(crate) upload: Upload,
    pub(crate) link: Link,
    pub(crate) timer: Timer,
}

/// The connection of an exchange while its bodies are under way.
#[derive(Debug)]
pub(crate) enum Link {
    H1(crate::pool::H1),
    /// The slot, and the channel of a request body.
    H2(
        crate::h2::client::Slot,
        Option<crate::h2::body::UploadSender>,
    ),
}

/// An attempt that brought no response head.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: RequestError,
    pub(crate) claim: Claim,
    pub(crate) upload: Upload,
    /// The endpoint said that it has not looked at the request.
    pub(crate) unprocessed: bool,
    /// At least one byte of a response arrived.
    pub(crate) answered: bool,
    /// How long the connection had been idle; `None`: it was new.
    pub(crate) idle_for: Option<Duration>,
    /// The status of a response that is given up in favour of stable's.
    pub(crate) status: Option<u16>,
    pub(crate) timer: Timer,
}

/// Makes one attempt. `fresh`: over a connection that was not used before.
///
/// # Errors
/// [`Failure`] with everything needed to decide about another attempt.
///
/// # Cancel safety
/// Dropping it aborts the attempt; the claim is released as "client gone".
pub(crate) async fn send(
    request: &Request<'_>,
    claim: Claim,
    upload: Upload,
    fresh: bool,
    timer: Timer,
) -> Result<Box<Answer>, Box<Failure>> {
    let limits = &claim.service.service.upstream;
    match acquire(&claim, upload.source(), limits, fresh, &timer).await {
        Ok(Connection::H1(connection)) => h1::send(request, claim, upload, connection, timer).await,
        Ok(Connection::H2(slot)) => Box::pin(h2::send(request, claim, upload, slot, timer)).await,
        Err(error) => Err(Box::new(Failure {
            error,
            claim,
            upload,
            unprocessed: true,
            answered: false,
            idle_for: None,
            status: None,
            timer,
        })),
    }
}

/// Ties the first byte to the backend still being open.
fn gate(claim: &mut Claim, moment: Begin) -> Result<(), RequestError> {
    match moment {
        Begin::About if claim.has_begun() || claim.may_begin() => Ok(()),
        Begin::About => Err(RequestError::Closed),
        Begin::Done => {
            claim.begin();
            Ok(())
        }
    }
}

/// The deadline of an attempt: which one holds depends on whom it waits for.
#[derive(Debug)]
struct Deadline {
    timer: Timer,
    phase: Phase,
    /// Bytes of the request body that had gone when it was last set.
    progress: u64,
    /// Whether the caller gives up before we would.
    is_callers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Uploading(WaitsFor),
    Waiting,
}

impl Deadline {
    const fn new(timer: Timer) -> Self {
        Self {
            timer,
            phase: Phase::Starting,
            progress: 0,
            is_callers: false,
        }
    }

    /// Ready with the error of whoever has been waited for too long.
    fn poll(
        &mut self,
        cx: &Context<'_>,
        request: &Request<'_>,
        upload: &Upload,
    ) -> Poll<RequestError> {
        let phase = if upload.is_done() {
            Phase::Waiting
        } else {
            Phase::Uploading(upload.waits_for())
        };
        if phase != self.phase || upload.progress() != self.progress {
            self.phase = phase;
            self.progress = upload.progress();
            if upload.framing().has_body() {
                match phase {
                    Phase::Uploading(WaitsFor::Source) => request.stopwatch.pause(),
                    _ => request.stopwatch.restart(self.timer.now()),
                }
            }
            let limit = match phase {
                Phase::Starting | Phase::Waiting => request.limits.upstream_response,
                Phase::Uploading(WaitsFor::Source) => request.limits.request_body_idle,
                Phase::Uploading(WaitsFor::Sink) => request.limits.upstream_body_idle,
            };
            self.arm(limit, request.deadline);
        }
        self.timer.poll_expired(cx).map(|()| match phase {
            _ if self.is_callers => RequestError::CallerDeadline,
            Phase::Uploading(WaitsFor::Source) => RequestError::BodyTimeout,
            Phase::Starting | Phase::Waiting | Phase::Uploading(WaitsFor::Sink) => {
                RequestError::ResponseTimeout
            }
        })
    }

    /// Sets whichever comes first.
    fn arm(&mut self, limit: Option<Duration>, callers: Option<Instant>) {
        let Some(callers) = callers else {
            self.timer.set(limit);
            return;
        };
        let ours = limit.map(|limit| self.timer.now() + limit);
        self.is_callers = ours.is_none_or(|ours| callers <= ours);
        self.timer
            .set_at(ours.map_or(callers, |ours| ours.min(callers)));
    }
}

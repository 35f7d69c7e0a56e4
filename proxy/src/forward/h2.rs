//! One attempt over HTTP/2.
//!
//! The request is handed to hyper in the step that checks the gate; a stream is free at that moment
//! by our own count, so hyper sends it on in the same turn of the loop. Whether an endpoint has
//! looked at a request that failed is taken from the protocol: `REFUSED_STREAM` and streams above
//! the last one of a `GOAWAY` were not processed, everything else may have been.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use crate::balance::Claim;
use crate::error::RequestError;
use crate::forward::{Answer, Deadline, Failure, Link, gate};
use crate::h1::reader::Sender;
use crate::h2::body::{Received, UploadBody};
use crate::h2::client::Slot;
use crate::h2::convert;
use crate::head::ResponseHead;
use crate::message::Begin;
use crate::request::Request;
use crate::source::Source;
use crate::timer::Timer;
use crate::upload::Upload;

/// Sends the request and waits for the head of the response.
pub(super) async fn send(
    request: &Request<'_>,
    mut claim: Claim,
    mut upload: Upload,
    slot: Slot,
    timer: Timer,
) -> Result<Box<Answer>, Box<Failure>> {
    let (sender, body) = if upload.framing().has_body() {
        let (sender, body) = UploadBody::channel();
        (Some(sender), body)
    } else {
        upload.abandon();
        (None, UploadBody::empty())
    };
    let mut deadline = Deadline::new(timer);
    let begun = begin(request, &mut claim, &upload, &slot, body);
    let response = match begun {
        Ok(response) => response,
        Err(error) => return Err(failed(error, claim, upload, true, deadline.timer)),
    };
    let mut response: Pin<&mut _> = pin!(response);
    let outcome = poll_fn(|cx| {
        if let Some(sender) = &sender
            && !upload.is_done()
            && let Poll::Ready(Err(error)) = upload.poll_h2(cx, sender)
        {
            return Poll::Ready(Err((error, false)));
        }
        if let Poll::Ready(outcome) = response.as_mut().poll(cx) {
            return Poll::Ready(outcome.map_err(explain));
        }
        if upload.is_done()
            && let Poll::Ready(gone) = upload.source().poll_gone(cx)
        {
            return Poll::Ready(Err((gone, false)));
        }
        deadline
            .poll(cx, request, &upload)
            .map(|error| Err((error, false)))
    })
    .await;
    match outcome {
        Ok(response) => match take_apart(request, &claim, response) {
            Ok((head, source)) => Ok(Box::new(Answer {
                head,
                source,
                claim,
                upload,
                link: Link::H2(slot, sender),
                timer: deadline.timer,
            })),
            Err(error) => {
                let mut failure = failed(error, claim, upload, false, deadline.timer);
                failure.answered = true;
                Err(failure)
            }
        },
        Err((error, unprocessed)) => Err(failed(error, claim, upload, unprocessed, deadline.timer)),
    }
}

type Outcome = Result<hyper::Response<Incoming>, TrySendError<hyper::Request<UploadBody>>>;

/// Checks the gate and hands the request over, in one step.
fn begin(
    request: &Request<'_>,
    claim: &mut Claim,
    upload: &Upload,
    slot: &Slot,
    body: UploadBody,
) -> Result<impl Future<Output = Outcome> + use<>, RequestError> {
    let message = convert::to_endpoint(request, claim, upload.framing(), body)?;
    gate(claim, Begin::About)?;
    if slot.is_closed() {
        return Err(RequestError::Reset(None));
    }
    let response = slot.sender().try_send_request(message);
    gate(claim, Begin::Done)?;
    Ok(response)
}

fn take_apart(
    request: &Request<'_>,
    claim: &Claim,
    response: hyper::Response<Incoming>,
) -> Result<(ResponseHead, Source), RequestError> {
    let (parts, incoming) = response.into_parts();
    let mut head = request.worker.spare_response_head();
    let received = Received::new(incoming, Sender::Endpoint);
    convert::from_endpoint(
        &parts,
        received.is_ended(),
        request.head.is_head(),
        &claim.service.service.upstream.response_head(),
        &mut head,
    )?;
    Ok((head, Source::H2(Box::new(received))))
}

/// The error of an attempt, and whether the endpoint has certainly not processed the request.
fn explain(refused: TrySendError<hyper::Request<UploadBody>>) -> (RequestError, bool) {
    let never_sent = refused.message().is_some();
    let error = refused.into_error();
    let reason =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<h2::Error>());
    let unprocessed = reason.is_some_and(|cause| {
        cause.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (cause.is_go_away()
                && cause.is_remote()
                && cause.reason() == Some(h2::Reason::NO_ERROR))
    });
    (RequestError::StreamReset(error), never_sent || unprocessed)
}

fn failed(
    error: RequestError,
    claim: Claim,
    upload: Upload,
    unprocessed: bool,
    timer: Timer,
) -> Box<Failure> {
    Box::new(Failure {
        error,
        claim,
        upload,
        unprocessed,
        answered: false,
        idle_for: None,
        status: None,
        timer,
    })
}

//! Copies of stable's requests for another backend: how would it have answered?
//!
//! A request that is chosen is copied while it is on its way to stable, and the copy is sent when
//! the original is over, so it never competes with it, never reaches a backend before stable, and
//! knows from its start what it is compared with. A copy goes the same way as any request (header
//! policy, balancing, pools, deadlines), but nobody waits for it: its response is read and dropped,
//! it is never repeated, and an original that ended without an answer is not copied at all.
//!
//! What is not configured costs one comparison. What is costs nothing before a request is chosen;
//! then its head and, within a bound, its body are copied. A worker has a bounded number of copies
//! of one service at a time, counted from the moment of choosing; what would exceed it is dropped
//! and counted. A copy has as long as its original took, and `timeout` on top: a slow request is no
//! failure of whoever answers it twice.
//!
//! Streams and long polls, WebSocket handshakes and requests with trailers are not copied.

pub(crate) mod body;
mod comparison;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchback_config::defaults::{LONG_RESPONSE, MIRROR_RESPONSE_BYTES};

use crate::balance::{self, Claim, Pick};
use crate::body::Exchange;
use crate::choice::Choice;
use crate::client::Client;
use crate::flag::Told;
use crate::forward;
use crate::head::{Framing, RequestHead};
use crate::headers::Ids;
use crate::mirror::body::BodyCopy;
use crate::outcome::Outcome;
use crate::report::Report;
use crate::request::{Request, end_attempt};
use crate::rescue::Repeat;
use crate::snapshot::{Backend, Mirror, RequestLimits, Service};
use crate::source::Source;
use crate::split::Sampler;
use crate::stats::mirrored::Dropped;
use crate::stopwatch::Stopwatch;
use crate::upload::Upload;
use crate::view::{ServiceView, View};
use crate::worker::Worker;
pub(crate) use comparison::Comparison;

/// The mirror of a service as one worker sees it.
#[derive(Debug)]
pub(crate) struct MirrorView {
    mirror: Arc<Mirror>,
    sampler: RefCell<Sampler>,
    under_way: Rc<Cell<u32>>,
}

impl MirrorView {
    /// The view of a service's mirror, taking over what it can from `before`.
    pub(crate) fn new(
        service: &Service,
        before: Option<&Self>,
        random: &mut impl FnMut(u64) -> u64,
    ) -> Option<Self> {
        let mirror = service.mirror.clone()?;
        let sampler = match before {
            Some(view) if view.mirror.sample == mirror.sample => view.sampler.borrow().clone(),
            _ => Sampler::new(&mirror.sample, random),
        };
        Some(Self {
            mirror,
            sampler: RefCell::new(sampler),
            under_way: before.map_or_else(Rc::default, |view| view.under_way.clone()),
        })
    }
}

/// A place among the copies that a worker may have at a time.
#[derive(Debug)]
struct Place(Rc<Cell<u32>>);

impl Place {
    fn take(under_way: &Rc<Cell<u32>>, most: u32) -> Option<Self> {
        let count = under_way.get();
        (count < most).then(|| {
            under_way.set(count + 1);
            Self(under_way.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A request on its way to stable that is copied when it is over.
#[derive(Debug)]
pub(crate) struct Original {
    worker: Rc<Worker>,
    client: Client,
    head: RequestHead,
    view: Rc<View>,
    route_index: usize,
    limits: RequestLimits,
    ids: Ids,
    /// The copy is told of the same flags.
    told: Told,
    service: Rc<ServiceView>,
    mirror: Arc<Mirror>,
    target: Arc<Backend>,
    body: Option<Rc<BodyCopy>>,
    chosen: Instant,
    /// From the choice of an endpoint to the head of the response.
    answered_in: Option<Duration>,
    /// What is counted if this is dropped now.
    dropped: Option<Dropped>,
    _place: Place,
}

/// Decides whether a request is copied. If so, its body is copied as it goes.
pub(crate) fn choose(
    request: &Request<'_>,
    service: &Rc<ServiceView>,
    choice: &Choice,
    upload: &mut Upload,
) -> Option<Box<Original>> {
    let view = service.mirror.as_ref()?;
    let mirror = &view.mirror;
    let to_stable = choice.pick == Pick::Split && choice.backend == service.service.stable;
    if !to_stable || request.head.websocket || !mirror.has_method(request.head.method()) {
        return None;
    }
    let random = &mut |bound| request.worker.random(bound);
    let chosen = mirror.sample.next(&mut view.sampler.borrow_mut(), random);
    if chosen != Some(Mirror::CHOSEN) {
        return None;
    }
    let target = &service.backends[mirror.to].backend;
    let framing = request.head.framing;
    let too_large = |bytes: u64| bytes > mirror.body_bytes_max as u64;
    if matches!(framing, Framing::Length(bytes) if too_large(bytes)) {
        Dropped::Body.count(request.worker, target);
        return None;
    }
    let Some(place) = Place::take(&view.under_way, mirror.concurrency) else {
        Dropped::Busy.count(request.worker, target);
        return None;
    };
    let body = framing.has_body().then(|| {
        let body = BodyCopy::new(mirror.body_bytes_max);
        upload.copy_to(&body);
        body
    });
    Some(Box::new(Original::new(
        request, service, mirror, body, place,
    )))
}

impl Original {
    fn new(
        request: &Request<'_>,
        service: &Rc<ServiceView>,
        mirror: &Arc<Mirror>,
        body: Option<Rc<BodyCopy>>,
        place: Place,
    ) -> Self {
        let worker = request.worker;
        let mut head = worker.spare_request_head();
        head.copy_from(request.head);
        Self {
            worker: worker.clone(),
            client: request.client.clone(),
            head,
            view: request.view.clone(),
            route_index: request.route_index,
            limits: *request.limits,
            ids: request.ids.clone(),
            told: request.told.clone(),
            service: service.clone(),
            mirror: mirror.clone(),
            target: service.backends[mirror.to].backend.clone(),
            body,
            chosen: worker.now(),
            answered_in: None,
            dropped: Some(Dropped::Original),
            _place: place,
        }
    }

    /// The head of its response has arrived.
    pub(crate) fn note_answer(&mut self, claim: &Claim) {
        let now = self.worker.read_clock();
        self.answered_in = Some(now.saturating_duration_since(claim.claimed()));
    }

    /// It is over: sends the copy, if there is still somebody to send it to.
    pub(crate) fn end(mut self: Box<Self>, outcome: Outcome) {
        let took = self
            .worker
            .read_clock()
            .saturating_duration_since(self.chosen);
        let says_nothing = matches!(
            outcome,
            Outcome::ClientGone | Outcome::Stale | Outcome::NotSent
        );
        if says_nothing || took >= LONG_RESPONSE || self.worker.is_draining() {
            return;
        }
        let body = match self.body.take() {
            None => Some(Bytes::new()),
            Some(body) => body.take(),
        };
        let Some(body) = body else {
            self.dropped = Some(Dropped::Body);
            return;
        };
        let Some(mut claim) = self.claim() else {
            self.dropped = Some(Dropped::Unavailable);
            return;
        };
        self.dropped = None;
        claim.compare(Comparison::new(
            &self.service,
            &self.mirror,
            &self.target,
            outcome,
            self.answered_in,
        ));
        tokio::task::spawn_local(send(self, claim, body, took));
    }

    /// An endpoint for the copy, if its version is still the one that gets copies.
    fn claim(&self) -> Option<Claim> {
        let view = self.worker.view();
        let service = view.find(&self.service.service.name, self.service.place.get())?;
        let to = service.service.mirror.as_ref()?.to;
        let is_same = Arc::ptr_eq(&service.backends[to].backend.stats, &self.target.stats);
        if !is_same {
            return None;
        }
        balance::claim(&self.worker, service, to, Pick::Mirror, &[], false)
    }

    /// The deadlines of the copy: all of them within the one for everything.
    fn limits(&self) -> RequestLimits {
        RequestLimits {
            upstream_response: None,
            upstream_body_idle: None,
            ..self.limits
        }
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped {
            dropped.count(&self.worker, &self.target);
        }
        self.worker
            .keep_request_head(std::mem::take(&mut self.head));
    }
}

/// Sends a copy and drops its response, within its time.
async fn send(original: Box<Original>, claim: Claim, body: Bytes, took: Duration) {
    let deadline = original.worker.wheel.timer();
    deadline.set(Some(took + original.mirror.patience));
    let mut exchange = pin!(exchange(&original, claim, body));
    // Dropping the exchange ends its claim, which knows what that means.
    poll_fn(|cx| match exchange.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => deadline.poll_expired(cx),
    })
    .await;
}

async fn exchange(original: &Original, claim: Claim, body: Bytes) {
    let worker = &original.worker;
    let limits = original.limits();
    let route = &original.view.snapshot.routes[original.route_index];
    let request = Request {
        worker,
        client: &original.client,
        head: &original.head,
        view: &original.view,
        route_index: original.route_index,
        route,
        limits: &limits,
        ids: &original.ids,
        told: &original.told,
        mirrored: true,
        deadline: None,
        stopwatch: &Stopwatch::default(),
    };
    let source = Source::Made(body);
    let upload = Upload::new(source, original.head.framing, None, worker.spare_bytes());
    let mut report = Report::silent(worker);
    match forward::send(&request, claim, upload, false, worker.wheel.timer()).await {
        Ok(mut answer) => {
            answer.claim.note_answer();
            let (head, exchange) = Exchange::new(answer, &limits, report);
            worker.keep_response_head(head);
            exchange.drop_rest(MIRROR_RESPONSE_BYTES).await;
        }
        Err(failure) => {
            let outcome = end_attempt(&request, &failure, Repeat::No, &mut report);
            failure.claim.end(outcome);
        }
    }
}

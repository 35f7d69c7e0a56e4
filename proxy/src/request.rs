//! One request, from its head to its reply: start reading here.
//!
//! [`handle`] is the hub. It loads the current view once and calls, in this order: the router, the
//! split, the balancer (which claims), the header policy and the forwarder. Each returns a value; no
//! step calls another step. If an attempt fails, [`crate::rescue`] says whether there is another.
//! If the backend is taken away before the first byte was sent, the request begins again with the
//! new view. The reply carries the body, which reports how it all ended; a request that is mirrored
//! ([`crate::mirror`]) is copied then.

use std::rc::Rc;
use std::time::Instant;

use switchback_config::defaults::PICKS_MAX;
use switchback_config::model::Underscores;

use crate::access_log::Record;
use crate::balance::{self, Claim, Pick};
use crate::body::{Body, Exchange};
use crate::choice::{Choice, choose};
use crate::client::Client;
use crate::error::RequestError;
use crate::flag::Told;
use crate::forward::{self, Answer, Failure};
use crate::head::{FieldSink, Name, RequestHead};
use crate::headers::{self, Ids, RequestPolicy};
use crate::mirror;
use crate::outcome::{Finding, Outcome};
use crate::pin;
use crate::reply::{Reply, Response, ResponseNotes};
use crate::report::{Report, outcome_of};
use crate::rescue::{self, Failed, Repeat, Tries};
use crate::snapshot::{RequestLimits, Route, RouteAction};
use crate::source::Source;
use crate::stopwatch::Stopwatch;
use crate::timer::Timer;
use crate::tunnel::Tunnel;
use crate::upload::Upload;
use crate::view::{EndpointView, ServiceView, View};
use crate::worker::Worker;

/// Everything about a request that stays the same over its attempts.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) client: &'a Client,
    pub(crate) head: &'a RequestHead,
    pub(crate) view: &'a Rc<View>,
    pub(crate) route_index: usize,
    pub(crate) route: &'a Route,
    pub(crate) limits: &'a RequestLimits,
    pub(crate) ids: &'a Ids,
    /// What the backend is told of flags.
    pub(crate) told: &'a Told,
    /// Whether this is a copy, whose response nobody sees.
    pub(crate) mirrored: bool,
    /// When its caller gives up (`grpc-timeout`).
    pub(crate) deadline: Option<Instant>,
    /// How long the backend takes.
    pub(crate) stopwatch: &'a Stopwatch,
}

/// Answers one request.
///
/// # Cancel safety
/// Dropping it aborts the request; claims are released and nothing is judged.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    client: &Client,
    head: &RequestHead,
    source: Source,
) -> Reply {
    let started = worker.read_clock();
    let mut view = worker.view();
    let trusted = headers::contains(&view.snapshot.trusted_proxies, client.peer.ip());
    let unix_ms = u64::try_from(worker.unix_time(started).as_millis()).unwrap_or(0);
    let sampler = worker.spans.as_ref().map(|spans| spans.sampler);
    let ids = Ids::new(head, trusted, unix_ms, sampler, || worker.random_id());
    let mut report = begin_report(worker, client, head, &view, &ids);
    if client.listener.underscores == Underscores::Reject && has_underscore(head) {
        let error = RequestError::Malformed("underscore in a header name");
        return refuse(worker, head, &ids, report, &error);
    }
    let mut course = Course {
        source: Some(source),
        tries: Tries::default(),
        timer: Some(worker.wheel.timer()),
    };
    let (stopwatch, told) = (Stopwatch::default(), Told::default());
    let deadline = head.grpc_timeout().map(|timeout| started + timeout);
    for _ in 0..PICKS_MAX {
        let Some(index) = view.snapshot.router.find(head, &client.listener.name) else {
            return refuse(worker, head, &ids, report, &RequestError::NoRoute);
        };
        let route = &view.snapshot.routes[index];
        if client.is_misdirected(head, route) {
            return refuse(worker, head, &ids, report, &RequestError::Misdirected);
        }
        enter(route, worker, unix_ms, &mut report);
        let limits = route.limits_on(&client.listener.name);
        let request = Request {
            worker,
            client,
            head,
            view: &view,
            route_index: index,
            route,
            limits,
            ids: &ids,
            told: &told,
            mirrored: false,
            deadline,
            stopwatch: &stopwatch,
        };
        let service = match &route.action {
            RouteAction::Service(index) => &view.services[*index],
            RouteAction::Redirect(redirect) => {
                return Reply::Response(Response::redirect(&request, redirect, report));
            }
        };
        match attempt(&request, service, &mut course, &mut report).await {
            Ok((answer, notes)) => return reply(&request, answer, notes, report),
            Err(RequestError::Closed) if course.source.is_some() => view = worker.view(),
            Err(error) => return refuse(worker, head, &ids, report, &error),
        }
    }
    refuse(worker, head, &ids, report, &RequestError::Closed)
}

/// Notes that a route was asked for.
fn enter(route: &Route, worker: &Worker, unix_ms: u64, report: &mut Report) {
    if let Some(used) = &route.used {
        used.note(worker.index, unix_ms);
    }
    if !route.logged {
        report.write_no_line();
    }
}

fn has_underscore(head: &RequestHead) -> bool {
    let mut fields = head.fields.list().iter();
    fields.any(|field| field.known == Name::Underscore)
}

/// What a request carries from one attempt to the next.
#[derive(Debug)]
struct Course {
    /// The body, as far as no attempt has it.
    source: Option<Source>,
    tries: Tries,
    timer: Option<Timer>,
}

/// Picks a backend and tries it, and whatever may be tried after it.
async fn attempt(
    request: &Request<'_>,
    service: &Rc<ServiceView>,
    course: &mut Course,
    report: &mut Report,
) -> Result<(Box<Answer>, ResponseNotes), RequestError> {
    let mut choice = choose(request, service)?;
    // A key that is only being issued says nothing about who this is.
    let client = choice.key.filter(|_| choice.set_cookie.is_none());
    request.tell_flags(service, choice.key);
    let mut notes = ResponseNotes::new(request, service, &mut choice);
    let (mut upload, mut timer) = start_upload(request, service, course)?;
    report.mirror(mirror::choose(request, service, &choice, &mut upload));
    service.budget.note_request(request.worker.now());
    let (mut tried, mut fresh) = (Vec::new(), false);
    loop {
        let claim = claim(request, service, &choice, &tried)?;
        if tried.is_empty() && !course.tries.rescued {
            report.picked(request, &claim, choice.judged_as, client);
            request.stopwatch.start(&claim, choice.judged_as);
        }
        report.note_backend(&claim);
        let failure = match forward::send(request, claim, upload, fresh, timer).await {
            Ok(answer) => {
                note_time(service, request.stopwatch.stop(request.worker), report);
                if let Some(other) = pin::elsewhere(request, service, &answer, course.tries) {
                    (upload, timer) = miss(*answer, &mut course.tries, report);
                    (choice.backend, choice.pick) = (other, Pick::Asset);
                    notes.show_backend(request, service, &choice);
                    continue;
                }
                match should_rescue(request, service, &answer, course.tries) {
                    false => return Ok((answer, notes)),
                    true => give_up(*answer),
                }
            }
            Err(failure) => *failure,
        };
        if matches!(failure.error, RequestError::Closed) {
            return Err(begin_again(request, failure, course, report));
        }
        tried.push(failure.claim.endpoint.clone());
        let repeat = decide(request, &choice, &failure, &tried, &mut course.tries);
        let outcome = end_attempt(request, &failure, repeat, report);
        let Failure {
            error,
            claim,
            upload: rest,
            timer: same_timer,
            ..
        } = failure;
        match repeat {
            Repeat::No => {
                claim.end(outcome);
                let error = for_client(choice.pick, error);
                report.note_error(&error);
                return Err(error);
            }
            Repeat::Retry => {
                claim.cells(|cells| cells.retries.add(1));
                fresh = true;
            }
            Repeat::GoOn => claim.cells(|cells| cells.retries.add(1)),
            Repeat::Rescue => {
                claim.cells(|cells| cells.rescued.add(1));
                report.note_rescue(&claim, outcome);
                notes.rescued = true;
                (choice.backend, choice.pick) = (service.service.stable, Pick::Rescue);
                (tried, fresh) = (Vec::new(), false);
            }
        }
        notes.show_backend(request, service, &choice);
        claim.end(outcome);
        (upload, timer) = (rest.again(), same_timer);
    }
}

/// Makes the upload of a request, refusing one that announces too much.
fn start_upload(
    request: &Request<'_>,
    service: &ServiceView,
    course: &mut Course,
) -> Result<(Upload, Timer), RequestError> {
    let rescue = &service.service.rescue;
    let keep = is_repeatable(request, rescue)
        .then(|| usize::try_from(rescue.max_body.0).unwrap_or(usize::MAX));
    let framing = request.head.framing;
    if let (crate::head::Framing::Length(bytes), Some(bytes_max)) =
        (framing, request.limits.request_body_bytes)
        && bytes > bytes_max
    {
        return Err(RequestError::BodyTooLarge);
    }
    let mut source = course.source.take().unwrap_or_else(Source::empty);
    source.limit(request.limits.request_body_bytes);
    let timer = course
        .timer
        .take()
        .unwrap_or_else(|| request.worker.wheel.timer());
    let mut upload = Upload::new(source, framing, keep, request.worker.spare_bytes());
    upload.guard(service.service.flags.as_ref());
    Ok((upload, timer))
}

/// Whether sending the request twice does no harm.
fn is_repeatable(request: &Request<'_>, rescue: &switchback_config::model::Rescue) -> bool {
    request.head.is_safe()
        || (rescue.idempotency_key
            && request
                .head
                .fields
                .values(b"idempotency-key")
                .next()
                .is_some())
}

fn claim(
    request: &Request<'_>,
    service: &Rc<ServiceView>,
    choice: &Choice,
    avoid: &[Rc<EndpointView>],
) -> Result<Claim, RequestError> {
    let claimed = balance::claim(
        request.worker,
        service,
        choice.backend,
        choice.pick,
        avoid,
        choice.despite_probes,
    );
    claimed.ok_or_else(|| {
        RequestError::NoHealthyEndpoint(service.backends[choice.backend].backend.name.to_string())
    })
}

/// Whether a response that has arrived should be dropped in favour of stable's.
fn should_rescue(
    request: &Request<'_>,
    service: &ServiceView,
    answer: &Answer,
    tries: Tries,
) -> bool {
    if !service.service.errors.status_fails(answer.head.status) || answer.claim.pick != Pick::Split
    {
        return false;
    }
    let failed = Failed {
        began: true,
        answered: true,
        is_failure: true,
        may_be_rescued: may_be_rescued(service, &answer.claim),
        repeatable: is_repeatable(request, &service.service.rescue)
            && answer.upload.is_repeatable(),
        rescue_allowed: rescue_allowed(request, service),
        may_go_on: false,
    };
    let tries = Tries {
        begun: tries.begun + 1,
        ..tries
    };
    rescue::decide(failed, tries) == Repeat::Rescue
        && service
            .budget
            .has_left(request.worker.now(), service.service.rescue.budget)
}

/// Stable can take over what was sent to a canary, as long as it has a share of its own.
fn may_be_rescued(service: &ServiceView, claim: &Claim) -> bool {
    claim.pick == Pick::Split
        && claim.backend != service.service.stable
        && service.service.is_open(service.service.stable)
}

fn rescue_allowed(request: &Request<'_>, service: &ServiceView) -> bool {
    let rescue = &service.service.rescue;
    rescue::rescues_method(rescue, request.head.method())
        || (rescue.enabled && rescue.idempotency_key && is_repeatable(request, rescue))
}

/// Turns a response that nobody will see into a failed attempt.
fn give_up(answer: Answer) -> Failure {
    Failure {
        error: RequestError::BadResponse("failing status, rescued"),
        claim: answer.claim,
        upload: answer.upload,
        unprocessed: false,
        answered: true,
        idle_for: None,
        timer: answer.timer,
        status: Some(answer.head.status),
    }
}

/// The backend was taken away before the request began.
fn begin_again(
    request: &Request<'_>,
    failure: Failure,
    course: &mut Course,
    report: &mut Report,
) -> RequestError {
    report.acquit();
    request.stopwatch.cancel();
    course.source = Some(failure.upload.into_source());
    course.timer = Some(failure.timer);
    failure.error
}

/// What a client is told of the last attempt: that a file could not be looked for elsewhere makes it no less
/// missing.
fn for_client(pick: Pick, error: RequestError) -> RequestError {
    match pick {
        Pick::Asset => RequestError::NoFile,
        _ => error,
    }
}

/// Ends an attempt whose backend does not have the file, and begins anew. That it does not have another
/// version's file says nothing about it.
fn miss(answer: Answer, tries: &mut Tries, report: &mut Report) -> (Upload, Timer) {
    let outcome = Outcome::Status(answer.head.status);
    report.acquit();
    tries.begun += 1;
    answer.claim.end(outcome);
    (answer.upload.again(), answer.timer)
}

fn decide(
    request: &Request<'_>,
    choice: &Choice,
    failure: &Failure,
    tried: &[Rc<EndpointView>],
    tries: &mut Tries,
) -> Repeat {
    let service = &failure.claim.service;
    let began = failure.claim.has_begun() && !failure.unprocessed;
    tries.begun += u32::from(began);
    let outcome = outcome_of(&failure.error);
    let stale = rescue::was_stale(failure.idle_for) && !failure.answered;
    if matches!(failure.error.fault(), crate::error::Fault::Client) {
        return Repeat::No;
    }
    let failed = Failed {
        began,
        answered: failure.answered,
        is_failure: stale
            || failure.status.is_some()
            || service.service.errors.find(outcome) == Finding::Failure,
        may_be_rescued: may_be_rescued(service, &failure.claim),
        repeatable: is_repeatable(request, &service.service.rescue)
            && failure.upload.is_repeatable(),
        rescue_allowed: rescue_allowed(request, service),
        may_go_on: failure.error.is_unreached() && {
            let backend = failure.claim.view();
            balance::has_untried(request.worker, backend, tried, choice.despite_probes)
        },
    };
    let nothing_to_gain = matches!(
        failure.error,
        RequestError::QueueFull | RequestError::QueueTimeout | RequestError::OutOfSockets(_)
    );
    let repeat = rescue::decide(failed, *tries);
    if repeat == Repeat::No || nothing_to_gain {
        return Repeat::No;
    }
    let share = service.service.rescue.budget;
    if repeat != Repeat::GoOn && !service.budget.take(request.worker.now(), share) {
        return match failed.may_go_on {
            true => Repeat::GoOn,
            false => Repeat::No,
        };
    }
    tries.retried |= repeat == Repeat::Retry;
    tries.rescued |= repeat == Repeat::Rescue;
    repeat
}

/// Tells the judge about a failed attempt, unless another one on the same side decides.
pub(crate) fn end_attempt(
    request: &Request<'_>,
    failure: &Failure,
    repeat: Repeat,
    report: &mut Report,
) -> Outcome {
    let outcome = match failure.status {
        Some(status) => Outcome::Status(status),
        None if rescue::was_stale(failure.idle_for) && !failure.answered => Outcome::Stale,
        None => outcome_of(&failure.error),
    };
    if !matches!(repeat, Repeat::Retry | Repeat::GoOn) {
        let service = &failure.claim.service;
        let was_slow = match service.service.errors.find(outcome) {
            Finding::NotCounted => request.stopwatch.cancel(),
            Finding::Success | Finding::Failure => request.stopwatch.stop(request.worker),
        };
        note_time(service, was_slow, report);
        report.judge(outcome);
    }
    outcome
}

/// A request that was slow has been counted as a failure where slow requests are failures, and
/// counts once.
fn note_time(service: &ServiceView, was_slow: bool, report: &mut Report) {
    if was_slow {
        report.note_slow(service.service.errors.slow_fails());
    }
}

/// Turns an answer into a reply.
fn reply(
    request: &Request<'_>,
    answer: Box<Answer>,
    notes: ResponseNotes,
    mut report: Report,
) -> Reply {
    let status = answer.head.status;
    note_version(request.worker, &answer);
    report.note_answer(&answer.claim);
    report.note(|record| record.status = status);
    if status == 101 {
        report.judge(Outcome::Status(status));
        return Reply::Tunnel(Box::new(Tunnel::new(request, *answer, notes, report)));
    }
    let (head, exchange) = Exchange::new(answer, request.limits, report);
    Reply::Response(Response {
        head,
        notes,
        body: Body::Exchange(exchange),
        write_stall: request.limits.write_stall,
    })
}

/// Counts an answer by the version that it names, where somebody wants to know.
fn note_version(worker: &Worker, answer: &Answer) {
    let claim = &answer.claim;
    let Some(versions) = &claim.service.service.versions else {
        return;
    };
    if let Some(mixture) = versions.backends.get(claim.backend) {
        let mut named = answer.head.fields.values(versions.header.as_bytes());
        mixture.note(worker.index, named.next(), worker.now());
    }
}

fn refuse(
    worker: &Rc<Worker>,
    head: &RequestHead,
    ids: &Ids,
    report: Report,
    error: &RequestError,
) -> Reply {
    worker.stats().count_limit(error.limit());
    Reply::Response(Response::refusal(
        worker,
        head,
        Some(ids.request_id()),
        Some(report),
        error,
    ))
}

fn begin_report(
    worker: &Rc<Worker>,
    client: &Client,
    head: &RequestHead,
    view: &View,
    ids: &Ids,
) -> Report {
    Report::new(worker, view.snapshot.access_log, ids.trace.span, || {
        let address =
            headers::client_address(head, client.peer.ip(), &view.snapshot.trusted_proxies);
        let mut record = Record::begin(
            head,
            address,
            client.listener.name.clone(),
            worker.unix_time(worker.now()),
        );
        record.request_id.push_str(ids.request_id());
        record.secure = client.secure;
        record
    })
}

impl Request<'_> {
    /// The target for the backend, in parts: as received, or with the route's prefix replaced.
    pub(crate) fn target(&self) -> [&[u8]; 2] {
        let target = self.head.target();
        let Some(prefix) = &self.route.rewrite.prefix else {
            return [target, b""];
        };
        let matched = if self.route.path == "/" {
            0
        } else {
            self.route.path.len()
        };
        let rest = target.get(matched..).unwrap_or_default();
        let prefix = prefix.as_bytes();
        match (prefix.strip_suffix(b"/"), rest.first()) {
            (Some(shorter), Some(b'/')) => [shorter, rest],
            (None, _) if prefix.is_empty() && !rest.starts_with(b"/") => [b"/", rest],
            _ => [prefix, rest],
        }
    }

    /// `Host` for the backend: rewritten, or as the client named it.
    pub(crate) fn upstream_authority<'a>(&'a self, claim: &'a Claim) -> &'a [u8] {
        let configured = self.route.rewrite.host.as_deref().or(claim
            .service
            .service
            .upstream_host
            .as_deref());
        configured
            .map(str::as_bytes)
            .or_else(|| self.head.authority())
            .unwrap_or_else(|| claim.endpoint.endpoint.authority.as_bytes())
    }

    /// Works out what the backend is told of flags about the client with this key.
    fn tell_flags(&self, service: &ServiceView, key: Option<u64>) {
        let flags = service.service.flags.as_ref();
        self.told.decide(flags, key, self.worker.now());
    }

    /// Writes the header fields for the backend, apart from host and framing.
    pub(crate) fn write_headers<S: FieldSink>(&self, sink: &mut S, over_h1: bool) {
        self.told.tell(|flags| {
            let policy = RequestPolicy {
                peer: &self.client.peer_text,
                peer_is_trusted: headers::contains(
                    &self.view.snapshot.trusted_proxies,
                    self.client.peer.ip(),
                ),
                secure: self.client.secure,
                ids: self.ids,
                changes: &self.route.request_headers,
                flags,
                mirrored: self.mirrored,
                underscores_pass: self.client.listener.underscores == Underscores::Allow,
                over_h1,
            };
            headers::write_request(sink, self.head, &policy);
        });
    }
}

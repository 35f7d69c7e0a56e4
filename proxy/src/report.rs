//! What remains of a request when it is over: one finding for the judge, one line in the log.
//!
//! Both happen exactly once. The finding belongs to the first backend that was picked, so it is
//! taken out of the report when it is made; a rescue on stable later says nothing more to anyone.
//! The line is written, and the span told, when the report is dropped, whichever way the request ended. Of
//! requests to watched versions an [`Encounter`] is kept too.

use std::rc::Rc;
use std::time::{Duration, Instant};

use switchback_config::defaults::SPAN_TEXT_BYTES;
use switchback_config::model::LogFormat;

use crate::access_log::Record;
use crate::balance::{Claim, Pick};
use crate::encounter::Encounter;
use crate::error::RequestError;
use crate::exposure::{Exposure, Part};
use crate::headers;
use crate::mirror::Original;
use crate::outcome::{CLASSES, Outcome};
use crate::request::Request;
use crate::trace::{Span, SpanContext};
use crate::view::ServiceView;
use crate::worker::Worker;

/// The account of one request.
#[derive(Debug)]
pub(crate) struct Report {
    worker: Rc<Worker>,
    started: Instant,
    format: LogFormat,
    record: Option<Box<Record>>,
    span: Option<(SpanContext, Duration)>,
    judged: Option<Judged>,
    mirrored: Option<Box<Original>>,
    met: Option<Met>,
}

/// A watched version that the request was sent to.
#[derive(Debug)]
struct Met {
    service: Rc<ServiceView>,
    backend: usize,
    encounter: Encounter,
}

/// Whom the judge will hear of. The service as it was at the pick holds the cells of that time.
#[derive(Debug)]
struct Judged {
    service: Rc<ServiceView>,
    backend: usize,
    key: Option<u64>,
}

impl Report {
    /// An account that begins now. `span` is where the request stands in its trace, if somebody wants to know;
    /// `record` makes the beginning of what is told, and is not called when nobody reads it.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        format: LogFormat,
        span: Option<SpanContext>,
        record: impl FnOnce() -> Box<Record>,
    ) -> Self {
        let record = (format != LogFormat::Off || span.is_some()).then(record);
        Self {
            span: span.map(|span| (span, worker.unix_time(worker.now()))),
            worker: worker.clone(),
            started: worker.now(),
            format,
            record,
            judged: None,
            mirrored: None,
            met: None,
        }
    }

    /// An account that nobody reads.
    pub(crate) fn silent(worker: &Rc<Worker>) -> Self {
        Self {
            worker: worker.clone(),
            started: worker.now(),
            format: LogFormat::Off,
            record: None,
            span: None,
            judged: None,
            mirrored: None,
            met: None,
        }
    }

    /// The access log does not hear of the request.
    pub(crate) const fn write_no_line(&mut self) {
        self.format = LogFormat::Off;
    }

    /// The request is copied when it is over.
    pub(crate) fn mirror(&mut self, original: Option<Box<Original>>) {
        self.mirrored = original;
    }

    /// The head of a response has arrived.
    pub(crate) fn note_answer(&mut self, claim: &Claim) {
        if let Some(original) = &mut self.mirrored {
            original.note_answer(claim);
        }
    }

    /// Names the backend that was picked, in whose current cells the finding will be counted. `client`:
    /// the key by which the client said who it is.
    pub(crate) fn picked(
        &mut self,
        request: &Request<'_>,
        claim: &Claim,
        key: Option<u64>,
        client: Option<u64>,
    ) {
        if claim.pick != Pick::Split {
            return;
        }
        self.judged = Some(Judged {
            service: claim.service.clone(),
            backend: claim.backend,
            key,
        });
        let exposures = &claim.service.service.exposures;
        if let Some(Some(exposure)) = exposures.get(claim.backend) {
            self.met = Some(Met {
                service: claim.service.clone(),
                backend: claim.backend,
                encounter: encounter(request, exposure, client),
            });
        }
    }

    /// Counts an outcome of the picked backend, once.
    pub(crate) fn judge(&mut self, outcome: Outcome) {
        if let Some(original) = self.mirrored.take() {
            original.end(outcome);
        }
        let worker = &self.worker;
        if let Some(met) = &mut self.met {
            let finding = met.service.service.errors.find(outcome);
            let took = worker.now().saturating_duration_since(self.started);
            let (uptime, encounter) = (worker.uptime(), &mut met.encounter);
            if let Some(part) = part_of(&met.service, met.backend, worker.index) {
                encounter.note(part, outcome, finding, uptime, took);
            }
        }
        if let Some(judged) = self.judged.take() {
            let service = &judged.service.service;
            if let Some(cells) = service.judged.get(judged.backend) {
                let finding = service.errors.find(outcome);
                cells.record(worker.index, finding, judged.key, worker.uptime());
            }
        }
    }

    /// The picked backend was slow. `is_counted`: that was a failure already, and counts once.
    pub(crate) fn note_slow(&mut self, is_counted: bool) {
        let worker = &self.worker;
        if let Some(met) = &mut self.met {
            let took = worker.now().saturating_duration_since(self.started);
            if let Some(part) = part_of(&met.service, met.backend, worker.index) {
                met.encounter.note_slow(part, worker.uptime(), took);
            }
        }
        if is_counted {
            self.judged = None;
        }
    }

    /// Nothing that happens from now on says anything about the picked backend.
    pub(crate) fn acquit(&mut self) {
        self.judged = None;
        self.mirrored = None;
        self.end_encounter();
    }

    fn end_encounter(&mut self) {
        let Some(met) = self.met.take() else { return };
        if let Some(part) = part_of(&met.service, met.backend, self.worker.index) {
            self.worker.keep_about(met.encounter.end(part));
        }
    }

    /// Changes the log line, if there is one.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    /// Notes who answered.
    pub(crate) fn note_backend(&mut self, claim: &Claim) {
        self.note(|record| {
            let backend = &claim.view().backend;
            record.service = Some(claim.service.service.name.clone());
            record.backend = Some(backend.name.clone());
            record.version = Some(backend.version.clone());
            record.pick = match claim.pick {
                Pick::Split | Pick::Rescue => None,
                Pick::Diverted => Some("diverted"),
                Pick::Asset => Some("asset"),
                Pick::Preview => Some("preview"),
                Pick::Mirror => Some("mirror"),
            };
        });
    }

    /// Notes that stable takes over from a canary.
    pub(crate) fn note_rescue(&mut self, claim: &Claim, outcome: Outcome) {
        if let Some(met) = &mut self.met {
            met.encounter.take_over();
        }
        self.note(|record| {
            record.rescued_from = Some(claim.view().backend.name.clone());
            record.rescued_outcome = outcome.class().map(|class| CLASSES[class]);
        });
    }

    /// Notes a failure.
    pub(crate) fn note_error(&mut self, error: &RequestError) {
        self.note(|record| record.error = Some(error.code()));
    }
}

impl Report {
    fn tell_span(&mut self, took: Duration, mut record: Box<Record>) {
        let (Some((context, begun)), Some(spans)) = (self.span.take(), &self.worker.spans) else {
            return;
        };
        record.shorten(SPAN_TEXT_BYTES);
        spans.push(Span {
            context,
            begun,
            took,
            record,
        });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.end_encounter();
        if let Some(mut record) = self.record.take() {
            // The turn of the loop may have begun long ago; whoever wants a line wants the time it took, too.
            let took = self
                .worker
                .read_clock()
                .saturating_duration_since(self.started);
            record.duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
            if self.format != LogFormat::Off {
                self.worker.log.write(&record, self.format);
            }
            self.tell_span(took, record);
        }
    }
}

/// What a worker keeps of the requests to a watched version.
fn part_of(service: &ServiceView, backend: usize, worker: usize) -> Option<&Part> {
    let exposure = service.service.exposures.get(backend)?.as_ref()?;
    Some(exposure.part(worker))
}

/// What is kept of a request to a watched version. A client is told apart by its own key, else by its
/// address.
fn encounter(request: &Request<'_>, exposure: &Exposure, client: Option<u64>) -> Encounter {
    let mut about = request.worker.spare_about();
    about.describe(request.head, request.ids, exposure.keeps_paths());
    let client = match client {
        Some(key) => exposure.client(key),
        None => {
            let trusted = &request.view.snapshot.trusted_proxies;
            let peer = request.client.peer.ip();
            exposure.client(headers::client_address(request.head, peer, trusted))
        }
    };
    Encounter::new(client, about)
}

/// How a failed attempt ended, for counting.
pub(crate) fn outcome_of(error: &RequestError) -> Outcome {
    match error {
        RequestError::Connect { .. } | RequestError::ConnectTimeout(_) => Outcome::Connect,
        RequestError::ResponseTimeout | RequestError::ResponseBodyTimeout => Outcome::Timeout,
        RequestError::Reset(_)
        | RequestError::StreamReset(_)
        | RequestError::BadResponse(_)
        | RequestError::ResponseTooLarge(_) => Outcome::Reset,
        error if error.fault() == crate::error::Fault::Client => Outcome::ClientGone,
        _ => Outcome::NotSent,
    }
}

//! What remains of a request when it is over: one finding for the judge, one line in the log.
//!
//! Both happen exactly once. The finding belongs to the first backend that was picked, so it is
//! taken out of the report when it is made; a rescue on stable later says nothing more to anyone.
//! The line is written when the report is dropped, whichever way the request ended. Of requests to
//! watched versions an [`Encounter`] is kept too, see [`crate::exposure`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use switchback_config::model::LogFormat;

use crate::access_log::Record;
use crate::balance::{Claim, Pick};
use crate::error::RequestError;
use crate::exposure::{About, Encounter, Exposure, method_text, path_template};
use crate::headers;
use crate::mirror::Original;
use crate::outcome::{CLASSES, Outcome};
use crate::request::Request;
use crate::stats::JudgeCells;
use crate::view::ServiceView;
use crate::worker::Worker;

/// The account of one request.
#[derive(Debug)]
pub(crate) struct Report {
    worker: Rc<Worker>,
    started: Instant,
    format: LogFormat,
    record: Option<Box<Record>>,
    judged: Option<Judged>,
    mirrored: Option<Box<Original>>,
    encounter: Option<Box<Met>>,
}

/// A watched version that the request was sent to.
#[derive(Debug)]
struct Met {
    encounter: Encounter,
    service: Rc<ServiceView>,
}

/// Whom the judge will hear of.
#[derive(Debug)]
struct Judged {
    cells: Arc<JudgeCells>,
    service: Rc<ServiceView>,
    key: Option<u64>,
}

impl Report {
    /// An account that begins now. `record` makes the log line's beginning; it is not called when
    /// there is no log.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        format: LogFormat,
        record: impl FnOnce() -> Box<Record>,
    ) -> Self {
        let record = (format != LogFormat::Off).then(record);
        Self {
            worker: worker.clone(),
            started: worker.now(),
            format,
            record,
            judged: None,
            mirrored: None,
            encounter: None,
        }
    }

    /// An account that nobody reads.
    pub(crate) fn silent(worker: &Rc<Worker>) -> Self {
        Self {
            worker: worker.clone(),
            started: worker.now(),
            format: LogFormat::Off,
            record: None,
            judged: None,
            mirrored: None,
            encounter: None,
        }
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
        let service = &claim.service;
        if claim.pick == Pick::Split
            && let Some(cells) = service.service.judged.get(claim.backend)
        {
            self.judged = Some(Judged {
                cells: cells.clone(),
                service: service.clone(),
                key,
            });
            let exposure = service.service.exposures.get(claim.backend);
            self.encounter = exposure.and_then(Option::as_ref).map(|exposure| {
                Box::new(Met {
                    encounter: encounter(request, exposure, client),
                    service: service.clone(),
                })
            });
        }
    }

    /// Counts an outcome of the picked backend, once.
    pub(crate) fn judge(&mut self, outcome: Outcome) {
        if let Some(original) = self.mirrored.take() {
            original.end(outcome);
        }
        if let Some(met) = &mut self.encounter {
            let finding = met.service.service.errors.find(outcome);
            let took = self.worker.now().saturating_duration_since(self.started);
            met.encounter
                .note(outcome, finding, self.worker.uptime(), took);
        }
        if let Some(judged) = self.judged.take() {
            let finding = judged.service.service.errors.find(outcome);
            judged
                .cells
                .record(self.worker.index, finding, judged.key, self.worker.uptime());
        }
    }

    /// The picked backend was slow. `is_counted`: that was a failure already, and counts once.
    pub(crate) fn note_slow(&mut self, is_counted: bool) {
        if let Some(met) = &mut self.encounter {
            let took = self.worker.now().saturating_duration_since(self.started);
            met.encounter.note_slow(self.worker.uptime(), took);
        }
        if is_counted {
            self.judged = None;
        }
    }

    /// Nothing that happens from now on says anything about the picked backend.
    pub(crate) fn acquit(&mut self) {
        self.judged = None;
        self.mirrored = None;
        self.encounter = None;
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
                Pick::Preview => Some("preview"),
                Pick::Mirror => Some("mirror"),
            };
        });
    }

    /// Notes that stable takes over from a canary.
    pub(crate) fn note_rescue(&mut self, claim: &Claim, outcome: Outcome) {
        if let Some(met) = &mut self.encounter {
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

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            let took = self.worker.now().saturating_duration_since(self.started);
            record.duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
            self.worker.log.write(&record, self.format);
        }
    }
}

/// What is kept of a request to a watched version. A client is told apart by its own key, else by its
/// address.
fn encounter(request: &Request<'_>, exposure: &Arc<Exposure>, client: Option<u64>) -> Encounter {
    let (head, ids) = (request.head, request.ids);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let about = About {
        request_id: ids.request_id.clone(),
        traceparent: text(ids.traceparent(head)),
        method: method_text(head.method()),
        path: exposure.keeps_paths().then(|| path_template(head.target())),
    };
    let worker = request.worker.index;
    match client {
        Some(key) => Encounter::new(exposure, worker, key, about),
        None => {
            let trusted = &request.view.snapshot.trusted_proxies;
            let address = headers::client_address(head, request.client.peer.ip(), trusted);
            Encounter::new(exposure, worker, address, about)
        }
    }
}

/// How a failed attempt ended, for counting.
pub(crate) fn outcome_of(error: &RequestError) -> Outcome {
    match error {
        RequestError::Connect { .. } | RequestError::ConnectTimeout(_) => Outcome::Connect,
        RequestError::ResponseTimeout | RequestError::ResponseBodyTimeout => Outcome::Timeout,
        RequestError::Reset(_) | RequestError::StreamReset(_) | RequestError::BadResponse(_) => {
            Outcome::Reset
        }
        error if error.fault() == crate::error::Fault::Client => Outcome::ClientGone,
        _ => Outcome::NotSent,
    }
}

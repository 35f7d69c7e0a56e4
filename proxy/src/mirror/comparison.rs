//! How a copy ended, beside how its original did.
//!
//! Both findings of a pair go to the judge in the same step, when the slower one is there: so it
//! always sees as many copies as originals, of the same requests, and neither side's fast answers
//! run ahead of the other's slow ones. A copy that says nothing about its version (nothing was sent,
//! or a connection had silently gone) takes its original's finding with it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::outcome::{Finding, Outcome, difference};
use crate::snapshot::{Backend, Mirror};
use crate::stats::mirrored::Dropped;
use crate::view::ServiceView;
use crate::worker::Worker;

/// An original that waits for its copy to end.
#[derive(Debug)]
pub(crate) struct Comparison {
    service: Rc<ServiceView>,
    mirror: Arc<Mirror>,
    target: Arc<Backend>,
    original: Outcome,
    original_answered_in: Option<Duration>,
    answered_in: Option<Duration>,
}

impl Comparison {
    pub(crate) fn new(
        service: &Rc<ServiceView>,
        mirror: &Arc<Mirror>,
        target: &Arc<Backend>,
        original: Outcome,
        original_answered_in: Option<Duration>,
    ) -> Box<Self> {
        Box::new(Self {
            service: service.clone(),
            mirror: mirror.clone(),
            target: target.clone(),
            original,
            original_answered_in,
            answered_in: None,
        })
    }

    /// The head of the copy's response has arrived.
    pub(crate) const fn note_answer(&mut self, answered_in: Duration) {
        self.answered_in = Some(answered_in);
    }

    /// The copy has ended.
    pub(crate) fn end(self, worker: &Worker, copy: Outcome) {
        let errors = &self.service.service.errors;
        let finding = errors.find(copy);
        if finding == Finding::NotCounted {
            Dropped::Unavailable.count(worker, &self.target);
            return;
        }
        let cells = self.target.stats.mirrored_cells(worker.index);
        cells.compared.add(1);
        cells.failed.add(u64::from(finding == Finding::Failure));
        if let Some(difference) = difference(errors, self.original, copy) {
            cells.differences[difference].add(1);
        }
        if let (Some(original), Some(copy)) = (self.original_answered_in, self.answered_in) {
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            cells.timed.add(1);
            cells.originals_us.add(micros(original));
            cells.copies_us.add(micros(copy));
        }
        if let Some(pairs) = &self.mirror.judged {
            let failed = |finding| finding == Finding::Failure;
            let original = errors.find(self.original);
            pairs.record(worker.index, failed(finding), failed(original));
        }
    }
}

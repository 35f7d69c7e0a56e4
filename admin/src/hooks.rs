//! Hooks: tells others what happened, and asks them before stable changes.
//!
//! Whoever changes something never waits for a hook: what is to be told is written to the outbox with
//! the change ([`outbox`]), and taken from there to its receivers afterwards ([`courier`]). Only hooks
//! for `before_switch` are waited for, by whoever asked for the switch ([`gate`]); rollbacks and blocks
//! know nothing of them.

mod courier;
pub(crate) mod delivery;
pub(crate) mod gate;
pub(crate) mod outbox;
mod preset;
mod program;
pub(crate) mod request;
mod sign;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use switchback_config::model::{Hook, HookAction, Name};
use tokio::sync::broadcast::error::RecvError;

use crate::control::Controls;
use crate::events::{Events, Reading};
use crate::store::Store;
use delivery::{Attempt, CloudEvent};
use program::Program;

/// Everything that has to do with hooks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hooks {
    pub(crate) store: Store,
    controls: Controls,
    /// Where paths of the file begin.
    base: Arc<Path>,
    events: Events,
    asking: gate::Asking,
    pub(crate) counts: Arc<Counts>,
}

impl Hooks {
    /// Hooks of the file in force.
    #[must_use]
    pub fn new(store: Store, controls: Controls, events: Events, base: PathBuf) -> Self {
        Self {
            store,
            controls,
            base: base.into(),
            events,
            asking: gate::Asking::default(),
            counts: Arc::default(),
        }
    }

    /// Takes messages to their receivers, for as long as the process runs.
    pub(crate) async fn run(self) {
        tokio::join!(self.clone().collect(), courier::run(self));
    }

    /// Puts what happens without a change into the outbox. Changes put themselves there.
    async fn collect(self) {
        let Reading { kept, mut coming } = self.events.follow(None);
        for event in kept {
            self.enqueue(&event);
        }
        loop {
            match coming.recv().await {
                Ok(event) => self.enqueue(&event),
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "events came faster than hooks could be told");
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn enqueue(&self, event: &crate::events::Event) {
        if event.revision.is_none() {
            let deliveries = outbox::of_event(&self.controls.published(), event);
            if !deliveries.is_empty() {
                self.store.enqueue(deliveries);
            }
        }
    }
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    verdict: Verdict,
    /// Status, exit code, or what went wrong.
    result: String,
    /// What was answered or printed.
    output: String,
}

/// What an attempt means for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The hook has it.
    Delivered,
    /// It may work later.
    Failed {
        /// The receiver asked for so much time.
        retry_after: Option<Duration>,
    },
    /// It will never work.
    Refused,
}

impl Outcome {
    fn failed(result: String) -> Self {
        Self {
            verdict: Verdict::Failed { retry_after: None },
            result,
            output: String::new(),
        }
    }

    fn into_attempt(self, took: Duration) -> Attempt {
        Attempt {
            at: Timestamp::now(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            delivered: self.verdict == Verdict::Delivered,
            result: self.result,
            output: self.output,
        }
    }
}

/// Does what a hook does, once.
async fn attempt(hook: &Hook, base: &Path, event: &CloudEvent) -> (Attempt, Verdict) {
    let began = Instant::now();
    let patience = hook.timeout.0;
    let outcome = match &hook.action {
        Some(HookAction::Http(http)) => request::post(http, base, event, patience).await,
        Some(HookAction::Run(run)) => {
            let program = Program::new(&run.run, &run.env, base);
            program.run(event, patience).await
        }
        None => Outcome {
            verdict: Verdict::Delivered,
            result: "nothing to do".into(),
            output: String::new(),
        },
    };
    let verdict = outcome.verdict;
    (outcome.into_attempt(began.elapsed()), verdict)
}

/// What became of messages since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    by_result: Mutex<BTreeMap<(Name, Name, &'static str), u64>>,
    waiting: AtomicUsize,
    dead: AtomicU64,
}

impl Counts {
    fn note(&self, service: &Name, hook: &Name, result: &'static str) {
        let mut counts = self
            .by_result
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *counts
            .entry((service.clone(), hook.clone(), result))
            .or_default() += 1;
    }

    fn set_waiting(&self, waiting: usize) {
        self.waiting.store(waiting, Relaxed);
    }

    pub(crate) fn set_dead(&self, dead: u64) {
        self.dead.store(dead, Relaxed);
    }

    /// Results by service, hook and result.
    pub(crate) fn by_result(&self) -> BTreeMap<(Name, Name, &'static str), u64> {
        let counts = self
            .by_result
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }

    /// Messages that are not delivered yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Messages that were given up.
    pub(crate) fn dead(&self) -> u64 {
        self.dead.load(Relaxed)
    }
}

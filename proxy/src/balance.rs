//! Which endpoint of a backend serves a request. Choosing one *is* being counted there.
//!
//! A [`Claim`] is made in the same step as the choice, so two requests never both see the same
//! endpoint as idle, and a drain waits for everybody. It is released exactly once, whatever
//! happens: when it is ended with an outcome, or when it is dropped because the client went away
//! or, for a copy, because its time was up.

use std::rc::Rc;
use std::time::{Duration, Instant};

use switchback_config::model::Balance;

use crate::mirror::Comparison;
use crate::outcome::Outcome;
use crate::view::{BackendView, EndpointView, ServiceView};
use crate::worker::Worker;

/// Why a request goes to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// By the shares of the split.
    Split,
    /// Because the backend it was meant for has no healthy endpoint. Not judged.
    Diverted,
    /// To stable, because a canary failed it. Not judged.
    Rescue,
    /// To another version, because the picked one does not have this file. Not judged, counted as previews are.
    Asset,
    /// By a tester's choice. Not judged, and counted apart.
    Preview,
    /// As a copy of a request that stable served. Counted apart, and compared with it.
    Mirror,
}

/// Being counted as in flight at one endpoint of one backend.
#[derive(Debug)]
pub(crate) struct Claim {
    worker: Rc<Worker>,
    pub(crate) service: Rc<ServiceView>,
    pub(crate) backend: usize,
    pub(crate) endpoint: Rc<EndpointView>,
    pub(crate) pick: Pick,
    claimed: Instant,
    began: bool,
    ended: bool,
    cuts: u64,
    comparison: Option<Box<Comparison>>,
}

/// Whether a backend has an endpoint that may be used.
pub(crate) fn is_available(worker: &Worker, backend: &BackendView) -> bool {
    let now = worker.uptime();
    backend
        .endpoints
        .iter()
        .any(|endpoint| is_usable(endpoint, now, backend.endpoints.len()))
}

/// Ejection never takes the last endpoint: a backend of one is used until a probe says no.
fn is_usable(endpoint: &EndpointView, now: Duration, siblings: usize) -> bool {
    let health = &endpoint.endpoint.health;
    health.probed() != crate::health::Probed::Down && (siblings == 1 || !health.is_ejected(now))
}

/// Whether a backend has an endpoint that may be used and is none of `tried`. Never one that is ejected.
pub(crate) fn has_untried(
    worker: &Worker,
    backend: &BackendView,
    tried: &[Rc<EndpointView>],
    despite_probes: bool,
) -> bool {
    let now = worker.uptime();
    let mut endpoints = backend.endpoints.iter();
    endpoints.any(|endpoint| {
        let health = &endpoint.endpoint.health;
        let probed_ok = despite_probes || health.probed() != crate::health::Probed::Down;
        probed_ok && !health.is_ejected(now) && !is_among(tried, endpoint)
    })
}

fn is_among(endpoints: &[Rc<EndpointView>], endpoint: &Rc<EndpointView>) -> bool {
    endpoints.iter().any(|one| Rc::ptr_eq(one, endpoint))
}

/// Chooses an endpoint of `backend`, none of `avoid` where there is a choice.
/// `despite_probes`: probes say that nothing works anywhere, so they are not believed.
pub(crate) fn claim(
    worker: &Rc<Worker>,
    service: &Rc<ServiceView>,
    backend: usize,
    pick: Pick,
    avoid: &[Rc<EndpointView>],
    despite_probes: bool,
) -> Option<Claim> {
    let view = &service.backends[backend];
    let endpoint = match &view.endpoints[..] {
        [only] => {
            let usable =
                despite_probes || only.endpoint.health.probed() != crate::health::Probed::Down;
            usable.then(|| only.clone())?
        }
        _ => choose(worker, view, service.service.balance, avoid, despite_probes)?,
    };
    endpoint.in_flight.set(endpoint.in_flight.get() + 1);
    Some(Claim {
        worker: worker.clone(),
        service: service.clone(),
        backend,
        endpoint,
        pick,
        claimed: worker.now(),
        began: false,
        ended: false,
        cuts: view.cuts.get(),
        comparison: None,
    })
}

fn choose(
    worker: &Worker,
    backend: &BackendView,
    balance: Balance,
    avoid: &[Rc<EndpointView>],
    despite_probes: bool,
) -> Option<Rc<EndpointView>> {
    let now = worker.uptime();
    let probed_ok = |e: &EndpointView| {
        despite_probes || e.endpoint.health.probed() != crate::health::Probed::Down
    };
    let not_ejected = |e: &EndpointView| probed_ok(e) && !e.endpoint.health.is_ejected(now);
    let not_avoided = |e: &Rc<EndpointView>| !is_among(avoid, e);
    // From the best circle of candidates to the widest; only the last resort is an ejected one.
    pick_from(worker, backend, balance, |e| {
        not_ejected(e) && not_avoided(e)
    })
    .or_else(|| pick_from(worker, backend, balance, |e| not_ejected(e)))
    .or_else(|| pick_from(worker, backend, balance, |e| probed_ok(e)))
}

fn pick_from(
    worker: &Worker,
    backend: &BackendView,
    balance: Balance,
    usable: impl Fn(&Rc<EndpointView>) -> bool,
) -> Option<Rc<EndpointView>> {
    let endpoints = &backend.endpoints;
    match balance {
        Balance::RoundRobin => {
            let turn = backend.turn.get();
            let offset = (0..endpoints.len())
                .find(|offset| usable(&endpoints[(turn + offset) % endpoints.len()]))?;
            backend.turn.set((turn + offset + 1) % endpoints.len());
            Some(endpoints[(turn + offset) % endpoints.len()].clone())
        }
        Balance::P2c => {
            let usable_count = endpoints.iter().filter(|e| usable(e)).count();
            let nth = |n: usize| endpoints.iter().filter(|e| usable(e)).nth(n);
            match usable_count {
                0 => None,
                1 => nth(0).cloned(),
                _ => {
                    let first = worker.random_index(usable_count);
                    let second = (first + 1 + worker.random_index(usable_count - 1)) % usable_count;
                    let (one, other) = (nth(first)?, nth(second)?);
                    let less_busy = if other.in_flight.get() < one.in_flight.get() {
                        other
                    } else {
                        one
                    };
                    Some(less_busy.clone())
                }
            }
        }
    }
}

impl Claim {
    pub(crate) fn view(&self) -> &Rc<BackendView> {
        &self.service.backends[self.backend]
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// When the endpoint was chosen.
    pub(crate) const fn claimed(&self) -> Instant {
        self.claimed
    }

    /// Whether the request may begin now: its backend has not been taken away since it was picked.
    /// Costs one load while nothing has changed.
    pub(crate) fn may_begin(&self) -> bool {
        let view = self.worker.view();
        let Some(current) = view.find(&self.service.service.name, self.service.place.get()) else {
            // The whole service has left the configuration; its last requests are served.
            return true;
        };
        if Rc::ptr_eq(current, &self.service) {
            return true;
        }
        let mine = &self.view().backend;
        let Some((backend, same_name)) = current.backend_named(&mine.name) else {
            return false;
        };
        let open = match self.pick {
            Pick::Preview | Pick::Asset => !current.service.blocked[backend],
            Pick::Mirror => current.service.mirrors_to(backend),
            Pick::Split | Pick::Diverted | Pick::Rescue => current.service.is_open(backend),
        };
        open && same_name.backend.version == mine.version
    }

    /// Notes that the first byte was given to the socket. Idempotent.
    pub(crate) fn begin(&mut self) {
        if !self.began {
            self.began = true;
            self.cells(|cells| cells.begun.add(1));
        }
    }

    pub(crate) const fn has_begun(&self) -> bool {
        self.began
    }

    /// Whether the backend's streams were cut since this request was picked.
    pub(crate) fn is_cut(&self) -> bool {
        self.view().cuts.get() != self.cuts
    }

    /// What is to be compared with the end of this attempt.
    pub(crate) fn compare(&mut self, comparison: Box<Comparison>) {
        self.comparison = Some(comparison);
    }

    /// Notes for a comparison that the head of the response has arrived.
    pub(crate) fn note_answer(&mut self) {
        if let Some(comparison) = &mut self.comparison {
            let now = self.worker.read_clock();
            comparison.note_answer(now.saturating_duration_since(self.claimed));
        }
    }

    /// Releases the claim.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.release(outcome);
    }

    fn release(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.endpoint
            .in_flight
            .set(self.endpoint.in_flight.get() - 1);
        let took = self.worker.now().saturating_duration_since(self.claimed);
        let began = self.began;
        self.cells(|cells| {
            if began {
                cells.ended.add(1);
            }
            if began || outcome == Outcome::Connect {
                cells.end(outcome, took);
            }
        });
        if let Some(comparison) = self.comparison.take() {
            comparison.end(&self.worker, outcome);
        }
    }

    pub(crate) fn cells(&self, count: impl FnOnce(&crate::stats::BackendCells)) {
        let stats = &self.view().backend.stats;
        count(stats.cells(self.worker.index, self.pick));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release(match self.pick {
            Pick::Split | Pick::Diverted | Pick::Rescue | Pick::Preview | Pick::Asset => {
                Outcome::ClientGone
            }
            // A copy has no client; it is dropped when its time is up.
            Pick::Mirror if self.began => Outcome::Timeout,
            Pick::Mirror => Outcome::NotSent,
        });
    }
}

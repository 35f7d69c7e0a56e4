//! One worker's side of the snapshot: what cannot be shared with other workers.
//!
//! A [`View`] mirrors a snapshot service by service and adds connection pools, places in strata and
//! in-flight counts, all in plain cells since nothing leaves the thread. When the snapshot changes,
//! the view is made anew, but every part whose counterpart did not change is taken over: a weight
//! change of one service moves pointers, closes no connection and disturbs no sampler.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::mirror::MirrorView;
use crate::pool::Pool;
use crate::rescue::Budget;
use crate::snapshot::{Backend, Endpoint, Service, Snapshot};
use crate::split::Sampler;
use crate::stopwatch::Waits;
use crate::wait::{Line, Roster};

/// A snapshot with one worker's own state.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    /// In the order of the snapshot, which is sorted by name.
    pub(crate) services: Vec<Rc<ServiceView>>,
    /// Those where it matters how long requests take.
    pub(crate) timed: Vec<Rc<ServiceView>>,
}

/// A service as one worker sees it.
#[derive(Debug)]
pub(crate) struct ServiceView {
    pub(crate) service: Arc<Service>,
    pub(crate) backends: Vec<Rc<BackendView>>,
    /// What retries and rescues may still cost; the same for as long as the service exists.
    pub(crate) budget: Rc<Budget>,
    /// What is copied, if anything is.
    pub(crate) mirror: Option<MirrorView>,
    /// Requests that wait for an answer, where it matters how long; the same for as long as it does.
    pub(crate) waits: Option<Rc<Waits>>,
    /// Where it stands in the view it was last part of.
    pub(crate) place: Cell<usize>,
    sampler: RefCell<Sampler>,
}

/// A deployed version as one worker sees it.
#[derive(Debug)]
pub(crate) struct BackendView {
    pub(crate) backend: Arc<Backend>,
    pub(crate) endpoints: Vec<Rc<EndpointView>>,
    /// Requests that wait for a connection.
    pub(crate) line: Line,
    /// This worker's open connections.
    pub(crate) open: Cell<u64>,
    /// The endpoint whose turn it is, for round robin.
    pub(crate) turn: Cell<usize>,
    /// Responses and tunnels under way, to be told when they are cut.
    pub(crate) streams: Roster,
    /// How often they were cut.
    pub(crate) cuts: Cell<u64>,
}

/// An endpoint as one worker sees it.
#[derive(Debug)]
pub(crate) struct EndpointView {
    pub(crate) endpoint: Arc<Endpoint>,
    /// This worker's requests in flight.
    pub(crate) in_flight: Cell<u32>,
    pub(crate) pool: Pool,
}

impl View {
    /// The view of a snapshot, taking over what it can from `before`.
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        before: Option<&Self>,
        now: Instant,
        random: &mut impl FnMut(u64) -> u64,
    ) -> Self {
        let services = snapshot
            .services
            .iter()
            .enumerate()
            .map(|(place, service)| {
                let view = match before.and_then(|view| view.find(&service.name, place)) {
                    Some(same) if Arc::ptr_eq(&same.service, service) => same.clone(),
                    other => Rc::new(ServiceView::new(
                        service,
                        other.map(Rc::as_ref),
                        now,
                        random,
                    )),
                };
                view.place.set(place);
                view
            });
        let services: Vec<Rc<ServiceView>> = services.collect();
        let is_timed = |view: &&Rc<ServiceView>| view.waits.is_some();
        Self {
            snapshot,
            timed: services.iter().filter(is_timed).cloned().collect(),
            services,
        }
    }

    /// A service by name; `place` is where it was, and most often still is.
    pub(crate) fn find(&self, name: &str, place: usize) -> Option<&Rc<ServiceView>> {
        match self.services.get(place) {
            Some(there) if *there.service.name == *name => Some(there),
            _ => {
                let found = self
                    .services
                    .binary_search_by(|service| (*service.service.name).cmp(name));
                found.ok().map(|place| &self.services[place])
            }
        }
    }
}

impl ServiceView {
    fn new(
        service: &Arc<Service>,
        before: Option<&Self>,
        now: Instant,
        random: &mut impl FnMut(u64) -> u64,
    ) -> Self {
        let backends = service.backends.iter().map(|backend| {
            let same_name = before.and_then(|view| view.backend_named(&backend.name));
            match same_name {
                Some((_, same)) if Arc::ptr_eq(&same.backend, backend) => same.clone(),
                other => Rc::new(BackendView::new(
                    backend,
                    other.map(|(_, view)| view.as_ref()),
                )),
            }
        });
        let sampler = match before {
            Some(view) if view.service.split == service.split => view.sampler.borrow().clone(),
            _ => Sampler::new(&service.split, random),
        };
        let mirror_before = before.and_then(|view| view.mirror.as_ref());
        Self {
            mirror: MirrorView::new(service, mirror_before, random),
            service: service.clone(),
            backends: backends.collect(),
            waits: service.slow.as_ref().map(|_| {
                let same = before.and_then(|view| view.waits.clone());
                same.unwrap_or_default()
            }),
            budget: before.map_or_else(|| Rc::new(Budget::new(now)), |view| view.budget.clone()),
            place: Cell::new(0),
            sampler: RefCell::new(sampler),
        }
    }

    /// The backend of the next request by shares; none if all weights are 0.
    pub(crate) fn next_by_share(&self, random: &mut impl FnMut(u64) -> u64) -> Option<usize> {
        self.service
            .split
            .next(&mut self.sampler.borrow_mut(), random)
    }

    /// A backend by name.
    pub(crate) fn backend_named(&self, name: &str) -> Option<(usize, &Rc<BackendView>)> {
        self.backends
            .iter()
            .enumerate()
            .find(|(_, view)| *view.backend.name == *name)
    }
}

impl BackendView {
    fn new(backend: &Arc<Backend>, before: Option<&Self>) -> Self {
        let endpoints = backend.endpoints.iter().map(|endpoint| {
            let same = before.and_then(|view| {
                view.endpoints
                    .iter()
                    .find(|e| Arc::ptr_eq(&e.endpoint, endpoint))
            });
            same.cloned().unwrap_or_else(|| {
                Rc::new(EndpointView {
                    endpoint: endpoint.clone(),
                    in_flight: Cell::new(0),
                    pool: Pool::default(),
                })
            })
        });
        Self {
            backend: backend.clone(),
            endpoints: endpoints.collect(),
            line: Line::default(),
            open: Cell::new(0),
            turn: Cell::new(0),
            streams: Roster::default(),
            cuts: Cell::new(0),
        }
    }

    /// Ends every response and tunnel under way.
    pub(crate) fn cut_streams(&self) {
        self.cuts.set(self.cuts.get() + 1);
        self.streams.wake_all();
    }
}

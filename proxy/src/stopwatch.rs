//! How long a backend keeps a request waiting: noticed the moment it is too long, not at its end.
//!
//! The time runs from the choice of the endpoint to the head of the response: connecting, waiting in
//! line, a retry on the same backend and the endpoint's own time are in it. What the client does is
//! not: while its body is awaited the time stands still, with every piece of it that is passed on it
//! begins anew, and how fast it takes the response does not matter. So streams, downloads and
//! tunnels are judged by how soon they begin.
//!
//! Requests that wait stand in one queue for each worker and service, in the order in which they
//! began to; whoever has waited too long is at its front. One look a tick finds them, without a
//! timer for each. Each request is counted once, when it turns out to be slow or when it is answered,
//! and never if its client left before. Services where time does not matter have no queue, and their
//! requests come here for one comparison.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use switchback_config::defaults::SLOW_WATCHED_MAX;

use crate::balance::{Claim, Pick};
use crate::outcome::Finding;
use crate::view::ServiceView;
use crate::worker::Worker;

/// The requests of one worker and service that wait for an answer.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    queue: RefCell<Queue<Rc<Party>>>,
}

/// Whose time it is.
#[derive(Debug)]
struct Party {
    service: Rc<ServiceView>,
    backend: usize,
    key: Option<u64>,
}

/// Invariant: entries are in the order of their times, and the first one still waits.
#[derive(Debug)]
struct Queue<T> {
    /// The number of the first entry; all with smaller ones have left.
    first: u64,
    /// None: has left from the middle.
    entries: VecDeque<Option<(Instant, T)>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            first: 0,
            entries: VecDeque::new(),
        }
    }
}

impl<T> Queue<T> {
    /// Takes the last place; there is none if too many wait.
    fn join(&mut self, since: Instant, who: T) -> Option<u64> {
        if self.entries.len() >= SLOW_WATCHED_MAX {
            return None;
        }
        let place = self.first + self.entries.len() as u64;
        self.entries.push_back(Some((since, who)));
        Some(place)
    }

    /// Gives a place back; false: [`Queue::next_since`] has taken it.
    fn leave(&mut self, place: u64) -> bool {
        let Some(index) = place.checked_sub(self.first) else {
            return false;
        };
        let entry = usize::try_from(index).ok();
        if let Some(entry) = entry.and_then(|index| self.entries.get_mut(index)) {
            *entry = None;
        }
        self.trim();
        true
    }

    /// Takes the first one out, if it began to wait before `since`.
    fn next_since(&mut self, since: Instant) -> Option<T> {
        let (began, _) = self.entries.front()?.as_ref()?;
        if *began >= since {
            return None;
        }
        let (_, who) = self.entries.pop_front()??;
        self.first += 1;
        self.trim();
        Some(who)
    }

    fn trim(&mut self) {
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

/// Counts the requests that have become slow. Called once a tick.
pub(crate) fn sweep(worker: &Worker) {
    let view = worker.view();
    for service in &view.timed {
        let limit = service.service.slow.as_ref();
        let (Some(waits), Some(limit)) = (&service.waits, limit.and_then(|slow| slow.limit.get()))
        else {
            continue;
        };
        let Some(since) = worker.now().checked_sub(limit) else {
            continue;
        };
        loop {
            let next = waits.queue.borrow_mut().next_since(since);
            let Some(party) = next else { break };
            party.count(worker, true);
        }
    }
}

impl Party {
    fn count(&self, worker: &Worker, slow: bool) {
        let service = &self.service.service;
        if let Some(cells) = service.judged.get(self.backend) {
            cells.record_time(worker.index, slow, self.key, worker.uptime());
            if slow && service.errors.slow_fails() {
                cells.record(worker.index, Finding::Failure, self.key, worker.uptime());
            }
        }
        if slow {
            let stats = &self.service.backends[self.backend].backend.stats;
            stats.cells(worker.index, Pick::Split).slow.add(1);
        }
    }
}

/// The time of one request.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    running: RefCell<Option<Running>>,
    /// Whether the request was slow somewhere: it is not counted again elsewhere.
    was_slow: Cell<bool>,
}

#[derive(Debug)]
struct Running {
    party: Rc<Party>,
    /// None: the client is waited for.
    since: Option<Instant>,
    place: Option<u64>,
}

impl Stopwatch {
    /// The request was split to this backend.
    pub(crate) fn start(&self, claim: &Claim, key: Option<u64>) {
        if claim.service.waits.is_none() || claim.pick != Pick::Split || self.was_slow.get() {
            return;
        }
        let mut running = Running {
            party: Rc::new(Party {
                service: claim.service.clone(),
                backend: claim.backend,
                key,
            }),
            since: None,
            place: None,
        };
        running.begin(claim.claimed());
        *self.running.borrow_mut() = Some(running);
    }

    /// The client is waited for.
    pub(crate) fn pause(&self) {
        if let Some(running) = &mut *self.running.borrow_mut() {
            self.leave(running);
        }
    }

    /// The client has sent a piece, and the backend is waited for.
    pub(crate) fn restart(&self, now: Instant) {
        if let Some(running) = &mut *self.running.borrow_mut() {
            self.leave(running);
            if !self.was_slow.get() {
                running.begin(now);
            }
        }
    }

    /// The backend has answered or failed. Tells whether the request was slow. Reads the clock where
    /// time matters.
    pub(crate) fn stop(&self, worker: &Worker) -> bool {
        let Some(mut running) = self.running.borrow_mut().take() else {
            return self.was_slow.get();
        };
        let took = running.since.map(|since| worker.read_clock() - since);
        self.leave(&mut running);
        let party = &running.party;
        let Some(slowness) = &party.service.service.slow else {
            return self.was_slow.get();
        };
        // While nothing is slow, that a request is not says nothing.
        if let Some(limit) = slowness.limit.get().filter(|_| !self.was_slow.get()) {
            let is_slow = took.is_some_and(|took| took > limit);
            self.was_slow.set(is_slow);
            party.count(worker, is_slow);
        }
        if let (Some(times), Some(took)) = (slowness.limit.times(), took)
            && slowness.usual == party.backend
        {
            times.record(worker.index, took);
        }
        self.was_slow.get()
    }

    /// Nothing that happens from now on says anything about the backend. Tells whether the request
    /// was slow before.
    pub(crate) fn cancel(&self) -> bool {
        if let Some(mut running) = self.running.borrow_mut().take() {
            self.leave(&mut running);
        }
        self.was_slow.get()
    }

    fn leave(&self, running: &mut Running) {
        if !running.leave() {
            self.was_slow.set(true);
        }
        running.since = None;
    }
}

impl Running {
    fn begin(&mut self, now: Instant) {
        self.since = Some(now);
        if let Some(waits) = &self.party.service.waits {
            self.place = waits.queue.borrow_mut().join(now, self.party.clone());
        }
    }

    /// False: it was slow and has been taken out.
    fn leave(&mut self) -> bool {
        match (self.place.take(), &self.party.service.waits) {
            (Some(place), Some(waits)) => waits.queue.borrow_mut().leave(place),
            _ => true,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn due(queue: &mut Queue<u64>, since: Instant) -> Vec<u64> {
        std::iter::from_fn(|| queue.next_since(since)).collect()
    }

    #[test]
    fn those_who_wait_longest_are_found_first_and_once() {
        let start = Instant::now();
        let mut queue: Queue<u64> = Queue::default();
        let places: Vec<Option<u64>> = (0..5).map(|n| queue.join(at(start, n), n)).collect();
        assert!(due(&mut queue, start).is_empty(), "nobody before the first");
        assert_eq!(due(&mut queue, at(start, 2)), [0, 1]);
        assert!(due(&mut queue, at(start, 2)).is_empty());
        let left: Vec<bool> = places
            .into_iter()
            .map(|place| queue.leave(place.expect("there is room")))
            .collect();
        assert_eq!(left, [false, false, true, true, true]);
        assert!(queue.entries.is_empty());
    }

    #[test]
    fn those_who_left_are_not_found_and_take_no_room() {
        let start = Instant::now();
        let mut queue = Queue::default();
        let places: Vec<u64> = (0..6).filter_map(|n| queue.join(at(start, n), n)).collect();
        for gone in [1, 2, 4] {
            assert!(queue.leave(places[gone]));
        }
        assert_eq!(queue.entries.len(), 6, "places in the middle are kept");
        assert!(queue.leave(places[0]));
        assert_eq!(
            queue.entries.len(),
            3,
            "those before the first who waits are not"
        );
        assert_eq!(due(&mut queue, at(start, 10)), [3, 5]);
        assert!(queue.entries.is_empty());
        let again = queue.join(at(start, 11), 7).expect("there is room");
        assert_eq!(again, 6, "numbers are not given twice");
    }

    #[test]
    fn queue_is_bounded_and_whoever_finds_no_room_is_not_in_it() {
        let start = Instant::now();
        let mut queue = Queue::default();
        for n in 0..SLOW_WATCHED_MAX as u64 {
            assert!(queue.join(start, n).is_some());
        }
        assert_eq!(queue.join(start, 0), None);
        assert!(queue.leave(0));
        assert!(queue.join(start, 0).is_some());
    }
}

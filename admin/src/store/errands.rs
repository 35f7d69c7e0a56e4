//! Small writes that nobody waits for: they must not be lost to a disk that is full for a while.
//!
//! An errand is done as soon as the disk allows, in order; one that could not be done goes before the next
//! change, so that hooks hear of things in the order in which they happened. The queue of jobs only says
//! that there are some: it may be full just when the disk does not keep up. What does not fit here is lost,
//! the oldest first. One that cannot be done though the disk can be written is given up after a while: later
//! ones must not wait forever for a row that is damaged. Either is counted, and the log says so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::database::Database;
use super::{Job, Keeper, Store};
use crate::history::AuditEntry;
use crate::hooks::delivery::Delivery;

/// Errands that may wait for the disk.
const WAITING_MAX: usize = 1_000;

/// How long an errand is tried, about once a second, while the disk takes other things.
const ATTEMPTS_TIME: Duration = Duration::from_secs(600);

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Errand {
    /// A persisted change is in force: its messages may go.
    Release(u64),
    /// A persisted change was overtaken before it was applied: it is forgotten, with its messages.
    Void(u64),
    /// Messages that belong to no change.
    Enqueue(Vec<Delivery>),
}

/// What is still to be done. Locked only to put something in or to take it out, never while the disk
/// works.
#[derive(Debug, Default)]
pub(super) struct Errands {
    waiting: Mutex<VecDeque<Errand>>,
    /// How many were done.
    done: AtomicU64,
    /// How many were given up, or pushed out.
    lost: AtomicU64,
}

/// The first errand cannot be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuck {
    /// How many were done before it.
    done: u64,
    since: Instant,
}

impl Errands {
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn add(&self, errand: Errand) {
        let mut errands = self.lock();
        if errands.len() >= WAITING_MAX {
            let lost = errands.pop_front();
            self.lost.fetch_add(1, Relaxed);
            tracing::error!(
                ?lost,
                "too much waits for the disk, hooks do not hear of this"
            );
        }
        errands.push_back(errand);
    }

    /// Does what waits, until something cannot be done.
    ///
    /// # Errors
    /// What the disk says. The database may have to be opened anew.
    pub(super) fn run(&self, database: &Database) -> Result<(), String> {
        loop {
            let Some(errand) = self.lock().pop_front() else {
                return Ok(());
            };
            let result = match &errand {
                Errand::Release(revision) => database.release(*revision),
                Errand::Void(revision) => database.void(*revision),
                Errand::Enqueue(deliveries) => database.enqueue(deliveries),
            };
            if let Err(error) = result {
                self.lock().push_front(errand);
                return Err(error);
            }
            self.done.fetch_add(1, Relaxed);
        }
    }

    fn give_up(&self, error: &str) {
        let lost = self.lock().pop_front();
        self.lost.fetch_add(1, Relaxed);
        tracing::error!(
            ?lost,
            error,
            "what hooks should hear of cannot be written down, they do not hear of this"
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Errand>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Says that a persisted change is in force: its messages go, as soon as the disk allows.
    pub(crate) fn release(&self, revision: u64) {
        self.send_on(Errand::Release(revision));
    }

    /// Forgets a revision that was persisted but overtaken before it was applied, as soon as the disk allows.
    pub(crate) fn void(&self, revision: u64) {
        self.send_on(Errand::Void(revision));
    }

    /// Puts messages into the outbox that belong to no change, as soon as the disk allows.
    pub(crate) fn enqueue(&self, deliveries: Vec<Delivery>) {
        if !deliveries.is_empty() {
            self.send_on(Errand::Enqueue(deliveries));
        }
    }

    /// How much hooks do not hear of because it could not be written down.
    pub(crate) fn lost_errands(&self) -> u64 {
        self.errands.lost.load(Relaxed)
    }

    fn send_on(&self, errand: Errand) {
        self.errands.add(errand);
        // If the queue is full, the store looks at the errands after the next job.
        let _ = self.jobs.try_send(Job::Errands);
    }
}

impl Keeper {
    /// Tells hooks what they should hear of.
    pub(super) fn run_errands(&mut self) {
        self.run_errands_at(Instant::now());
    }

    fn run_errands_at(&mut self, now: Instant) {
        while self.lent.is_none() {
            let mut done = self.errands.run(&self.database);
            if done.is_err() {
                // As in [`Keeper::write`].
                let reopened = self.database.reopen();
                done = reopened.and_then(|()| self.errands.run(&self.database));
            }
            let was_overdue = std::mem::replace(&mut self.overdue, done.is_err());
            let Err(error) = done else {
                self.stuck = None;
                self.outbox.notify_waiters();
                return;
            };
            if !was_overdue {
                tracing::warn!(%error, "what hooks should hear of waits for the disk");
            }
            if !self.is_hopeless(now) {
                return;
            }
            self.give_up_errand(error);
        }
    }

    /// Whether the first errand could not be done for long, and not because of the disk.
    fn is_hopeless(&mut self, now: Instant) -> bool {
        let done = self.errands.done.load(Relaxed);
        let same = self.stuck.filter(|stuck| stuck.done == done);
        let Stuck { since, .. } = *self
            .stuck
            .insert(same.unwrap_or(Stuck { done, since: now }));
        now.duration_since(since) >= ATTEMPTS_TIME && self.database.is_writable()
    }

    fn give_up_errand(&mut self, error: String) {
        self.stuck = None;
        self.errands.give_up(&error);
        let entry = AuditEntry {
            at: Timestamp::now(),
            by: "switchback".into(),
            via: "hooks".into(),
            action: "hook_message".into(),
            reason: Some(error),
            result: "given_up".into(),
            ..AuditEntry::default()
        };
        self.log("write the audit", |database| database.audit(&entry));
        self.outbox.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::store::outbox::tests::{message, texts};
    use crate::store::simulated::{Bench, Device};
    use crate::store::tests::{ask, commit_of};
    use crate::store::{Outgoing, database};

    #[test]
    fn errands_wait_for_the_disk_and_are_done_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let works = Arc::new(AtomicBool::new(true));
        let opener = database::opener(directory.path());
        let nowhere = database::opener(&directory.path().join("no such directory"));
        let opener = {
            let works = works.clone();
            move || {
                if works.load(Relaxed) {
                    opener()
                } else {
                    nowhere()
                }
            }
        };
        let (mut database, _) = Database::open(Box::new(opener)).expect("opened");
        let mut commit = commit_of(1);
        commit.outgoing = Outgoing {
            base: 0,
            deliveries: vec![message("held")],
        };
        database.commit(&commit).expect("persisted");
        let errands = Errands::default();
        errands.add(Errand::Release(1));
        errands.add(Errand::Enqueue(vec![message("told")]));
        works.store(false, Relaxed);
        assert!(database.reopen().is_err());
        assert!(errands.run(&database).is_err());
        assert!(errands.run(&database).is_err());
        works.store(true, Relaxed);
        database.reopen().expect("opened again");
        assert_eq!(errands.run(&database), Ok(()));
        assert!(errands.is_empty());
        drop(database);
        let (store, _) = Store::open(directory.path()).expect("opened");
        let waiting = ask(store.waiting(0)).expect("read");
        assert_eq!(texts(&waiting.fresh), ["held", "told"]);
    }

    #[test]
    fn errand_that_can_never_be_done_is_given_up_and_those_after_it_are_done() {
        let directory = tempfile::tempdir().expect("a directory");
        let device = Device::default();
        let opened = Bench::open(directory.path(), &device).expect("opened");
        let (store, mut bench, _) = opened;
        let mut commit = commit_of(1);
        commit.outgoing = Outgoing {
            base: 0,
            deliveries: vec![message("held")],
        };
        let keeper = bench.keeper();
        keeper.database.commit(&commit).expect("persisted");
        keeper.database.damage_held(1).expect("damaged");
        keeper.errands.add(Errand::Release(1));
        keeper.errands.add(Errand::Enqueue(vec![message("told")]));
        let start = Instant::now();
        keeper.run_errands_at(start);
        keeper.run_errands_at(start + ATTEMPTS_TIME.saturating_sub(Duration::from_secs(1)));
        assert_eq!((keeper.errands.lock().len(), store.lost_errands()), (2, 0));
        // As long as the disk is full, nothing else can be done either.
        device.set_full(true);
        keeper.run_errands_at(start + ATTEMPTS_TIME * 2);
        assert_eq!((keeper.errands.lock().len(), store.lost_errands()), (2, 0));
        device.set_full(false);
        keeper.run_errands_at(start + ATTEMPTS_TIME * 2);
        assert!(keeper.errands.is_empty() && !keeper.overdue);
        assert_eq!(store.lost_errands(), 1);
        let waiting = keeper.database.waiting(0).expect("read");
        assert_eq!(texts(&waiting.fresh), ["told"]);
        let audit = keeper.database.audit_entries(1).expect("read");
        assert_eq!(audit[0].entry.result, "given_up");
    }

    #[test]
    fn more_errands_than_may_wait_push_out_the_oldest() {
        let errands = Errands::default();
        for revision in 0..=1_000 {
            errands.add(Errand::Release(revision));
        }
        assert_eq!(errands.lost.load(Relaxed), 1);
        let errands = errands.lock();
        assert_eq!(errands.len(), WAITING_MAX);
        assert_eq!(errands.front(), Some(&Errand::Release(1)));
    }
}

//! Small writes that nobody waits for: they must not be lost to a disk that is full for a while.
//!
//! An errand is done as soon as the disk allows, in order; one that could not be done goes before the next
//! change, so that hooks hear of things in the order in which they happened. The queue of jobs only says
//! that there are some: it may be full just when the disk does not keep up. What does not fit here is lost,
//! the oldest first, and the log says so.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::database::Database;
use super::{Job, Store};
use crate::hooks::delivery::Delivery;

/// Errands that may wait for the disk.
const WAITING_MAX: usize = 1_000;

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
pub(super) struct Errands(Mutex<VecDeque<Errand>>);

impl Errands {
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn add(&self, errand: Errand) {
        let mut errands = self.lock();
        if errands.len() >= WAITING_MAX {
            let lost = errands.pop_front();
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
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Errand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn send_on(&self, errand: Errand) {
        self.errands.add(errand);
        // If the queue is full, the store looks at the errands after the next job.
        let _ = self.jobs.try_send(Job::Errands);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;
    use crate::store::outbox::tests::{message, texts};
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
    fn more_errands_than_may_wait_push_out_the_oldest() {
        let errands = Errands::default();
        for revision in 0..=1_000 {
            errands.add(Errand::Release(revision));
        }
        let errands = errands.lock();
        assert_eq!(errands.len(), WAITING_MAX);
        assert_eq!(errands.front(), Some(&Errand::Release(1)));
    }
}

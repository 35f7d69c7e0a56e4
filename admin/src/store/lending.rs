//! Passing the state directory to another process, and taking it back if nothing comes of it.

use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use super::{Job, Keeper, Store};

impl Store {
    /// Writes what is left to write and closes the database. Until [`Store::take_back`] nothing is read or
    /// written here; changes that are in force are kept in memory.
    ///
    /// # Errors
    /// When something in force could not be persisted: then this process must stay.
    pub(crate) async fn lend(&self) -> Result<OwnedFd, String> {
        let (reply, lock) = oneshot::channel();
        let gone = |_| "the store has stopped".to_owned();
        self.jobs
            .try_send(Job::Lend(reply))
            .map_err(|_| "the store is busy".to_owned())?;
        lock.await.map_err(gone)?
    }

    /// Takes the directory into use again, and persists what was kept. The last revision that the other
    /// process has written, if it has written anything: what it has written was never in force here.
    pub(crate) async fn take_back(&self) -> Option<u64> {
        let (told, done) = oneshot::channel();
        self.jobs.send(Job::TakeBack(told)).ok()?;
        done.await.ok()?
    }
}

impl Keeper {
    pub(super) fn lend(&mut self) -> Result<OwnedFd, String> {
        self.save_unsaved();
        self.run_errands();
        self.save_evidence();
        if !self.unsaved.is_empty() || self.overdue {
            return Err("changes in force could not be persisted yet".into());
        }
        let lock = self.lock.share().map_err(|error| error.to_string())?;
        let revision = self.database.number_in_force()?;
        self.database.close();
        self.lent = Some(revision);
        Ok(lock)
    }

    pub(super) fn take_back(&mut self) -> Option<u64> {
        let before = self.lent.take()?;
        if let Err(error) = self.lock.claim() {
            tracing::warn!(%error, "write down who holds the state directory");
        }
        if let Err(error) = self.database.reopen() {
            tracing::error!(%error, "open the state database again");
        }
        let written = self.database.number_in_force().unwrap_or(before);
        for revision in before + 1..=written {
            self.log("remove a revision of the other process", |d| {
                d.void(revision)
            });
        }
        self.save_unsaved();
        self.run_errands();
        self.outbox.notify_waiters();
        (written > before).then_some(written)
    }
}

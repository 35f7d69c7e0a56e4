//! Passing the state directory to another process, and taking it back if nothing comes of it.

use std::os::fd::OwnedFd;

use switchback_config::defaults::TAKEOVER_AUDIT_MAX;
use tokio::sync::oneshot;

use super::{Job, Keeper, Store};
use crate::history::AuditEntry;

/// What there was when another process began to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lent {
    revision: u64,
    /// The number of the next message to a hook.
    message: u64,
}

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

    /// Closes the checks that the process before has left open: of rollbacks up to a number. To be called once
    /// nobody goes on with them.
    pub(crate) async fn close_checks(&self, last: u64) {
        let closed = self.change(move |database| database.interrupt_rollbacks(last));
        if let Err(error) = closed.await {
            tracing::warn!(%error, "close the checks of earlier rollbacks");
        }
    }

    /// Takes the directory into use again, and persists what was kept. The last revision that the other
    /// process has written, if it has written anything: what it has written was never in force here.
    ///
    /// # Errors
    /// When the database cannot be used. Nothing is written then until this is tried again.
    pub(crate) async fn take_back(&self) -> Result<Option<u64>, String> {
        let (told, done) = oneshot::channel();
        let gone = |_| "the store has stopped".to_owned();
        self.jobs
            .send(Job::TakeBack(told))
            .map_err(|_| "the store is busy".to_owned())?;
        done.await.map_err(gone)?
    }
}

impl Keeper {
    pub(super) fn lend(&mut self) -> Result<OwnedFd, String> {
        if self.lent.is_some() {
            return Err("another process has the state".into());
        }
        self.catch_up();
        if !self.unsaved.is_empty() || self.overdue || self.evidence.must_wait() {
            return Err("what is in force could not be persisted yet".into());
        }
        let lock = self.lock.share().map_err(|error| error.to_string())?;
        let lent = Lent {
            revision: self.database.number_in_force()?,
            message: self.database.next_message()?,
        };
        self.database.close();
        self.lent = Some(lent);
        Ok(lock)
    }

    pub(super) fn take_back(&mut self) -> Result<Option<u64>, String> {
        let Some(before) = self.lent else {
            return Ok(None);
        };
        if let Err(error) = self.lock.claim() {
            tracing::warn!(%error, "write down who holds the state directory");
        }
        let written = self.withdraw(before);
        self.trouble.note(written.as_ref().err());
        let written = written?;
        self.lent = None;
        self.catch_up();
        for entry in std::mem::take(&mut self.unwritten) {
            self.audit(entry);
        }
        Ok((written > before.revision).then_some(written))
    }

    pub(super) fn audit(&mut self, entry: AuditEntry) {
        if self.lent.is_none() {
            self.log("write the audit", |database| database.audit(&entry));
        } else if self.unwritten.len() < TAKEOVER_AUDIT_MAX {
            self.unwritten.push(entry);
        } else {
            tracing::error!(?entry, "the audit misses this");
        }
    }

    /// Opens the database and removes what another process has written since then; its last revision.
    fn withdraw(&mut self, lent: Lent) -> Result<u64, String> {
        let before = lent.revision;
        let reopened = self.database.reopen();
        reopened.map_err(|error| format!("the state database cannot be opened again: {error}"))?;
        let written = self.database.number_in_force()?;
        if written < before {
            // Whatever this is, it is not what was lent. A restart falls back to a copy.
            self.database.close();
            return Err(format!(
                "the state database is at revision {written}, and was at {before}"
            ));
        }
        for revision in before + 1..=written {
            self.database.void(revision)?;
        }
        self.database.forget_after(before, lent.message)?;
        Ok(written)
    }
}

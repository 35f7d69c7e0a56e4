//! Looks at what is kept of the past: they wait for their turn at the disk, but not for one that hangs.

use std::time::Duration;

use switchback_config::defaults::STORE_READ_TIME;
use tokio::sync::oneshot;

use super::database::Database;
use super::{Job, Store};
use crate::history::past::Record;
use crate::history::{AuditCheck, AuditRow, Revision};

impl Store {
    /// The last `limit` revisions below `below`, newest first; those of one service if it is named.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub async fn revisions(
        &self,
        service: Option<String>,
        below: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Revision>, String> {
        self.read(move |database| database.revisions(service.as_deref(), below, limit))
            .await
    }

    /// Everything that is kept of the past.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub async fn record(&self) -> Result<Record, String> {
        self.read(Database::record).await
    }

    /// One revision.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub async fn revision(&self, number: u64) -> Result<Option<Revision>, String> {
        self.read(move |database| database.revision(number)).await
    }

    /// The last `limit` audit entries, newest first.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub async fn audit_entries(&self, limit: usize) -> Result<Vec<AuditRow>, String> {
        self.read(move |database| database.audit_entries(limit))
            .await
    }

    /// Whether the audit is what was written.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub async fn check_audit(&self) -> Result<AuditCheck, String> {
        self.read(Database::check_audit).await
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        self.read_within(STORE_READ_TIME, read).await
    }

    pub(super) async fn read_within<T: Send + 'static>(
        &self,
        patience: Duration,
        read: impl FnOnce(&Database) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (sender, answer) = oneshot::channel();
        let job = Job::Read(Box::new(move |database| {
            // Nobody waits any more: what comes behind it need not, either.
            if sender.is_closed() {
                return;
            }
            let _ = sender.send(read(database));
        }));
        self.jobs
            .try_send(job)
            .map_err(|_| "the store is busy".to_owned())?;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err("the store has stopped".to_owned()),
            Err(_) => Err(format!("the disk has not answered for {patience:?}")),
        }
    }
}

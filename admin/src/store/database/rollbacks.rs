//! The tables of rollbacks: records, and their summaries, which are all that a list has to read.

use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition, WriteTransaction};
use switchback_config::defaults::{ROLLBACK_BYTES_MAX, ROLLBACKS_KEPT};

use super::{Database, seal, text, unseal};
use crate::evidence::{Amendment, Record, RecoveryState, Summary};

/// Records by number.
const ROLLBACKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rollbacks");
/// Their summaries.
const SUMMARIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rollback_summaries");

/// What is said of a check that a former process did not finish.
const RESTARTED: &str = "switchback was restarted before this was known";

impl Database {
    /// Writes a record, and drops the oldest beyond those that are kept.
    pub(in crate::store) fn save_rollback(&self, record: &Record) -> Result<(), String> {
        self.write(|write| put(write, record))
    }

    /// Adds to a record, if it is still there.
    pub(in crate::store) fn amend_rollback(
        &self,
        id: u64,
        amendment: &Amendment,
    ) -> Result<bool, String> {
        let Some(mut record) = self.rollback(id)? else {
            return Ok(false);
        };
        record.amend(amendment.clone());
        self.write(|write| put(write, &record))?;
        Ok(true)
    }

    /// Closes the checks that a former process has left open, of rollbacks up to a number.
    pub(in crate::store) fn interrupt_rollbacks(&self, last: u64) -> Result<(), String> {
        let pending = |summary: &Summary| summary.recovery == RecoveryState::Pending;
        let below = last.checked_add(1);
        let summaries = self.rollbacks(None, below, usize::MAX)?;
        for summary in summaries.iter().filter(|summary| pending(summary)) {
            if let Some(mut record) = self.rollback(summary.id)? {
                record.recovery = record.recovery.interrupted(RESTARTED);
                self.write(|write| put(write, &record))?;
            }
        }
        Ok(())
    }

    pub(in crate::store) fn rollbacks(
        &self,
        service: Option<&str>,
        below: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Summary>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(SUMMARIES) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for row in table
            .range(..below.unwrap_or(u64::MAX))
            .map_err(text)?
            .rev()
        {
            let summary: Summary = unseal(row.map_err(text)?.1.value())?;
            if service.is_none_or(|service| *summary.service == *service) {
                found.push(summary);
            }
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    pub(in crate::store) fn rollback(&self, id: u64) -> Result<Option<Record>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(ROLLBACKS) else {
            return Ok(None);
        };
        let row = table.get(id).map_err(text)?;
        row.map(|row| unseal(row.value())).transpose()
    }
}

/// Forgets what is recorded of rollbacks after a revision.
pub(super) fn forget_after(write: &WriteTransaction, revision: u64) -> Result<(), String> {
    let mut records = write.open_table(ROLLBACKS).map_err(text)?;
    let mut summaries = write.open_table(SUMMARIES).map_err(text)?;
    let after = revision.saturating_add(1)..;
    records
        .retain_in(after.clone(), |_, _| false)
        .map_err(text)?;
    summaries.retain_in(after, |_, _| false).map_err(text)
}

fn put(write: &WriteTransaction, record: &Record) -> Result<(), String> {
    let mut row = seal(record)?;
    if row.len() > ROLLBACK_BYTES_MAX {
        row = seal(&without_tapes(record))?;
    }
    let mut records = write.open_table(ROLLBACKS).map_err(text)?;
    let mut summaries = write.open_table(SUMMARIES).map_err(text)?;
    records.insert(record.id, &row[..]).map_err(text)?;
    summaries
        .insert(record.id, &seal(&record.summary())?[..])
        .map_err(text)?;
    while summaries.len().map_err(text)? > ROLLBACKS_KEPT {
        let oldest = summaries.pop_first().map_err(text)?;
        if let Some((id, _)) = oldest {
            records.remove(id.value()).map_err(text)?;
        }
    }
    Ok(())
}

/// A record that is too large without its recordings, which are most of it.
fn without_tapes(record: &Record) -> Record {
    let mut record = record.clone();
    for version in &mut record.versions {
        version
            .judges
            .iter_mut()
            .for_each(|judge| judge.tape = None);
        if let Some(rule) = &mut version.rule {
            rule.tape = None;
        }
    }
    record
}

//! The audit: rows in order, each bound to the one before it by a hash.
//!
//! The hash of a row covers its number, its bytes and the hash of the row before. Whoever changes,
//! removes, adds or reorders rows has to make all hashes after them anew, up to the last one, which is
//! noted twice: here, and in the log as it is made. So a check finds what was done to single rows and
//! names the first one that is wrong; and a copy of any hash that was kept elsewhere proves all rows
//! up to it.
//!
//! Old rows are dropped. What is left begins at an anchor, the hash of the last row that was dropped.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Database, META, seal, text, unseal};
use crate::auth::hex;
use crate::history::{AuditCheck, AuditEntry, AuditFault, AuditRow};

/// Audit entries in order.
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// The hash of each.
const CHAIN: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit_chain");

/// Rows of [`META`]: the row before the first one that is kept, and the last one.
const ANCHOR: &str = "audit_anchor";
const HEAD: &str = "audit_head";

/// Audit entries kept.
const AUDIT_KEPT: u64 = 10_000;

type Hash = [u8; 32];

/// A row and its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    number: u64,
    hash: Hash,
}

impl Link {
    /// Says in the log what was written, once it is.
    pub(super) fn tell(&self, entry: &AuditEntry) {
        let AuditEntry {
            by, action, result, ..
        } = entry;
        let hash = hex(&self.hash);
        tracing::info!(number = self.number, %hash, %by, %action, %result, "audit");
    }

    /// The link of the row after this one.
    fn next(&self, row: &[u8]) -> Self {
        let number = self.number + 1;
        let mut digest = Sha256::new();
        digest.update(self.hash);
        digest.update(number.to_be_bytes());
        digest.update(row);
        Self {
            number,
            hash: digest.finalize().into(),
        }
    }
}

/// Adds an entry in a transaction.
pub(super) fn append(write: &WriteTransaction, entry: &AuditEntry) -> Result<Link, String> {
    let mut meta = write.open_table(META).map_err(text)?;
    let mut rows = write.open_table(AUDIT).map_err(text)?;
    let mut chain = write.open_table(CHAIN).map_err(text)?;
    let noted = |name: &str| -> Result<Option<Link>, String> {
        let row = meta.get(name).map_err(text)?;
        row.map(|row| unseal(row.value())).transpose()
    };
    let head = match noted(HEAD)? {
        Some(head) => head,
        // Rows from before there was a chain are not covered by it.
        None => {
            let last = rows.last().map_err(text)?;
            let number = last.map_or(0, |(number, _)| number.value());
            Link {
                number,
                hash: [0; 32],
            }
        }
    };
    let is_first = noted(ANCHOR)?.is_none();
    let row = seal(entry)?;
    let link = head.next(&row);
    rows.insert(link.number, &row[..]).map_err(text)?;
    chain.insert(link.number, &link.hash[..]).map_err(text)?;
    meta.insert(HEAD, &seal(&link)?[..]).map_err(text)?;
    if is_first {
        meta.insert(ANCHOR, &seal(&head)?[..]).map_err(text)?;
    }
    let dropped = link.number.saturating_sub(AUDIT_KEPT);
    let hash = chain.get(dropped).map_err(text)?;
    let hash = hash.and_then(|hash| Hash::try_from(hash.value()).ok());
    if let Some(hash) = hash {
        let anchor = Link {
            number: dropped,
            hash,
        };
        meta.insert(ANCHOR, &seal(&anchor)?[..]).map_err(text)?;
    }
    rows.retain_in(..=dropped, |_, _| false).map_err(text)?;
    chain.retain_in(..=dropped, |_, _| false).map_err(text)?;
    Ok(link)
}

impl Database {
    /// The last `limit` entries, newest first.
    pub(in crate::store) fn audit_entries(&self, limit: usize) -> Result<Vec<AuditRow>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(AUDIT) else {
            return Ok(Vec::new());
        };
        let rows = table.iter().map_err(text)?.rev().take(limit);
        rows.map(|row| {
            let (number, row) = row.map_err(text)?;
            let entry = unseal(row.value())
                .map_err(|error| format!("audit entry {}: {error}", number.value()))?;
            let number = number.value();
            Ok(AuditRow { number, entry })
        })
        .collect()
    }

    /// Whether the rows are those that were written.
    pub(in crate::store) fn check_audit(&self) -> Result<AuditCheck, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(meta) = read.open_table(META) else {
            return Ok(AuditCheck::default());
        };
        let noted = |name: &str| -> Result<Option<Link>, String> {
            let row = meta.get(name).map_err(text)?;
            row.map(|row| unseal(row.value())).transpose()
        };
        let (anchor, head) = (noted(ANCHOR)?, noted(HEAD)?);
        let (Some(anchor), Some(head)) = (anchor, head) else {
            return Ok(AuditCheck::default());
        };
        let rows = read.open_table(AUDIT).map_err(text)?;
        let chain = read.open_table(CHAIN).map_err(text)?;
        let mut check = AuditCheck {
            first: Some(anchor.number + 1),
            last: Some(head.number),
            hash: Some(hex(&head.hash)),
            ..AuditCheck::default()
        };
        let mut link = anchor;
        while link.number < head.number {
            let number = link.number + 1;
            let row = rows.get(number).map_err(text)?;
            let hash = chain.get(number).map_err(text)?;
            let (Some(row), Some(hash)) = (row, hash) else {
                check.fault = Some(AuditFault::new(number, "it is missing"));
                return Ok(check);
            };
            link = link.next(row.value());
            if unseal::<AuditEntry>(row.value()).is_err() || link.hash != hash.value() {
                check.fault = Some(AuditFault::new(
                    number,
                    "it, or one before it, is not what was written",
                ));
                return Ok(check);
            }
            check.entries += 1;
        }
        let after = rows.range(head.number + 1..).map_err(text)?.next();
        if let Some(row) = after {
            let number = row.map_err(text)?.0.value();
            check.fault = Some(AuditFault::new(number, "nobody has written it"));
        } else if link != head {
            check.fault = Some(AuditFault::new(
                head.number,
                "it is not the one that was noted as the last",
            ));
        }
        Ok(check)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use redb::{ReadableTableMetadata, Table};

    use super::*;

    fn entry(number: u64) -> AuditEntry {
        AuditEntry {
            at: Timestamp::UNIX_EPOCH,
            by: "ops".into(),
            via: "api".into(),
            action: "weights".into(),
            service: Some("shop".into()),
            reason: Some(format!("number {number}")),
            result: "done".into(),
            revision: Some(number),
            ..AuditEntry::default()
        }
    }

    fn filled(count: u64) -> (tempfile::TempDir, Database) {
        let directory = tempfile::tempdir().expect("directory");
        let (mut database, _) =
            Database::open(super::super::opener(directory.path())).expect("opened");
        for number in 1..=count {
            database.audit(&entry(number)).expect("written");
        }
        (directory, database)
    }

    /// What a check says after somebody has worked on the rows.
    fn fault_after(
        tamper: impl FnOnce(&mut Table<'_, u64, &'static [u8]>),
    ) -> Option<(u64, String)> {
        let (_directory, database) = filled(20);
        let tampered = database.write(|write| {
            let mut rows = write.open_table(AUDIT).map_err(text)?;
            tamper(&mut rows);
            Ok(())
        });
        tampered.expect("written");
        let fault = database.check_audit().expect("checked").fault;
        fault.map(|fault| (fault.number, fault.reason))
    }

    fn put(rows: &mut Table<'_, u64, &'static [u8]>, number: u64, entry: &AuditEntry) {
        let row = seal(entry).expect("sealed");
        rows.insert(number, &row[..]).expect("inserted");
    }

    #[test]
    fn untouched_audit_holds() {
        let (_directory, database) = filled(20);
        let check = database.check_audit().expect("checked");
        assert_eq!(
            (check.entries, check.first, check.last, check.fault),
            (20, Some(1), Some(20), None)
        );
        assert_eq!(filled(0).1.check_audit(), Ok(AuditCheck::default()));
    }

    #[test]
    fn whatever_is_done_to_a_row_is_found_and_the_row_named() {
        let changed = "it, or one before it, is not what was written";
        for number in [1, 7, 20] {
            let found = fault_after(|rows| put(rows, number, &entry(99)));
            assert_eq!(found, Some((number, changed.into())), "changed");
            let found = fault_after(|rows| {
                rows.remove(number).expect("removed");
            });
            assert_eq!(found, Some((number, "it is missing".into())), "removed");
            let found = fault_after(|rows| {
                rows.insert(number, &b"rubbish"[..]).expect("inserted");
            });
            assert_eq!(found, Some((number, changed.into())), "overwritten");
        }
        let swapped = fault_after(|rows| {
            put(rows, 7, &entry(8));
            put(rows, 8, &entry(7));
        });
        assert_eq!(swapped, Some((7, changed.into())));
        let added = fault_after(|rows| put(rows, 21, &entry(21)));
        assert_eq!(added, Some((21, "nobody has written it".into())));
    }

    #[test]
    fn chain_that_was_made_anew_for_some_rows_does_not_fit_the_next() {
        let (_directory, database) = filled(20);
        let tampered = database.write(|write| {
            let mut rows = write.open_table(AUDIT).map_err(text)?;
            let mut chain = write.open_table(CHAIN).map_err(text)?;
            let before = Hash::try_from(chain.get(6).map_err(text)?.expect("there").value());
            let before = Link {
                number: 6,
                hash: before.expect("a hash"),
            };
            let row = seal(&entry(99))?;
            rows.insert(7, &row[..]).map_err(text)?;
            chain.insert(7, &before.next(&row).hash[..]).map_err(text)?;
            Ok(())
        });
        tampered.expect("written");
        let fault = database.check_audit().expect("checked").fault;
        assert_eq!(fault.map(|fault| fault.number), Some(8));
    }

    #[test]
    fn audit_that_was_cut_off_at_its_end_does_not_hold() {
        let (_directory, database) = filled(20);
        let tampered = database.write(|write| {
            for table in [AUDIT, CHAIN] {
                let mut rows = write.open_table(table).map_err(text)?;
                rows.retain_in(18.., |_, _| false).map_err(text)?;
            }
            Ok(())
        });
        tampered.expect("written");
        let fault = database.check_audit().expect("checked").fault;
        assert_eq!(fault.map(|fault| fault.number), Some(18));
    }

    #[test]
    fn old_rows_are_dropped_and_the_rest_still_holds() {
        let (_directory, mut database) = filled(0);
        let many = database.write(|write| {
            (1..=AUDIT_KEPT + 5).try_for_each(|number| append(write, &entry(number)).map(drop))
        });
        many.expect("written");
        database.audit(&entry(0)).expect("written");
        let check = database.check_audit().expect("checked");
        assert_eq!(
            (check.entries, check.first, check.fault),
            (AUDIT_KEPT, Some(7), None)
        );
        let read = database
            .open_one()
            .expect("open")
            .begin_read()
            .expect("read");
        let rows = read.open_table(AUDIT).expect("table");
        assert_eq!(rows.len().expect("length"), AUDIT_KEPT);
    }
}

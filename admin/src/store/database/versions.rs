//! The last versions of each service, and the revisions that show them: these are kept however old
//! they are, so that it is always possible to go back to one.
//!
//! The version that served before the first recorded change is shown by that change, as what was in
//! force before it.

use std::collections::BTreeSet;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use switchback_config::defaults::VERSIONS_KEPT;

use super::{seal, text, unseal};
use crate::history::{Change, Revision, Settled};

/// The last stable versions of each service, newest first, with the revision that shows each.
const VERSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("versions");

/// A version and the revision that shows it.
type Shown = (String, u64);

/// Notes which versions a revision shows; the revisions to keep.
pub(super) fn note(write: &WriteTransaction, revision: &Revision) -> Result<BTreeSet<u64>, String> {
    let mut table = write.open_table(VERSIONS).map_err(text)?;
    for (name, change) in &revision.changes {
        let mut versions: Vec<Shown> = read(&table, name)?;
        let (before, after) = shown(change);
        if let Some(before) = before.filter(|before| versions.iter().all(|(v, _)| v != before)) {
            versions.insert(0, (before.to_owned(), revision.revision));
        }
        if let Some(after) = after {
            versions.retain(|(version, _)| version != after);
            versions.insert(0, (after.to_owned(), revision.revision));
        }
        versions.truncate(VERSIONS_KEPT);
        table
            .insert(&name[..], &seal(&versions)?[..])
            .map_err(text)?;
    }
    let mut wanted = BTreeSet::new();
    for row in table.iter().map_err(text)? {
        let versions: Vec<Shown> = unseal(row.map_err(text)?.1.value())?;
        wanted.extend(versions.into_iter().map(|(_, revision)| revision));
    }
    Ok(wanted)
}

/// A revision that was never in force shows nothing; an earlier one may.
pub(super) fn forget(
    write: &WriteTransaction,
    revisions: &Table<'_, u64, &'static [u8]>,
    gone: &Revision,
) -> Result<(), String> {
    let mut table = write.open_table(VERSIONS).map_err(text)?;
    for name in gone.changes.keys() {
        let mut versions: Vec<Shown> = Vec::new();
        for (version, number) in read(&table, name)? {
            let number = match number == gone.revision {
                true => latest(revisions, name, &version)?,
                false => Some(number),
            };
            versions.extend(number.map(|number| (version, number)));
        }
        table
            .insert(&name[..], &seal(&versions)?[..])
            .map_err(text)?;
    }
    Ok(())
}

/// The latest revision that shows a version of a service.
fn latest(
    revisions: &Table<'_, u64, &'static [u8]>,
    name: &str,
    version: &str,
) -> Result<Option<u64>, String> {
    for row in revisions.iter().map_err(text)?.rev() {
        let revision: Revision = unseal(row.map_err(text)?.1.value())?;
        if let Some(change) = revision.changes.get(name) {
            let (before, after) = shown(change);
            if before == Some(version) || after == Some(version) {
                return Ok(Some(revision.revision));
            }
        }
    }
    Ok(None)
}

fn read(table: &Table<'_, &'static str, &'static [u8]>, name: &str) -> Result<Vec<Shown>, String> {
    match table.get(name).map_err(text)? {
        Some(row) => unseal(row.value()),
        None => Ok(Vec::new()),
    }
}

/// The stable versions before and after a change.
fn shown(change: &Change) -> (Option<&str>, Option<&str>) {
    (
        stable_of(change.in_force_before.as_ref()),
        stable_of(change.in_force_after.as_ref()),
    )
}

fn stable_of(settled: Option<&Settled>) -> Option<&str> {
    let settled = settled?;
    let backend = settled.backends.get(&settled.stable)?;
    Some(&backend.version)
}

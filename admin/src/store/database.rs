//! The embedded database: tables and their rows. Each row carries a checksum of its own, since a
//! database only knows that its pages fit together.

mod audit;
mod observed;
mod rollbacks;
mod versions;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use redb::{
    AccessGuard, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use switchback_config::model::Name;

use super::look::Flaw;
use super::{Commit, outbox, seal, unseal};
use crate::history::past::Record;
use crate::history::{AuditEntry, Revision};
use crate::state::{ServiceState, State};

const FILE: &str = "state.redb";

/// `format`, `revision`, `stable_only`, `commits`, `complete_from`, `shared`, `unshared`.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// State by service.
const SERVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("services");
/// State by flag.
const FLAGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("flags");
/// Revisions by number.
const REVISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("revisions");

/// Row of [`META`]: the number from which on no revision was dropped.
const COMPLETE_FROM: &str = "complete_from";

/// Row of [`META`]: how often the state was written. A copy of the state that has seen more of this is
/// newer than the database.
const COMMITS: &str = "commits";

/// Row of [`META`]: the last change of the cluster that is in the state.
const SHARED: &str = "shared";

/// Row of [`META`]: what the cluster does not know yet.
const UNSHARED: &str = "unshared";

/// The layout of the rows. A database with another one is not guessed at.
const FORMAT: u32 = 1;

/// Opens what a database lies in, or makes it.
pub(super) type Opener = Box<dyn Fn() -> Result<redb::Database, redb::DatabaseError> + Send>;

/// A database could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// What is in it is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// Nothing says that anything is wrong with it.
    #[error("{0}")]
    Unusable(String),
}

impl From<redb::DatabaseError> for OpenError {
    fn from(error: redb::DatabaseError) -> Self {
        use redb::{DatabaseError, StorageError};
        let is_damaged = match &error {
            // Files of other versions were never written here: a bit has flipped.
            DatabaseError::UpgradeRequired(_)
            | DatabaseError::RepairAborted
            | DatabaseError::Storage(StorageError::Corrupted(_)) => true,
            DatabaseError::Storage(StorageError::Io(error)) => matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof
            ),
            _ => false,
        };
        match is_damaged {
            true => Self::Damaged(error.to_string()),
            false => Self::Unusable(error.to_string()),
        }
    }
}

/// An open database, unless opening it anew has failed.
pub(crate) struct Database {
    open: Option<redb::Database>,
    opener: Opener,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("open", &self.open.is_some())
            .finish_non_exhaustive()
    }
}

/// What opens the database of a directory.
pub(super) fn opener(directory: &Path) -> Opener {
    let path = directory.join(FILE);
    Box::new(move || {
        // Without the check, the library trusts what it reads, and may panic.
        redb::Builder::new()
            .set_check_integrity_on_open(true)
            .create(&path)
    })
}

/// How every database begins.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Whether the file is there and begins like a database. The rest of it is checked when it is opened.
pub(super) fn look(directory: &Path) -> Result<(), Flaw> {
    let mut start = [0; MAGIC.len()];
    let read = std::fs::File::open(directory.join(FILE)).and_then(|mut f| f.read_exact(&mut start));
    read.map_err(|error| Flaw::of(FILE, &error))?;
    match start == MAGIC {
        true => Ok(()),
        false => Err(Flaw::Seen(format!("{FILE} is damaged"))),
    }
}

/// Moves a database that cannot be used out of the way, for somebody to look at.
pub(super) fn set_aside(directory: &Path) -> std::io::Result<()> {
    let aside = directory.join(format!("{FILE}.damaged"));
    match std::fs::rename(directory.join(FILE), aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Database {
    /// Opens or makes the database, and reads the state if one was recorded.
    pub(super) fn open(opener: Opener) -> Result<(Self, Option<State>), OpenError> {
        let open = Some(opener()?);
        let database = Self { open, opener };
        database.require_format().map_err(OpenError::Unusable)?;
        let state = database.state().map_err(OpenError::Damaged)?;
        Ok((database, state))
    }

    pub(super) fn reopen(&mut self) -> Result<(), String> {
        self.open = None;
        self.open = Some((self.opener)().map_err(text)?);
        Ok(())
    }

    /// Closes it until it is opened anew.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    pub(super) fn open_one(&self) -> Result<&redb::Database, String> {
        self.open
            .as_ref()
            .ok_or_else(|| "the database is closed after an error".into())
    }

    /// The revision of the recorded state; 0 if there is none.
    pub(super) fn number_in_force(&self) -> Result<u64, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(meta) = read.open_table(META) else {
            return Ok(0);
        };
        count(meta.get("revision").map_err(text)?)
    }

    /// Requires that the rows are laid out as they are here. Whatever else is wrong is found later.
    fn require_format(&self) -> Result<(), String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let meta = read.open_table(META).ok();
        let format = meta.and_then(|meta| meta.get("format").ok().flatten());
        match format.and_then(|format| unseal::<u32>(format.value()).ok()) {
            Some(FORMAT) | None => Ok(()),
            Some(_) => Err("the database was written by a newer version".into()),
        }
    }

    fn state(&self) -> Result<Option<State>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(meta) = read.open_table(META) else {
            return Ok(None);
        };
        if meta.get("format").map_err(text)?.is_none() {
            return Ok(None);
        }
        let field = |name: &str| -> Result<Option<Vec<u8>>, String> {
            Ok(meta
                .get(name)
                .map_err(text)?
                .map(|row| row.value().to_vec()))
        };
        let revision = field("revision")?.ok_or("the revision is missing")?;
        let stable_only = field("stable_only")?.ok_or("a field is missing")?;
        let shared = field(SHARED)?.map(|row| unseal(&row)).transpose()?;
        let unshared = field(UNSHARED)?.map(|row| unseal(&row)).transpose()?;
        let mut state = State {
            revision: unseal(&revision)?,
            stable_only: unseal(&stable_only)?,
            shared,
            unshared: unshared.unwrap_or_default(),
            ..State::default()
        };
        let services = read.open_table(SERVICES).map_err(text)?;
        for row in services.iter().map_err(text)? {
            let (name, service) = row.map_err(text)?;
            let service: ServiceState = unseal(service.value())?;
            state.services.insert(name.value().into(), service);
        }
        // Databases from before there were flags have no such table.
        if let Ok(flags) = read.open_table(FLAGS) {
            for row in flags.iter().map_err(text)? {
                let (name, flag) = row.map_err(text)?;
                let known = Arc::make_mut(&mut state.flags);
                known.insert(name.value().into(), unseal(flag.value())?);
            }
        }
        Ok(Some(state))
    }

    /// Whether something can be written.
    pub(super) fn is_writable(&self) -> bool {
        let written = self.write(|write| {
            let mut meta = write.open_table(META).map_err(text)?;
            meta.insert("probe", &[0; 64][..]).map_err(text)?;
            meta.remove("probe").map_err(text)?;
            Ok(())
        });
        written.is_ok()
    }

    /// How often the state was written.
    pub(super) fn commits(&self) -> Result<u64, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(meta) = read.open_table(META) else {
            return Ok(0);
        };
        count(meta.get(COMMITS).map_err(text)?)
    }

    /// Writes a change; how often the state was written by now.
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<u64, String> {
        let (commits, link) = self.write(|write| {
            let commits;
            {
                let mut meta = write.open_table(META).map_err(text)?;
                let rows = [
                    ("format", seal(&FORMAT)?),
                    ("revision", seal(&commit.state.revision)?),
                    ("stable_only", seal(&commit.state.stable_only)?),
                ];
                for (name, row) in rows {
                    meta.insert(name, &row[..]).map_err(text)?;
                }
                commits = count(meta.get(COMMITS).map_err(text)?)? + 1;
                meta.insert(COMMITS, &seal(&commits)?[..]).map_err(text)?;
                write_cluster(&mut meta, &commit.state)?;
                drop(meta);
                // The whole state: a commit that could not be written before is covered by this one.
                write_rows(write, SERVICES, &commit.state.services)?;
                write_rows(write, FLAGS, &commit.state.flags)?;
            }
            if let Some(revision) = &commit.revision {
                let mut revisions = write.open_table(REVISIONS).map_err(text)?;
                revisions
                    .insert(revision.revision, &seal(revision)?[..])
                    .map_err(text)?;
                let kept = u64::from(commit.revisions_kept.get());
                let oldest = revision.revision.saturating_sub(kept - 1);
                let wanted = versions::note(write, revision)?;
                revisions
                    .retain_in(..oldest, |number, _| wanted.contains(&number))
                    .map_err(text)?;
                note_complete_from(write, oldest)?;
            }
            let (number, in_force) = (commit.state.revision, commit.keep_trying);
            outbox::commit(write, number, &commit.outgoing, in_force)?;
            let entry = commit.audit.as_ref();
            let link = entry.map(|entry| audit::append(write, entry)).transpose()?;
            Ok((commits, link))
        })?;
        if let (Some(link), Some(entry)) = (link, &commit.audit) {
            link.tell(entry);
        }
        Ok(commits)
    }

    pub(super) fn void(&self, revision: u64) -> Result<(), String> {
        self.write(|write| {
            let mut revisions = write.open_table(REVISIONS).map_err(text)?;
            let gone = revisions.remove(revision).map_err(text)?;
            let gone: Option<Revision> = gone.map(|row| unseal(row.value())).transpose()?;
            if let Some(gone) = gone {
                versions::forget(write, &revisions, &gone)?;
            }
            outbox::void(write, revision)
        })
    }

    /// Forgets what another process has written for others to hear and read of since then: none of it was
    /// ever in force where requests were served.
    pub(super) fn forget_after(&self, revision: u64, message: u64) -> Result<(), String> {
        self.write(|write| {
            rollbacks::forget_after(write, revision)?;
            outbox::forget_from(write, message)
        })
    }

    pub(super) fn audit(&mut self, entry: &AuditEntry) -> Result<(), String> {
        let link = self.write(|write| audit::append(write, entry))?;
        link.tell(entry);
        Ok(())
    }

    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, String>,
    ) -> Result<T, String> {
        let write = self.open_one()?.begin_write().map_err(text)?;
        let done = work(&write)?;
        write.commit().map_err(text)?;
        Ok(done)
    }

    /// The history before this revision was lost together with an earlier database, which had written
    /// the state so often.
    pub(super) fn begin_at(&mut self, revision: u64, commits: u64) -> Result<(), String> {
        self.write(|write| {
            let mut meta = write.open_table(META).map_err(text)?;
            meta.insert(COMMITS, &seal(&commits)?[..]).map_err(text)?;
            drop(meta);
            note_complete_from(write, revision)
        })
    }

    /// The last `limit` revisions below `below`, those of one service if it is named.
    pub(super) fn revisions(
        &self,
        service: Option<&str>,
        below: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Revision>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(REVISIONS) else {
            return Ok(Vec::new());
        };
        let rows = table.range(..below.unwrap_or(u64::MAX)).map_err(text)?;
        let revisions = rows
            .rev()
            .map(|row| unseal::<Revision>(row.map_err(text)?.1.value()));
        let concerns = |revision: &Result<Revision, String>| match (revision, service) {
            (Ok(revision), Some(service)) => revision.changes.contains_key(service),
            _ => true,
        };
        revisions.filter(concerns).take(limit).collect()
    }

    /// Everything that is kept.
    pub(super) fn record(&self) -> Result<Record, String> {
        let revisions = self.revisions(None, None, usize::MAX)?;
        let read = self.open_one()?.begin_read().map_err(text)?;
        let complete_from = match read.open_table(META) {
            Ok(meta) => meta.get(COMPLETE_FROM).map_err(text)?,
            Err(_) => None,
        };
        let complete_from = complete_from.map(|row| unseal(row.value())).transpose()?;
        Ok(Record {
            revisions,
            complete_from: complete_from.unwrap_or(0),
        })
    }

    pub(super) fn revision(&self, number: u64) -> Result<Option<Revision>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(REVISIONS) else {
            return Ok(None);
        };
        let row = table.get(number).map_err(text)?;
        row.map(|row| unseal(row.value())).transpose()
    }
}

/// Makes a table hold exactly these rows: nothing stays of a change that was taken back.
fn write_rows<T: Serialize>(
    write: &WriteTransaction,
    table: TableDefinition<'_, &'static str, &'static [u8]>,
    rows: &BTreeMap<Name, T>,
) -> Result<(), String> {
    let mut table = write.open_table(table).map_err(text)?;
    for (name, value) in rows {
        let row = seal(value)?;
        let old = table.get(&name[..]).map_err(text)?;
        if old.is_none_or(|old| old.value() != row) {
            table.insert(&name[..], &row[..]).map_err(text)?;
        }
    }
    let kept = |name: &str| rows.contains_key(name);
    table.retain(|name, _| kept(name)).map_err(text)
}

/// Where the state stands between the cluster and this instance.
fn write_cluster(
    meta: &mut Table<'_, &'static str, &'static [u8]>,
    state: &State,
) -> Result<(), String> {
    match &state.shared {
        Some(shared) => drop(meta.insert(SHARED, &seal(shared)?[..]).map_err(text)?),
        None => drop(meta.remove(SHARED).map_err(text)?),
    }
    match state.unshared.is_empty() {
        false => drop(
            meta.insert(UNSHARED, &seal(&state.unshared)?[..])
                .map_err(text)?,
        ),
        true => drop(meta.remove(UNSHARED).map_err(text)?),
    }
    Ok(())
}

fn count(row: Option<AccessGuard<'_, &[u8]>>) -> Result<u64, String> {
    row.map_or(Ok(0), |row| unseal(row.value()))
}

/// Notes from which number on no revision is missing.
fn note_complete_from(write: &WriteTransaction, oldest: u64) -> Result<(), String> {
    let mut meta = write.open_table(META).map_err(text)?;
    let before: u64 = match meta.get(COMPLETE_FROM).map_err(text)? {
        Some(row) => unseal(row.value())?,
        None => 0,
    };
    if oldest > before {
        meta.insert(COMPLETE_FROM, &seal(&oldest)?[..])
            .map_err(text)?;
    }
    Ok(())
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

//! What must survive: state, revisions, audit, and the last good config file.
//!
//! One thread owns the disk. Others hand it jobs through a bounded queue and are told when a job is
//! safe; nobody who serves traffic or decides about it ever waits here. The truth is one embedded
//! database; after each commit a small checksummed copy of the state is written beside it, so that a
//! damaged database costs history but not the blocks and weights that keep a bad version out.
//!
//! What may replace this one day (a store shared by several instances) has to offer [`Store`]'s
//! methods, nothing else.

mod copies;
mod database;
mod errands;
mod evidence;
mod lending;
mod lock;
mod look;
mod observed;
mod outbox;
mod queue;
mod reads;
mod route_uses;
#[cfg(any(test, fuzzing))]
pub(crate) mod simulated;
mod trouble;

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, oneshot};

use crate::history::{AuditEntry, Revision};
use crate::state::State;
use database::{Database, Opener};
use errands::{Errands, Stuck};
use evidence::{Backlog, Piece};
use lending::Lent;
pub use lock::LockError;
pub use outbox::{List, Outgoing, Settlement, Waiting};
use queue::{Jobs, Queue};
use trouble::Trouble;

/// Between two attempts to persist what was applied but could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Called when a job is done, on the store's thread: must not block.
pub type Done = Box<dyn FnOnce(Result<(), String>) + Send>;

/// A change to persist.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The state afterwards.
    pub state: Arc<State>,
    /// The record of the change.
    pub revision: Option<Revision>,
    /// What is noted in the audit.
    pub audit: Option<AuditEntry>,
    /// It is in force already: try until it is persisted.
    pub keep_trying: bool,
    /// How many revisions to keep.
    pub revisions_kept: NonZeroU32,
    /// What hooks are told of it.
    pub outgoing: Outgoing,
}

/// How the recorded state was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing was ever recorded here.
    Nothing,
    /// The database holds it.
    Database(State),
    /// The database could not be read; a copy could.
    Copy(State, String),
    /// The directory was in use, but nothing valid is left.
    Lost(String),
}

impl Found {
    /// The revision of what was found; 0 for nothing.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        match self {
            Self::Database(state) | Self::Copy(state, _) => state.revision,
            Self::Nothing | Self::Lost(_) => 0,
        }
    }
}

/// The state directory could not be taken into use.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// It cannot be created or written.
    #[error("use {} as state directory", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: std::io::Error,
    },
    /// The database cannot be opened or made.
    #[error("open the state database in {}: {cause}", path.display())]
    Database {
        /// The directory.
        path: PathBuf,
        /// What the database says.
        cause: String,
    },
}

/// Changes the database; whether that worked. The flag tells that it is not tried again.
type Work = Box<dyn FnMut(&Database, bool) -> bool + Send>;

enum Job {
    Commit(Box<Commit>, Done),
    Audit(Box<AuditEntry>),
    SaveConfig(String, oneshot::Sender<()>),
    Evidence(Piece),
    /// There are errands.
    Errands,
    Read(Box<dyn FnOnce(&Database) + Send>),
    /// Tried again with the database opened anew if it says that it failed.
    Write(Work),
    /// Passes the directory to another process: its lock, once more.
    Lend(oneshot::Sender<Result<OwnedFd, String>>),
    /// Takes it into use again.
    TakeBack(oneshot::Sender<Result<Option<u64>, String>>),
    Stop(SyncSender<()>),
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: Jobs,
    /// Tells that the outbox has changed.
    outbox: Arc<Notify>,
    errands: Arc<Errands>,
    trouble: Arc<Trouble>,
    directory: Arc<Path>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Store {
    /// Takes a state directory into use and tells what was found there.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be used.
    pub fn open(directory: &Path) -> Result<(Self, Found), OpenError> {
        let unusable = |cause| OpenError::Directory {
            path: directory.into(),
            cause,
        };
        copies::create_private(directory).map_err(unusable)?;
        let lock = lock::take(directory)?;
        Self::open_locked(directory, lock, u64::MAX)
    }

    /// The same with the lock of the process that had it until now.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn take_over(directory: &Path, lock: OwnedFd) -> Result<(Self, Found), OpenError> {
        let lock = lock::adopt(directory, lock)?;
        // Its checks go on until this process serves, and beyond if it never does: `Store::close_checks`.
        Self::open_locked(directory, lock, 0)
    }

    /// Closes the checks of rollbacks up to a number.
    fn open_locked(
        directory: &Path,
        lock: lock::Lock,
        checks: u64,
    ) -> Result<(Self, Found), OpenError> {
        let (keeper, found) = Keeper::open(directory, lock, &|| database::opener(directory))?;
        let (store, queue) = Self::new(&keeper);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || keeper.run(&queue, checks))
            .map_err(|cause| OpenError::Directory {
                path: directory.into(),
                cause,
            })?;
        Ok((store, found))
    }

    fn new(keeper: &Keeper) -> (Self, Queue) {
        let (jobs, queue) = queue::queue();
        let store = Self {
            jobs,
            outbox: keeper.outbox.clone(),
            errands: keeper.errands.clone(),
            trouble: keeper.trouble.clone(),
            directory: keeper.directory.as_path().into(),
        };
        (store, queue)
    }

    /// Persists a change; `done` is told when it is safe or has failed.
    pub fn commit(&self, commit: Commit, done: Done) {
        let is_in_force = commit.keep_trying;
        let job = Job::Commit(Box::new(commit), done);
        let refused = match is_in_force {
            true => self.jobs.send(job),
            false => self.jobs.try_send(job),
        };
        if let Err(
            TrySendError::Full(Job::Commit(_, done))
            | TrySendError::Disconnected(Job::Commit(_, done)),
        ) = refused
        {
            done(Err("the disk does not keep up".into()));
        }
    }

    /// Notes something that changed nothing. Lost if the disk does not keep up.
    pub fn audit(&self, entry: AuditEntry) {
        let _ = self.jobs.try_send(Job::Audit(Box::new(entry)));
    }

    /// Keeps a copy of a config file that was taken over; returns when it is on disk, or cannot be.
    pub async fn save_config(&self, text: String) {
        let (sender, written) = oneshot::channel();
        if self.jobs.try_send(Job::SaveConfig(text, sender)).is_ok() {
            let _ = written.await;
        }
    }

    /// Waits until everything handed over so far is on disk, at most `patience`.
    pub fn stop(&self, patience: Duration) {
        let (sender, done) = sync_channel(1);
        if self.jobs.send(Job::Stop(sender)).is_ok() {
            let _ = done.recv_timeout(patience);
        }
    }
}

/// The config file that was last taken over.
///
/// # Errors
/// When there is none or it cannot be read.
pub fn last_good_config(directory: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(directory.join(copies::CONFIG))
}

/// The thread that owns the disk.
struct Keeper {
    directory: PathBuf,
    database: Database,
    /// In force but not yet persisted.
    unsaved: Vec<Commit>,
    outbox: Arc<Notify>,
    errands: Arc<Errands>,
    /// An errand could not be done.
    overdue: bool,
    stuck: Option<Stuck>,
    trouble: Arc<Trouble>,
    evidence: Backlog,
    lock: lock::Lock,
    /// Another process writes here, since this.
    lent: Option<Lent>,
    /// What belongs into the audit since then.
    unwritten: Vec<AuditEntry>,
}

/// Changes in force that may wait for the disk; older ones are covered by the state of later ones.
const UNSAVED_MAX: usize = 256;

impl Keeper {
    /// Takes a directory into use whose lock is held. `opener`: what opens its database.
    fn open(
        directory: &Path,
        lock: lock::Lock,
        opener: &dyn Fn() -> Opener,
    ) -> Result<(Self, Found), OpenError> {
        let unusable = |cause| OpenError::Directory {
            path: directory.into(),
            cause,
        };
        let not_opened = |error: database::OpenError| OpenError::Database {
            path: directory.into(),
            cause: error.to_string(),
        };
        let was_in_use = copies::was_in_use(directory);
        let copy = copies::newest(directory);
        let commits = copy.as_ref().map_or(0, |(_, commits)| *commits);
        let copied = |cause: String| match copy {
            Some((state, _)) => Found::Copy(state, cause),
            None => Found::Lost(cause),
        };
        let (mut database, found) = match Database::open(opener()) {
            // A database whose last commits cannot be told from ones that never ended does without them.
            Ok((database, Some(_))) if database.commits().is_ok_and(|own| own < commits) => (
                database,
                copied("the database has lost its last changes".into()),
            ),
            Ok((database, Some(state))) => {
                copies::repair(directory, &state, database.commits().unwrap_or_default());
                (database, Found::Database(state))
            }
            // A database that was deleted, with copies left beside it.
            Ok((database, None)) if was_in_use => {
                (database, copied("the database is missing".into()))
            }
            Ok((database, None)) => (database, Found::Nothing),
            Err(database::OpenError::Damaged(cause)) => {
                database::set_aside(directory).map_err(unusable)?;
                let (database, _) = Database::open(opener()).map_err(not_opened)?;
                (database, copied(cause))
            }
            // Nothing is wrong with what is there: it is left for when it can be opened.
            Err(error) => return Err(not_opened(error)),
        };
        if let Err(error) = database.release_all() {
            tracing::warn!(%error, "release the messages of changes");
        }
        if let Found::Copy(state, _) = &found
            && let Err(error) = database.begin_at(state.revision + 1, commits)
        {
            tracing::warn!(%error, "note where the history begins");
        }
        let keeper = Self {
            directory: directory.into(),
            database,
            unsaved: Vec::new(),
            outbox: Arc::default(),
            errands: Arc::default(),
            overdue: false,
            stuck: None,
            trouble: Arc::default(),
            evidence: Backlog::default(),
            lock,
            lent: None,
            unwritten: Vec::new(),
        };
        Ok((keeper, found))
    }

    fn run(mut self, jobs: &Queue, checks: u64) {
        self.log("close the checks of earlier rollbacks", |d| {
            d.interrupt_rollbacks(checks)
        });
        loop {
            let job = if self.is_idle() {
                jobs.recv().ok_or(RecvTimeoutError::Disconnected)
            } else {
                jobs.recv_timeout(RETRY)
            };
            match job {
                Ok(Job::Stop(done)) => {
                    self.catch_up();
                    // The lock goes before anybody hears of it.
                    drop(self);
                    let _ = done.try_send(());
                    return;
                }
                Ok(job) => {
                    self.serve(job);
                    // They may have found no place in the queue.
                    if !self.overdue && !self.errands.is_empty() {
                        self.run_errands();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.catch_up(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn serve(&mut self, job: Job) {
        match job {
            Job::Commit(commit, done) => self.commit(*commit, done),
            Job::Audit(entry) => self.audit(*entry),
            Job::SaveConfig(text, done) => {
                if let Err(error) = copies::write(&self.directory, copies::CONFIG, text.as_bytes())
                {
                    tracing::warn!(%error, "keep a copy of the config file");
                }
                let _ = done.send(());
            }
            Job::Evidence(piece) => {
                self.evidence.add(piece);
                self.save_evidence();
            }
            Job::Errands => self.run_errands(),
            Job::Lend(reply) => {
                let _ = reply.send(self.lend());
            }
            Job::TakeBack(done) => {
                let _ = done.send(self.take_back());
            }
            Job::Read(read) => read(&self.database),
            Job::Write(mut work) => self.work(&mut *work),
            // The end of the thread is not the keeper's business.
            Job::Stop(_) => {}
        }
    }

    /// Whether nothing waits for the disk.
    fn is_idle(&self) -> bool {
        self.unsaved.is_empty() && self.evidence.is_empty() && self.errands.is_empty()
    }

    /// Does what waits for the disk.
    fn catch_up(&mut self) {
        self.save_unsaved();
        self.run_errands();
        self.save_evidence();
    }

    fn commit(&mut self, commit: Commit, done: Done) {
        self.save_unsaved();
        if self.overdue && self.unsaved.is_empty() {
            self.run_errands();
        }
        let written = match self.unsaved.is_empty() {
            true => self.write(&commit),
            false => Err("earlier changes could not be persisted yet".to_owned()),
        };
        if let Err(error) = &written {
            if self.lent.is_none() {
                tracing::error!(%error, "persist a change");
            }
            if commit.keep_trying {
                self.unsaved.truncate(UNSAVED_MAX - 1);
                self.unsaved.push(commit);
            }
        }
        done(written);
    }

    fn save_unsaved(&mut self) {
        while let Some(commit) = self.unsaved.first().cloned() {
            if self.write(&commit).is_err() {
                return;
            }
            tracing::info!(
                revision = commit.state.revision,
                "persisted a change that was waiting for the disk"
            );
            self.unsaved.remove(0);
        }
    }

    /// Evidence comes after everything that has to survive.
    fn save_evidence(&mut self) {
        if self.lent.is_some() || !self.unsaved.is_empty() {
            return;
        }
        if let Err(error) = self.evidence.save(&mut self.database) {
            tracing::warn!(%error, "write evidence of a rollback");
            // A database that failed to write refuses all further work until it is opened anew.
            let _ = self.database.reopen();
        }
    }

    fn write(&mut self, commit: &Commit) -> Result<(), String> {
        if self.lent.is_some() {
            let why = self.trouble.get();
            return Err(why.unwrap_or_else(|| "another process writes the state".into()));
        }
        let written = self.database.commit(commit).or_else(|error| {
            // A database that failed to write refuses all further work until it is opened anew.
            self.database.reopen().map_err(|_| error)?;
            self.database.commit(commit)
        });
        self.trouble.note(written.as_ref().err());
        if let Err(error) = copies::write_state(&self.directory, &commit.state, written?) {
            tracing::warn!(%error, "write the copy of the state");
        }
        if !commit.outgoing.deliveries.is_empty() {
            self.outbox.notify_waiters();
        }
        Ok(())
    }

    fn work(&mut self, work: &mut dyn FnMut(&Database, bool) -> bool) {
        if !work(&self.database, false) && self.lent.is_none() {
            // As in [`Keeper::write`].
            let _ = self.database.reopen();
            work(&self.database, true);
        }
        self.outbox.notify_waiters();
    }

    fn log(&mut self, doing: &str, job: impl FnOnce(&mut Database) -> Result<(), String>) {
        if let Err(error) = job(&mut self.database)
            && self.lent.is_none()
        {
            tracing::warn!(%error, "{doing}");
        }
    }
}

/// JSON with a checksum before it.
fn seal(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let json = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    let mut row = checksum(&json).to_vec();
    row.extend_from_slice(&json);
    Ok(row)
}

/// The value of a row, if its checksum holds.
fn unseal<T: serde::de::DeserializeOwned>(row: &[u8]) -> Result<T, String> {
    let (sum, json) = row
        .split_at_checked(CHECKSUM_BYTES)
        .ok_or("a row is too short")?;
    if sum != checksum(json) {
        return Err("the checksum of a row is wrong".into());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

const CHECKSUM_BYTES: usize = 8;

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests;

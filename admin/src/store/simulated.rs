//! A store without a thread, on a disk that is full or loses power when somebody says so.
//!
//! It is the real keeper on the real database. Only what the database lies in is simulated, and jobs
//! are done one by one, as late as the simulation likes.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::queue::Queue;
use super::{Found, Job, Keeper, OpenError, Opener, Store, copies, lock};

/// The other end of a [`Store`].
pub(crate) struct Bench {
    arriving: Queue,
    waiting: VecDeque<Job>,
    keeper: Keeper,
}

impl Bench {
    /// Takes a device into use. Copies of the state are files in `directory`.
    pub(crate) fn open(
        directory: &Path,
        device: &Device,
    ) -> Result<(Store, Self, Found), OpenError> {
        copies::create_private(directory).map_err(|cause| OpenError::Directory {
            path: directory.into(),
            cause,
        })?;
        let lock = lock::take(directory)?;
        let (keeper, found) = Keeper::open(directory, lock, &|| device.opener())?;
        let (store, arriving) = Store::new(&keeper);
        let waiting = VecDeque::new();
        let bench = Self {
            arriving,
            waiting,
            keeper,
        };
        Ok((store, bench, found))
    }

    /// Does the job that has waited longest; whether there was one.
    pub(crate) fn step(&mut self) -> bool {
        self.waiting
            .extend(std::iter::from_fn(|| self.arriving.try_recv()));
        let job = self.waiting.pop_front();
        job.map(|job| self.keeper.serve(job)).is_some()
    }

    /// The keeper itself.
    #[cfg(test)]
    pub(super) fn keeper(&mut self) -> &mut Keeper {
        &mut self.keeper
    }

    /// Does what the keeper does every second.
    pub(crate) fn catch_up(&mut self) {
        self.keeper.catch_up();
    }

    /// Whether everything handed over is on disk.
    pub(crate) fn is_settled(&mut self) -> bool {
        self.waiting
            .extend(std::iter::from_fn(|| self.arriving.try_recv()));
        self.waiting.is_empty() && self.keeper.unsaved.is_empty()
    }
}

/// A disk in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Device(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    /// What survives.
    synced: Vec<u8>,
    /// What is read.
    current: Vec<u8>,
    /// What has been written since.
    unsynced: Vec<Change>,
    full: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Change {
    fn make(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Length(bytes) => contents.resize(*bytes, 0),
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                contents.resize(contents.len().max(end), 0);
                contents[*at..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Device {
    /// Whether nothing can be written any more.
    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Loses what was not synced, but for what `keeps` says.
    pub(crate) fn lose_power(&self, mut keeps: impl FnMut() -> bool) {
        let contents = &mut *self.lock();
        for change in std::mem::take(&mut contents.unsynced) {
            if keeps() {
                change.make(&mut contents.synced);
            }
        }
        contents.current.clone_from(&contents.synced);
    }

    fn opener(&self) -> Opener {
        let device = self.clone();
        Box::new(move || redb::Builder::new().create_with_backend(device.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let contents = &mut *self.lock();
        if contents.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        change.make(&mut contents.current);
        contents.unsynced.push(change);
        Ok(())
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl redb::StorageBackend for Device {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = place(offset)?;
        let contents = self.lock();
        let found = contents.current.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(place(len)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        let contents = &mut *self.lock();
        if contents.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        for change in std::mem::take(&mut contents.unsynced) {
            change.make(&mut contents.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(place(offset)?, data.to_vec()))
    }
}

//! Only one process uses a state directory.
//!
//! The lock belongs to the open file, not to the process: whoever is passed the descriptor holds it
//! too, so it can change hands without being free in between.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Holds the directory until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

/// The directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("state directory {} is in use by process {pid}", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
        /// The other process, as it wrote itself down.
        pid: String,
    },
    /// The lock file cannot be used.
    #[error("lock {}", path.display())]
    Unusable {
        /// The lock file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
}

impl Lock {
    /// The same lock once more, for another process.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Writes down that this process holds it.
    pub(super) fn claim(&self) -> io::Result<()> {
        let mut file = &self.file;
        self.file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }
}

/// Takes the lock.
pub(super) fn take(directory: &Path) -> Result<Lock, LockError> {
    let path = directory.join("lock");
    let unusable = |cause| LockError::Unusable {
        path: path.clone(),
        cause,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(unusable)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        let pid = match pid.trim() {
            "" => "unknown".into(),
            pid => pid.to_owned(),
        };
        return Err(LockError::Held {
            path: directory.into(),
            pid,
        });
    }
    let lock = Lock { file };
    lock.claim().map_err(unusable)?;
    Ok(lock)
}

/// Goes on with a lock that another process holds and has passed on.
pub(super) fn adopt(directory: &Path, lock: OwnedFd) -> Result<Lock, LockError> {
    let path = directory.join("lock");
    let unusable = |cause| LockError::Unusable {
        path: path.clone(),
        cause,
    };
    let lock = Lock {
        file: File::from(lock),
    };
    let (passed, own) = (lock.file.metadata(), std::fs::metadata(&path));
    let (passed, own) = (passed.map_err(unusable)?, own.map_err(unusable)?);
    if (passed.dev(), passed.ino()) != (own.dev(), own.ino()) {
        let other = "the other process holds the lock of another directory";
        return Err(unusable(io::Error::other(other)));
    }
    flock(&lock.file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| unusable(error.into()))?;
    lock.claim().map_err(unusable)?;
    Ok(lock)
}

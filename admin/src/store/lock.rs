//! Only one process uses a state directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Holds the directory until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
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
        cause: std::io::Error,
    },
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
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(unusable)?;
    Ok(Lock { _file: file })
}

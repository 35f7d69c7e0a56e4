//! A new process takes the place of an old one, and nobody notices.
//!
//! The old process waits at a socket in its state directory ([`giver`]). The new one connects to it
//! ([`taker`]) and gets the listening sockets; both hold the same sockets then, so no connection is
//! turned away, whoever accepts it. Everything that can fail without the state is done next. Then
//! the new process asks for the state:
//!
//! 1. The old one finishes the change it is writing, refuses ordinary changes from now on (503), closes
//!    its database and passes the lock of the state directory: the same open file, so that it is
//!    never free in between. From now on only the new process writes.
//! 2. Rollbacks and blocks that reach the old one meanwhile are applied there at once, and sent along as
//!    commands with what was seen, which the new one carries out and persists before it answers. What is
//!    refused is kept for the audit of whoever has the state in the end.
//! 3. Once the new one serves, the old one stops accepting and lets its connections end. Until they
//!    have, it follows every change of weights and roles of the new one, which waits for it before it
//!    answers, a second at most: what is not confirmed by then is answered as unconfirmed. A changed
//!    config file is not followed: requests on connections of the old process go by the file as it was.
//!
//! The new process waits some seconds for the word that the old one accepts nothing any more, and
//! serves its API after that all the same: an old process that hangs must not keep operators out.
//!
//! Should the new process end before it serves, the kernel closes its end of the socket. The old one
//! then opens its database again, persists what was only sent along, and goes on as if nothing had
//! been. No clock decides that: a process that hangs can be ended by its operator, and at no time
//! may both write. Until a peer has asked for the state nothing depends on it: many may talk at a time,
//! and those that say nothing are dismissed.

mod giver;
mod taker;
mod wire;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(crate) use giver::{Given, Giver, Relay};
pub(crate) use taker::{Follower, NOBODY, Succession};
pub use taker::{Predecessor, TakeoverError};

/// The socket in the state directory.
const SOCKET: &str = "takeover.sock";

/// A path to the socket that is short enough for the kernel however long that of the directory is.
/// Valid for as long as the descriptor is open.
fn socket_path(directory: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let directory = OwnedFd::from(std::fs::File::open(directory)?);
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    Ok((directory, path.into()))
}

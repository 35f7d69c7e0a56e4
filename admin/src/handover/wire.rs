//! What two processes say to each other during a hand-over, and how descriptors travel.
//!
//! Each message is its length and a JSON text. Descriptors follow the message that announces them, in
//! groups, each with one byte of its own: the kernel would drop descriptors whose bytes are read
//! without asking for them, and nothing here reads further than to the end of a message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use switchback_config::model::Name;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::command::{Author, Urgent};
use crate::evidence::Record;
use crate::history::AuditEntry;
use crate::state::State;

/// What both sides have to agree on. A new process that speaks another one is refused, and the old
/// one goes on.
pub(super) const PROTOCOL: u32 = 3;

/// Longest message: a state of a hundred thousand services would still fit.
const MESSAGE_BYTES_MAX: u32 = 256 << 20;

/// Descriptors in one group; the kernel takes at most 253.
const GROUP: usize = 64;

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum ToOld {
    /// Who is there, and asks for the listening sockets.
    Hello { protocol: u32, pid: u32 },
    /// Nothing can fail any more that the state is not needed for: asks for it.
    Take,
    /// A command that was sent along is in force; whether it is persisted.
    Done { number: u64, durable: bool },
    /// Connections are accepted.
    Serving,
    /// What is in force now.
    Follow { state: Box<State> },
}

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum ToNew {
    /// There will be no hand-over.
    Refused { reason: String },
    /// The sockets that follow, in this order; the last one is that of the admin API.
    Sockets { listeners: Vec<Passed> },
    /// The lock of the state directory follows.
    Lock {
        /// Canaries are closed here, since nobody waits for this instance any more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        isolated: bool,
    },
    /// A command that was carried out here, which made this revision.
    Carry {
        number: u64,
        revision: u64,
        urgent: Urgent,
        author: Author,
        /// What was seen of what it took the weight of.
        record: Option<Box<Record>>,
    },
    /// What was asked for here in the meantime and changed nothing, for the audit.
    Audit { entries: Vec<AuditEntry> },
    /// Nothing is accepted here any more, and every change is followed.
    Retired,
    /// All workers follow the state with this revision.
    Followed { revision: u64 },
}

/// A listening socket that changes hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Passed {
    /// Its listener.
    pub(super) name: Name,
    /// As configured; port 0 stays 0.
    pub(super) configured: SocketAddr,
}

pub(super) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let text = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&text);
    stream.write_all(&bytes).await
}

pub(super) async fn receive<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a message is too long"));
    }
    let mut text = Vec::new();
    stream.take(length.into()).read_to_end(&mut text).await?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

pub(super) async fn send_descriptors(
    stream: &UnixStream,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    for group in descriptors.chunks(GROUP) {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(GROUP))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(group));
            let byte = [IoSlice::new(b"+")];
            Ok(sendmsg(stream, &byte, &mut control, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

pub(super) async fn receive_descriptors(
    stream: &UnixStream,
    count: usize,
) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::with_capacity(count);
    while descriptors.len() < count {
        let receive = || receive_group(stream);
        let group = stream.async_io(Interest::READABLE, receive).await?;
        if group.is_empty() {
            return Err(io::Error::other(
                "fewer descriptors came than were announced",
            ));
        }
        descriptors.extend(group);
    }
    Ok(descriptors)
}

fn receive_group(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(GROUP))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(rights.flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[tokio::test]
    async fn descriptors_arrive_in_order_between_messages() {
        let (mut one, mut other) = UnixStream::pair().expect("a pair");
        let sockets: Vec<std::net::TcpListener> = (0..GROUP + 6)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"))
            .collect();
        let addresses: Vec<_> = sockets
            .iter()
            .map(std::net::TcpListener::local_addr)
            .collect();
        let sender = async {
            send(&mut one, &ToNew::Lock { isolated: true })
                .await
                .expect("sent");
            let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            send_descriptors(&one, &borrowed).await.expect("sent");
            send(&mut one, &ToNew::Retired).await.expect("sent");
        };
        let receiver = async {
            let first = receive(&mut other).await.expect("a message");
            assert!(matches!(first, ToNew::Lock { isolated: true }));
            let passed = receive_descriptors(&other, GROUP + 6).await.expect("all");
            let last = receive(&mut other).await.expect("a message");
            assert!(matches!(last, ToNew::Retired));
            passed
        };
        let ((), passed) = tokio::join!(sender, receiver);
        for (socket, address) in passed.into_iter().zip(addresses) {
            assert!(
                sockets
                    .iter()
                    .all(|own| own.as_raw_fd() != socket.as_raw_fd())
            );
            let socket = std::net::TcpListener::from(socket);
            assert_eq!(socket.local_addr().expect("bound"), address.expect("bound"));
        }
    }

    #[tokio::test]
    async fn message_that_is_too_long_or_broken_off_is_an_error() {
        let (mut one, mut other) = UnixStream::pair().expect("a pair");
        one.write_all(&u32::MAX.to_be_bytes()).await.expect("sent");
        assert!(receive::<ToNew>(&mut other).await.is_err());
        let (mut one, mut other) = UnixStream::pair().expect("a pair");
        one.write_all(b"\0\0\0\x20{\"say\"").await.expect("sent");
        drop(one);
        assert!(receive::<ToNew>(&mut other).await.is_err());
    }
}

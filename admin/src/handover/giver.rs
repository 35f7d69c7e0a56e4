//! The old process: waits for a new one, hands over, and follows it until its last connection ends.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use switchback_config::defaults::{
    COMMAND_QUEUE, FENCE_TIME, TAKEOVER_AUDIT_MAX, TAKEOVER_HELLO_TIME, TAKEOVER_PEERS_MAX,
    TAKEOVER_RETIRED_TIME, TAKEOVER_TIME,
};
use switchback_proxy::data_plane::DataPlane;
use switchback_proxy::fence::Fence;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot};

use super::wire::{PROTOCOL, Passed, ToNew, ToOld, receive, send, send_descriptors};
use super::{SOCKET, socket_path};
use crate::command::{Asked, Command};
use crate::command::{Author, Urgent};
use crate::control::Controls;
use crate::events::Events;
use crate::evidence::Record;
use crate::history::AuditEntry;
use crate::inherit::OFREP;
use crate::reload::Reloader;
use crate::route_uses;
use crate::store::Store;

/// How long a worker may take to answer when it is asked for its sockets.
const SOCKETS_TIME: Duration = Duration::from_secs(5);

/// Messages of the new process that wait to be looked at.
const MESSAGES: usize = 16;

/// How soon it is tried again to take the state back.
const TAKE_BACK_AGAIN: Duration = Duration::from_secs(1);

/// A command that was carried out here and has to be sent along.
#[derive(Debug)]
pub(crate) struct Carried {
    revision: u64,
    urgent: Urgent,
    author: Author,
    record: Option<Box<Record>>,
    /// Told whether the new process has persisted it.
    durable: oneshot::Sender<bool>,
}

/// Where the control thread puts what has to be sent along.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    carried: mpsc::Sender<Carried>,
    audit: mpsc::Sender<AuditEntry>,
}

/// The other end of a [`Relay`].
#[derive(Debug)]
struct Luggage {
    carried: mpsc::Receiver<Carried>,
    audit: mpsc::Receiver<AuditEntry>,
}

impl Relay {
    fn new() -> (Self, Luggage) {
        let (carried, all_carried) = mpsc::channel(COMMAND_QUEUE);
        let (audit, all_audit) = mpsc::channel(TAKEOVER_AUDIT_MAX);
        let luggage = Luggage {
            carried: all_carried,
            audit: all_audit,
        };
        (Self { carried, audit }, luggage)
    }

    /// One from which nobody takes anything for as long as the other value is kept.
    #[cfg(test)]
    pub(crate) fn idle() -> (Self, impl Sized) {
        Self::new()
    }

    /// Whether there is no room for one more command. Only the control thread takes any.
    pub(crate) fn is_full(&self) -> bool {
        !self.carried.is_closed() && self.carried.capacity() == 0
    }

    /// Sends a command along, with what was seen of what it took the weight of; unless [it is
    /// full](Self::is_full). If nobody sends it on its asker hears that it is not durable.
    pub(crate) fn carry(
        &self,
        revision: u64,
        (command, asked): (&Command, &Asked),
        record: Option<Box<Record>>,
        durable: oneshot::Sender<bool>,
    ) {
        let Some(urgent) = Urgent::of(command) else {
            return;
        };
        let author = Author::of(asked);
        let _ = self.carried.try_send(Carried {
            revision,
            urgent,
            author,
            record,
            durable,
        });
    }

    /// Keeps what is in no revision for the audit.
    pub(crate) fn note(&self, entry: AuditEntry) {
        if let Err(error) = self.audit.try_send(entry) {
            tracing::error!(%error, "too much was refused during a hand-over, the audit misses this");
        }
    }
}

/// What can be handed over.
#[derive(Debug)]
pub(crate) struct Giver {
    pub(crate) directory: PathBuf,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) controls: Controls,
    pub(crate) store: Store,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) events: Events,
    pub(crate) admin: TcpListener,
    pub(crate) ofrep: Option<TcpListener>,
    /// Another process has the state, and does not serve yet.
    pub(crate) lent: AtomicBool,
    /// This process ends, and does not want the state back.
    pub(crate) ending: Notify,
}

/// Another process serves now; this is the way to it.
#[derive(Debug)]
pub(crate) struct Given {
    /// Its process id.
    pub(crate) pid: u32,
    talk: Talk,
}

/// A peer that has the sockets and asks for the state.
struct Peer {
    stream: UnixStream,
    pid: u32,
}

/// A hand-over under way.
#[derive(Debug)]
struct Talk {
    writer: OwnedWriteHalf,
    messages: mpsc::Receiver<io::Result<ToOld>>,
    luggage: Luggage,
    waiting: HashMap<u64, oneshot::Sender<bool>>,
    number: u64,
}

/// What there is to do for a hand-over under way.
enum Heard {
    Carried(Carried),
    Audit(AuditEntry),
    Said(io::Result<ToOld>),
    /// The new process has ended.
    Silence,
}

impl Giver {
    /// Waits until another process has taken over. Never ends if none does. None once another one has the
    /// state and this one is [ending](Self::ending).
    pub(crate) async fn run(&self) -> Option<Given> {
        let listener = match self.listen() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%error, "no other process can take over from this one");
                return std::future::pending().await;
            }
        };
        let mut peers = FuturesUnordered::new();
        loop {
            let met = tokio::select! {
                accepted = listener.accept(), if peers.len() < TAKEOVER_PEERS_MAX => {
                    match accepted {
                        Ok((stream, _)) => peers.push(self.meet(stream)),
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                    continue;
                }
                Some(met) = peers.next() => met,
            };
            let given = match met {
                Ok(peer) => self.give(peer).await,
                Err(error) => Err(error),
            };
            match given {
                Ok(given) => return given,
                Err(error) => {
                    let message = format!(
                        "another process began to take over and did not finish ({error}); this one goes on"
                    );
                    tracing::warn!("{message}");
                    self.events
                        .emit("takeover_failed", None, "switchback", message, None);
                }
            }
        }
    }

    fn listen(&self) -> io::Result<UnixListener> {
        // This process holds the directory, so whoever listened here is gone.
        let _ = std::fs::remove_file(self.directory.join(SOCKET));
        let (_open, path) = socket_path(&self.directory)?;
        UnixListener::bind(path)
    }

    /// Passes the sockets to whoever asks for them, and waits until it asks for the state. Nothing depends
    /// on that yet.
    async fn meet(&self, mut stream: UnixStream) -> io::Result<Peer> {
        let peer = stream.peer_cred()?;
        let own = rustix::process::geteuid().as_raw();
        if peer.uid() != own && peer.uid() != 0 {
            return Err(io::Error::other("it belongs to another user"));
        }
        let ToOld::Hello { protocol, pid } =
            in_time(TAKEOVER_HELLO_TIME, receive(&mut stream)).await?
        else {
            return Err(unexpected());
        };
        if protocol != PROTOCOL {
            let reason = format!("this process hands over by protocol {PROTOCOL}, not {protocol}");
            let refused = ToNew::Refused {
                reason: reason.clone(),
            };
            in_time(TAKEOVER_HELLO_TIME, send(&mut stream, &refused)).await?;
            return Err(io::Error::other(reason));
        }
        in_time(TAKEOVER_TIME, self.pass_sockets(&mut stream)).await?;
        match in_time(TAKEOVER_TIME, receive(&mut stream)).await? {
            ToOld::Take => Ok(Peer { stream, pid }),
            _ => Err(unexpected()),
        }
    }

    async fn give(&self, peer: Peer) -> io::Result<Option<Given>> {
        let Peer { stream, pid } = peer;
        // What was counted until now; a disk that hangs keeps nobody.
        let saved = route_uses::finish(&self.controls, &self.store);
        let _ = tokio::time::timeout(TAKEOVER_HELLO_TIME, saved).await;
        let (relay, luggage) = Relay::new();
        self.lent.store(true, Relaxed);
        if let Err(error) = self.controls.lend(relay).await {
            self.lent.store(false, Relaxed);
            return Err(error);
        }
        let (reader, writer) = stream.into_split();
        let mut talk = Talk {
            writer,
            messages: read(reader),
            luggage,
            waiting: HashMap::new(),
            number: 0,
        };
        match self.pass_state(&mut talk).await {
            Ok(true) => Ok(Some(Given { pid, talk })),
            Ok(false) => Ok(None),
            Err(error) => {
                self.take_back().await;
                self.lent.store(false, Relaxed);
                while let Ok(entry) = talk.luggage.audit.try_recv() {
                    self.store.audit(entry);
                }
                Err(error)
            }
        }
    }

    /// Takes the state into use again, however long that takes. Until it can be, what is in force serves on,
    /// and changes are refused as on a full disk.
    async fn take_back(&self) {
        let mut tell = true;
        let written = loop {
            match self.store.take_back().await {
                Ok(written) => break written,
                Err(error) if tell => {
                    tell = false;
                    let message = format!(
                        "the state cannot be taken back ({error}): what is in force goes on, changes are refused; it is tried again every second"
                    );
                    self.events
                        .emit("state_unavailable", None, "switchback", message, None);
                    self.controls.take_back(None).await;
                }
                Err(_) => {}
            }
            tokio::time::sleep(TAKE_BACK_AGAIN).await;
        };
        self.controls.take_back(written).await;
        if !tell {
            let message = "the state is written here again";
            self.events
                .emit("state_returned", None, "switchback", message, None);
        }
    }

    async fn pass_sockets(&self, stream: &mut UnixStream) -> io::Result<()> {
        let plane = self.plane.clone();
        let shared = tokio::task::spawn_blocking(move || plane.share_sockets(SOCKETS_TIME));
        let shared = shared.await.map_err(io::Error::other)??;
        let configured: HashMap<_, _> = self.reloader.configured().into_iter().collect();
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for (name, socket) in &shared {
            // One that is not configured any more is just being closed.
            if let Some(configured) = configured.get(&**name).copied() {
                let name = name.to_string();
                listeners.push(Passed { name, configured });
                sockets.push(socket.as_fd());
            }
        }
        if let Some(socket) = &self.ofrep {
            let (name, configured) = (OFREP.to_owned(), socket.local_addr()?);
            listeners.push(Passed { name, configured });
            sockets.push(socket.as_fd());
        }
        sockets.push(self.admin.as_fd());
        send(stream, &ToNew::Sockets { listeners }).await?;
        send_descriptors(stream, &sockets).await
    }

    /// Gives up the state, and sends commands along until the new process serves: true, or this one ends:
    /// false.
    async fn pass_state(&self, talk: &mut Talk) -> io::Result<bool> {
        let lock = self.store.lend().await.map_err(io::Error::other)?;
        let isolated = self.controls.published().isolated;
        send(&mut talk.writer, &ToNew::Lock { isolated }).await?;
        let lock: [BorrowedFd<'_>; 1] = [lock.as_fd()];
        send_descriptors(talk.writer.as_ref(), &lock).await?;
        loop {
            let heard = tokio::select! {
                heard = talk.hear(false) => heard,
                () = self.ending.notified() => {
                    talk.part().await?;
                    return Ok(false);
                }
            };
            match heard {
                Heard::Carried(carried) => talk.carry(carried).await?,
                Heard::Said(message) => match message? {
                    ToOld::Done { number, durable } => talk.done(number, durable),
                    ToOld::Serving => return Ok(true),
                    _ => return Err(unexpected()),
                },
                // Whose audit it belongs into is not decided yet, so nothing is heard of it.
                Heard::Audit(_) => {}
                Heard::Silence => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

impl Given {
    /// Says the last words: what only this process knows, and that it decides nothing any more. To be called
    /// once that is so, and before this process may end.
    pub(crate) async fn part(&mut self) {
        let part = tokio::time::timeout(TAKEOVER_RETIRED_TIME, self.talk.part());
        match part.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the new process listens no more"),
            Err(_) => tracing::warn!("the new process takes no last words"),
        }
    }

    /// Follows the new process for as long as it is asked to. To be called after [`Given::part`].
    pub(crate) async fn follow(self, controls: &Controls) {
        let Self { mut talk, .. } = self;
        if let Err(error) = talk.follow(controls).await {
            tracing::debug!(%error, "the new process says nothing any more");
        }
    }
}

impl Talk {
    /// What comes next; audit entries only `with_audit`.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    async fn hear(&mut self, with_audit: bool) -> Heard {
        tokio::select! {
            biased;
            Some(carried) = self.luggage.carried.recv() => Heard::Carried(carried),
            Some(entry) = self.luggage.audit.recv(), if with_audit => Heard::Audit(entry),
            message = self.messages.recv() => message.map_or(Heard::Silence, Heard::Said),
        }
    }

    /// Says all that only this process knows, and that it decides nothing any more.
    async fn part(&mut self) -> io::Result<()> {
        // What was decided until then comes before the word that nothing will be.
        while let Ok(carried) = self.luggage.carried.try_recv() {
            self.carry(carried).await?;
        }
        let mut entries = Vec::new();
        while let Ok(entry) = self.luggage.audit.try_recv() {
            entries.push(entry);
        }
        if !entries.is_empty() {
            send(&mut self.writer, &ToNew::Audit { entries }).await?;
        }
        send(&mut self.writer, &ToNew::Retired).await
    }

    async fn follow(&mut self, controls: &Controls) -> io::Result<()> {
        let mut behind = None;
        loop {
            let heard = tokio::select! {
                heard = self.hear(true) => heard,
                revision = caught_up(behind.as_ref()) => {
                    behind = None;
                    send(&mut self.writer, &ToNew::Followed { revision }).await?;
                    continue;
                }
            };
            match heard {
                Heard::Carried(carried) => self.carry(carried).await?,
                Heard::Audit(entry) => {
                    let entries = vec![entry];
                    send(&mut self.writer, &ToNew::Audit { entries }).await?;
                }
                Heard::Said(message) => match message? {
                    ToOld::Done { number, durable } => self.done(number, durable),
                    ToOld::Follow { state } => {
                        let revision = state.revision;
                        let fence = controls.follow_state(*state).await;
                        behind = fence.map(|fence| (revision, fence));
                    }
                    _ => return Err(unexpected()),
                },
                Heard::Silence => return Ok(()),
            }
        }
    }

    async fn carry(&mut self, carried: Carried) -> io::Result<()> {
        let Carried {
            revision,
            urgent,
            author,
            record,
            durable,
        } = carried;
        self.number += 1;
        self.waiting.insert(self.number, durable);
        let number = self.number;
        let message = ToNew::Carry {
            number,
            revision,
            urgent,
            author,
            record,
        };
        send(&mut self.writer, &message).await
    }

    fn done(&mut self, number: u64, durable: bool) {
        if let Some(waiting) = self.waiting.remove(&number) {
            let _ = waiting.send(durable);
        }
    }
}

/// The revision that all workers follow, as soon as they do.
async fn caught_up(behind: Option<&(u64, Arc<Fence>)>) -> u64 {
    let Some((revision, fence)) = behind else {
        return std::future::pending().await;
    };
    while let Err(late) = fence.wait(FENCE_TIME).await {
        tracing::warn!(%late, "follow the process that serves now");
    }
    *revision
}

/// Reads messages in a task of its own: one that is half read must not be dropped.
fn read(mut reader: OwnedReadHalf) -> mpsc::Receiver<io::Result<ToOld>> {
    let (sender, messages) = mpsc::channel(MESSAGES);
    tokio::spawn(async move {
        loop {
            let message = receive(&mut reader).await;
            let ended = message.is_err();
            if sender.send(message).await.is_err() || ended {
                return;
            }
        }
    });
    messages
}

async fn in_time<T>(
    patience: Duration,
    talk: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::time::timeout(patience, talk)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn unexpected() -> io::Error {
    io::Error::other("it says something unexpected")
}

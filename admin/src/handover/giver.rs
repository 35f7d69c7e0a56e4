//! The old process: waits for a new one, hands over, and follows it until its last connection ends.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use switchback_config::defaults::COMMAND_QUEUE;
use switchback_proxy::data_plane::DataPlane;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::wire::{PROTOCOL, Passed, ToNew, ToOld, receive, send, send_descriptors};
use super::{Author, SOCKET, Urgent, socket_path};
use crate::command::{Asked, Command};
use crate::control::Controls;
use crate::events::Events;
use crate::inherit::OFREP;
use crate::reload::Reloader;
use crate::store::Store;

/// How long a worker may take to answer when it is asked for its sockets.
const SOCKETS_TIME: Duration = Duration::from_secs(5);

/// Messages of the new process that wait to be looked at.
const MESSAGES: usize = 16;

/// A command that was carried out here and has to be sent along.
#[derive(Debug)]
pub(crate) struct Carried {
    revision: u64,
    urgent: Urgent,
    author: Author,
    /// Told whether the new process has persisted it.
    durable: oneshot::Sender<bool>,
}

/// Where the control thread puts commands that have to be sent along.
#[derive(Clone, Debug)]
pub(crate) struct Relay(mpsc::Sender<Carried>);

impl Relay {
    /// Sends a command along. If that cannot be done its asker hears that it is not durable.
    pub(crate) fn carry(
        &self,
        revision: u64,
        command: &Command,
        asked: &Asked,
        durable: oneshot::Sender<bool>,
    ) {
        let Some(urgent) = Urgent::of(command) else {
            return;
        };
        let author = Author::of(asked);
        let _ = self.0.try_send(Carried {
            revision,
            urgent,
            author,
            durable,
        });
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
}

/// Another process serves now; this is the way to it.
#[derive(Debug)]
pub(crate) struct Given {
    /// Its process id.
    pub(crate) pid: u32,
    talk: Talk,
}

/// A hand-over under way.
#[derive(Debug)]
struct Talk {
    writer: OwnedWriteHalf,
    messages: mpsc::Receiver<io::Result<ToOld>>,
    carried: mpsc::Receiver<Carried>,
    waiting: HashMap<u64, oneshot::Sender<bool>>,
    number: u64,
}

impl Giver {
    /// Waits until another process has taken over. Never ends if none does.
    pub(crate) async fn run(&self) -> Given {
        let listener = match self.listen() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%error, "no other process can take over from this one");
                return std::future::pending().await;
            }
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            match self.give(stream).await {
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

    async fn give(&self, mut stream: UnixStream) -> io::Result<Given> {
        let peer = stream.peer_cred()?;
        let own = rustix::process::geteuid().as_raw();
        if peer.uid() != own && peer.uid() != 0 {
            return Err(io::Error::other("it belongs to another user"));
        }
        let ToOld::Hello { protocol, pid } = receive(&mut stream).await? else {
            return Err(unexpected());
        };
        if protocol != PROTOCOL {
            let reason = format!("this process hands over by protocol {PROTOCOL}, not {protocol}");
            send(
                &mut stream,
                &ToNew::Refused {
                    reason: reason.clone(),
                },
            )
            .await?;
            return Err(io::Error::other(reason));
        }
        self.pass_sockets(&mut stream).await?;
        let ToOld::Take = receive(&mut stream).await? else {
            return Err(unexpected());
        };
        let (sender, carried) = mpsc::channel(COMMAND_QUEUE);
        self.lent.store(true, Relaxed);
        if let Err(error) = self.controls.lend(Relay(sender)).await {
            self.lent.store(false, Relaxed);
            return Err(error);
        }
        let talk = match self.pass_state(stream, carried).await {
            Ok(talk) => talk,
            Err(error) => {
                let written = self.store.take_back().await;
                self.controls.take_back(written).await;
                self.lent.store(false, Relaxed);
                return Err(error);
            }
        };
        Ok(Given { pid, talk })
    }

    async fn pass_sockets(&self, stream: &mut UnixStream) -> io::Result<()> {
        let plane = self.plane.clone();
        let shared = tokio::task::spawn_blocking(move || plane.share_sockets(SOCKETS_TIME));
        let shared = shared.await.map_err(io::Error::other)??;
        let configured: HashMap<_, _> = self.reloader.configured().await.into_iter().collect();
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

    /// Gives up the state, and sends commands along until the new process serves.
    async fn pass_state(
        &self,
        stream: UnixStream,
        carried: mpsc::Receiver<Carried>,
    ) -> io::Result<Talk> {
        let lock = self.store.lend().await.map_err(io::Error::other)?;
        let (reader, writer) = stream.into_split();
        let mut talk = Talk {
            writer,
            messages: read(reader),
            carried,
            waiting: HashMap::new(),
            number: 0,
        };
        send(&mut talk.writer, &ToNew::Lock).await?;
        let lock: [BorrowedFd<'_>; 1] = [lock.as_fd()];
        send_descriptors(talk.writer.as_ref(), &lock).await?;
        while let Some(message) = talk.next().await? {
            match message {
                ToOld::Done { number, durable } => talk.done(number, durable),
                ToOld::Serving => return Ok(talk),
                _ => return Err(unexpected()),
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

impl Given {
    /// Follows the new process for as long as it is asked to. To be called once nothing is accepted or
    /// decided here any more.
    pub(crate) async fn follow(self, controls: &Controls) {
        let Self { mut talk, .. } = self;
        let followed = async {
            // What was decided until then comes before the word that nothing will be.
            while let Ok(carried) = talk.carried.try_recv() {
                talk.carry(carried).await?;
            }
            send(&mut talk.writer, &ToNew::Retired).await?;
            while let Some(message) = talk.next().await? {
                match message {
                    ToOld::Done { number, durable } => talk.done(number, durable),
                    ToOld::Follow { state } => {
                        let revision = state.revision;
                        controls.follow_state(*state).await;
                        send(&mut talk.writer, &ToNew::Followed { revision }).await?;
                    }
                    _ => return Err(unexpected()),
                }
            }
            Ok::<(), io::Error>(())
        };
        if let Err(error) = followed.await {
            tracing::debug!(%error, "the new process says nothing any more");
        }
    }
}

impl Talk {
    /// The next message; commands are sent along meanwhile.
    async fn next(&mut self) -> io::Result<Option<ToOld>> {
        loop {
            tokio::select! {
                biased;
                Some(carried) = self.carried.recv() => self.carry(carried).await?,
                message = self.messages.recv() => return message.transpose(),
            }
        }
    }

    async fn carry(&mut self, carried: Carried) -> io::Result<()> {
        let Carried {
            revision,
            urgent,
            author,
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
        };
        send(&mut self.writer, &message).await
    }

    fn done(&mut self, number: u64, durable: bool) {
        if let Some(waiting) = self.waiting.remove(&number) {
            let _ = waiting.send(durable);
        }
    }
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

fn unexpected() -> io::Error {
    io::Error::other("it says something unexpected")
}

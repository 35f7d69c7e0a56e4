//! The new process: takes over from the one that holds the state directory.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use switchback_config::defaults::{TAKEOVER_RETIRED_TIME, TAKEOVER_TIME};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::socket_path;
use super::wire::{PROTOCOL, ToNew, ToOld, receive, receive_descriptors, send};
use crate::command::{Author, Urgent};
use crate::control::{Controls, Durable, Published};
use crate::evidence::Record;
use crate::inherit::{ADMIN, Inherited};
use crate::store::Store;

/// Messages of the old process that wait to be looked at: more than commands may wait there.
const MESSAGES: usize = 2_048;

/// Up to which revision somebody else follows what is in force here.
pub(crate) type Follower = watch::Receiver<u64>;

/// Nobody follows, so nobody has to be waited for.
pub(crate) const NOBODY: u64 = u64::MAX;

/// It could not be taken over from the process that serves. That one goes on.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// It does not want to.
    #[error("the process that serves does not hand over: {0}")]
    Refused(String),
    /// It does not answer.
    #[error("the process that serves does not answer within {TAKEOVER_TIME:?}; it goes on")]
    Silent,
    /// What it says cannot be used.
    #[error("take over from the process that serves: {0}; it goes on")]
    Talk(#[from] io::Error),
}

/// The process that serves, and its listening sockets.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    sockets: Inherited,
}

impl Predecessor {
    /// Asks the process that holds a state directory for its sockets. `None` if there is none.
    ///
    /// # Errors
    /// When it does not hand them over.
    pub async fn find(directory: &Path) -> Result<Option<Self>, TakeoverError> {
        let Ok((_open, path)) = socket_path(directory) else {
            return Ok(None);
        };
        let Ok(mut stream) = UnixStream::connect(path).await else {
            return Ok(None);
        };
        let sockets = in_time(async {
            let pid = std::process::id();
            let protocol = PROTOCOL;
            send(&mut stream, &ToOld::Hello { protocol, pid }).await?;
            let listeners = match receive(&mut stream).await? {
                ToNew::Sockets { listeners } => listeners,
                ToNew::Refused { reason } => return Err(TakeoverError::Refused(reason)),
                _ => return Err(unexpected()),
            };
            let mut passed = receive_descriptors(&stream, listeners.len() + 1).await?;
            let admin = passed.pop().ok_or_else(unexpected)?;
            let mut sockets = Inherited::default();
            sockets.add(ADMIN.into(), TcpListener::from(admin))?;
            for (listener, socket) in listeners.into_iter().zip(passed) {
                sockets.add(listener.name, TcpListener::from(socket))?;
            }
            Ok(sockets)
        });
        let sockets = sockets.await?;
        Ok(Some(Self { stream, sockets }))
    }

    /// Its sockets, once.
    pub(crate) fn sockets(&mut self) -> Inherited {
        std::mem::take(&mut self.sockets)
    }

    /// Takes the state. From now on only this process writes it.
    pub(crate) async fn take(mut self) -> Result<Taken, TakeoverError> {
        let stream = &mut self.stream;
        let taken = in_time(async {
            send(stream, &ToOld::Take).await?;
            let ToNew::Lock { isolated } = receive(stream).await? else {
                return Err(unexpected());
            };
            let passed = receive_descriptors(stream, 1).await?;
            let lock = passed.into_iter().next().ok_or_else(unexpected)?;
            Ok((lock, isolated))
        });
        let (lock, isolated) = taken.await?;
        Ok(Taken {
            lock,
            stream: self.stream,
            isolated,
        })
    }
}

/// What changes hands with the state.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Of the state directory.
    pub(crate) lock: OwnedFd,
    /// To the old process.
    pub(crate) stream: UnixStream,
    /// No other instance waits for this one: canaries are closed.
    pub(crate) isolated: bool,
}

/// A hand-over after the state has changed hands. The old process may end at any time without harm.
#[derive(Debug)]
pub(crate) struct Succession {
    writer: Arc<Mutex<OwnedWriteHalf>>,
    messages: mpsc::Receiver<ToNew>,
    /// The revision of the state as it was found.
    found: u64,
    store: Store,
    /// Canaries are closed in the old process, since nobody waits for it any more.
    isolated: bool,
}

impl Succession {
    /// Goes on with the process that has given up its state. `found`: the revision that it had persisted
    /// itself before.
    pub(crate) fn new(stream: UnixStream, isolated: bool, store: Store, found: u64) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            writer: Arc::new(Mutex::new(writer)),
            messages: read(reader),
            found,
            store,
            isolated,
        }
    }

    /// Whether canaries are closed until other instances wait for this one again.
    pub(crate) const fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Carries out what was sent along so far.
    pub(crate) async fn catch_up(&mut self, controls: &Controls) {
        while let Ok(message) = self.messages.try_recv() {
            self.heed(message, controls).await;
        }
    }

    /// Says that connections are accepted here, and waits until they are nowhere else, at most
    /// [`TAKEOVER_RETIRED_TIME`]. After that the old process may still accept connections and carry out
    /// rollbacks, which [`Succession::lead`] heeds; that it follows is not confirmed until it does.
    pub(crate) async fn succeed(&mut self, controls: &Controls) {
        if let Err(error) = say(&self.writer, &ToOld::Serving).await {
            tracing::warn!(%error, "the process that served before is gone");
            return;
        }
        let until = Instant::now() + TAKEOVER_RETIRED_TIME;
        loop {
            match timeout_at(until, self.messages.recv()).await {
                Ok(Some(message)) => {
                    if self.heed(message, controls).await {
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    tracing::warn!("the process that served before does not say that it is done");
                    return;
                }
            }
        }
    }

    /// Closes the checks of rollbacks that the old process has begun. To be called once this one serves: until
    /// then the old one may have to go on with them.
    pub(crate) async fn close_checks(&self) {
        self.store.close_checks(self.found).await;
    }

    /// Lets the old process follow every change until it is gone.
    pub(crate) async fn lead(mut self, controls: Controls, followed: watch::Sender<u64>) {
        let mut published = controls.follow();
        loop {
            let now = published.borrow_and_update().clone();
            let mut state = Box::new((*now.state).clone());
            // Whoever has nothing to do with etcd any more has canaries closed by this one.
            state.stable_only |= now.isolated;
            if say(&self.writer, &ToOld::Follow { state }).await.is_err() {
                break;
            }
            if !self.hear(&controls, &mut published, &followed).await {
                break;
            }
        }
        followed.send_replace(NOBODY);
        tracing::info!("the process that served before has ended");
    }

    /// Heeds the old process until something is published here; false when either has ended.
    async fn hear(
        &mut self,
        controls: &Controls,
        published: &mut watch::Receiver<Arc<Published>>,
        followed: &watch::Sender<u64>,
    ) -> bool {
        loop {
            let message = tokio::select! {
                changed = published.changed() => return changed.is_ok(),
                message = self.messages.recv() => message,
            };
            match message {
                Some(ToNew::Followed { revision }) => {
                    followed.send_replace(revision);
                }
                Some(message) => {
                    self.heed(message, controls).await;
                }
                None => return false,
            }
        }
    }

    /// Whether nothing is accepted by the old process any more.
    async fn heed(&mut self, message: ToNew, controls: &Controls) -> bool {
        match message {
            ToNew::Carry {
                number,
                revision,
                urgent,
                author,
                record,
            } => {
                // What is in the state already is not done twice: a second rollback would go further back.
                let carried = if revision > self.found {
                    carry_out(controls, urgent, author, record).await
                } else {
                    if let Some(record) = record {
                        self.store.save_rollback(record);
                    }
                    Some(Durable::Known(true))
                };
                let writer = self.writer.clone();
                // What comes next must not wait until this one is on disk.
                tokio::spawn(async move {
                    let durable = match carried {
                        Some(mut durable) => durable.known().await,
                        None => false,
                    };
                    // If it is gone it does not matter.
                    let _ = say(&writer, &ToOld::Done { number, durable }).await;
                });
                false
            }
            ToNew::Audit { entries } => {
                for entry in entries {
                    self.store.audit(entry);
                }
                false
            }
            ToNew::Retired => true,
            _ => false,
        }
    }
}

async fn carry_out(
    controls: &Controls,
    urgent: Urgent,
    author: Author,
    record: Option<Box<Record>>,
) -> Option<Durable> {
    let (command, asked) = (urgent.into_command(), author.into_asked());
    let carried = controls.carry_out(command, asked, record).await;
    let carried = carried.inspect_err(
        |error| tracing::error!(%error, "carry out what the process before has decided"),
    );
    carried.ok()
}

/// One message at a time, each of them whole.
async fn say(writer: &Mutex<OwnedWriteHalf>, message: &ToOld) -> io::Result<()> {
    send(&mut *writer.lock().await, message).await
}

fn read(mut reader: OwnedReadHalf) -> mpsc::Receiver<ToNew> {
    let (sender, messages) = mpsc::channel(MESSAGES);
    tokio::spawn(async move {
        while let Ok(message) = receive(&mut reader).await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    messages
}

async fn in_time<T>(
    talk: impl Future<Output = Result<T, TakeoverError>>,
) -> Result<T, TakeoverError> {
    tokio::time::timeout(TAKEOVER_TIME, talk)
        .await
        .unwrap_or(Err(TakeoverError::Silent))
}

fn unexpected() -> TakeoverError {
    io::Error::other("it says something unexpected").into()
}

//! The control thread: the only one that changes where traffic goes.
//!
//! It owns the world, the judges and the snapshot builder, and never waits for anybody: commands
//! come in through bounded queues, the disk answers through another, the clock is read. Two queues
//! decide the order. Rollbacks and blocks are served first, and applied before they are persisted;
//! everything else is persisted first, one change at a time, and is looked at again if a rollback
//! came in between. Whoever asked waits for the workers' acknowledgement themselves, see
//! [`Controls::ask`].

mod published;
mod thread;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use switchback_config::defaults::{DURABLE_TIME, FENCE_TIME, FLEET_TIME};
use switchback_proxy::fence::{Fence, Unconfirmed};
use tokio::sync::{oneshot, watch};

use crate::builder::{Addresses, Material};
use crate::cluster::{Acknowledged, Fleet, NotAcknowledged};
use crate::command::{Asked, Command, Refusal};
use crate::controller::{Decision, Note};
use crate::evidence::Record;
use crate::handover::{Follower, Relay};
use crate::state::State;
use crate::timings::{Going, Rehearsed, Timings};
pub use published::{Published, ServiceStatus};
#[cfg(fuzzing)]
pub(crate) use thread::simulation;
pub use thread::{Start, start};

/// The way to the control thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Controls {
    urgent: SyncSender<Message>,
    ordinary: SyncSender<Message>,
    thread: Thread,
    published: watch::Receiver<Arc<Published>>,
    /// An older process whose last requests follow what is decided here.
    follower: Follower,
    /// The other instances.
    fleet: Option<Fleet>,
    /// How long ways back took.
    pub(crate) timings: Timings,
    /// How long the rollback of a drill took.
    pub(crate) rehearsed: Rehearsed,
}

/// What the control thread is told.
#[derive(Debug)]
enum Message {
    /// Carry out a command.
    Ask(Box<Request>),
    /// Another process is about to write the state: ordinary changes are refused from now on, others
    /// sent along. Answered when no change is being written.
    Lend(Relay, oneshot::Sender<()>),
    /// It did not happen; the last revision that the other process has written, if it has written
    /// anything.
    TakeBack(Option<u64>, oneshot::Sender<()>),
    /// It did: nothing is decided here any more, from the answer on.
    Retire(oneshot::Sender<()>),
    /// Do as the other process does.
    Follow(Box<State>, oneshot::Sender<Arc<Fence>>),
    /// Names have other addresses now.
    Addresses(Found, oneshot::Sender<()>),
    /// End.
    Stop,
}

/// What looking names up has brought. Other names stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The addresses of these names.
    pub(crate) addresses: Addresses,
    /// Names that nothing seemed to have any more.
    pub(crate) gone: Vec<(String, u16)>,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.gone.is_empty()
    }
}

/// What comes into force together with a file.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    /// Its certificates, if they are others.
    pub material: Option<Arc<Material>>,
    /// The addresses of names that are new in it.
    pub addresses: Addresses,
}

#[derive(Debug)]
struct Request {
    command: Command,
    asked: Asked,
    brought: Brought,
    /// What another process has seen, which decided it.
    record: Option<Box<Record>>,
    reply: oneshot::Sender<Result<Applied, Refusal>>,
}

/// What became of a command.
#[derive(Debug)]
pub struct Applied {
    /// Whether anything changed.
    pub changed: bool,
    /// What there is to say about it.
    pub notes: Vec<Note>,
    /// What is in force since.
    pub published: Arc<Published>,
    /// What would follow, for a dry run.
    pub planned: Option<Box<(Decision, Arc<Published>)>>,
    /// Opens when all workers follow; none if nothing changed.
    pub fence: Option<Arc<Fence>>,
    /// Whether it is persisted; may still be under way.
    durable: Durable,
    /// Whether other instances know.
    shared: Shared,
}

/// Whether a command is persisted.
#[derive(Debug)]
pub(crate) enum Durable {
    Known(bool),
    UnderWay(oneshot::Receiver<bool>),
}

/// Whether the other instances know of a command.
#[derive(Debug)]
pub(crate) enum Shared {
    /// There are none, or nothing has changed.
    Alone,
    /// They do, by this revision.
    Known(u64),
    /// The revision by which they will, or why it does not hold on what they have made of the state; closed:
    /// etcd is away.
    UnderWay(oneshot::Receiver<Result<u64, Refusal>>),
}

/// What became of a command, after everybody concerned has acknowledged it.
#[derive(Debug)]
pub struct Confirmed {
    /// The command's result.
    pub applied: Applied,
    /// From the swap to the last acknowledgement.
    pub applied_in: Duration,
    /// Whether it will survive a crash.
    pub durable: bool,
    /// The other instances follow; none: there are none.
    pub(crate) acknowledged: Option<Acknowledged>,
}

/// Why a command has no confirmed result.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It was refused; nothing has changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is in force, but not every worker has acknowledged in time.
    #[error("the change is in force, but {0}")]
    Unconfirmed(#[from] Unconfirmed),
    /// It is in force here, but an older process has not said in time that its last requests follow.
    #[error(
        "the change is in force, but the process that served before has not confirmed it in time"
    )]
    NotFollowed,
    /// It is in force here, but other instances have not said in time that they follow.
    #[error("the change is in force on this instance, but {0}")]
    NotAcknowledged(#[from] NotAcknowledged),
}

impl Applied {
    /// Waits for the workers, and for the disk as far as it is waited for.
    async fn confirm(mut self) -> Result<Confirmed, AskError> {
        let applied_in = match &self.fence {
            Some(fence) => fence.wait(FENCE_TIME).await?,
            None => Duration::ZERO,
        };
        let durable = self.durable.known().await;
        Ok(Confirmed {
            applied: self,
            applied_in,
            durable,
            acknowledged: None,
        })
    }
}

impl Durable {
    /// Waits for the disk, as far as it is waited for.
    pub(crate) async fn known(&mut self) -> bool {
        match self {
            Self::Known(durable) => *durable,
            Self::UnderWay(receiver) => {
                let answer = tokio::time::timeout(DURABLE_TIME, receiver).await;
                matches!(answer, Ok(Ok(true)))
            }
        }
    }
}

impl Controls {
    /// Asks for a change and waits until every worker follows it.
    ///
    /// # Errors
    /// When it is refused, or not acknowledged within a second.
    ///
    /// # Cancel safety
    /// The command is carried out even if this is dropped.
    pub async fn ask(&self, command: Command, asked: Asked) -> Result<Confirmed, AskError> {
        self.ask_with(command, asked, Brought::default()).await
    }

    /// The same, for a file that brings something along.
    ///
    /// # Errors
    /// As [`Controls::ask`].
    pub async fn ask_with(
        &self,
        command: Command,
        asked: Asked,
        brought: Brought,
    ) -> Result<Confirmed, AskError> {
        let going = Going::of(&command).filter(|_| !asked.dry_run);
        let before = self.published();
        let applied = self.request(command, asked, brought, None).await?;
        let revision = applied.published.state.revision;
        let mut confirmed = applied.confirm().await?;
        if let Some(going) = going.filter(|_| confirmed.applied.changed) {
            let way = going.way(&before, &confirmed.applied.published);
            self.timings.note(way, confirmed.applied_in);
        }
        self.wait_for_follower(revision).await?;
        let shared = std::mem::replace(&mut confirmed.applied.shared, Shared::Alone);
        confirmed.acknowledged = self.wait_for_fleet(shared).await?;
        Ok(confirmed)
    }

    /// Every instance follows whose lease lives.
    async fn wait_for_fleet(&self, shared: Shared) -> Result<Option<Acknowledged>, AskError> {
        let Some(fleet) = &self.fleet else {
            return Ok(None);
        };
        let began = Instant::now();
        let revision = match shared {
            Shared::Alone => return Ok(None),
            Shared::Known(revision) => revision,
            Shared::UnderWay(revision) => match tokio::time::timeout(FLEET_TIME, revision).await {
                Ok(Ok(revision)) => revision?,
                Ok(Err(_)) | Err(_) => return Err(NotAcknowledged::Away.into()),
            },
        };
        let instances = fleet.follows(revision, FLEET_TIME).await?;
        Ok(Some(Acknowledged {
            applied: instances,
            of: instances,
            slowest: began.elapsed(),
        }))
    }

    /// The other instances; none: there are none.
    #[must_use]
    pub const fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// Whether this instance does what only one may do: it leads, or it is alone.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.fleet.as_ref().is_none_or(Fleet::leads)
    }

    /// Carries out what an older process has decided, and therefore follows already. `record`: what it has
    /// seen. Every worker follows once this returns; the disk is not waited for.
    pub(crate) async fn carry_out(
        &self,
        command: Command,
        asked: Asked,
        record: Option<Box<Record>>,
    ) -> Result<Durable, AskError> {
        let brought = Brought::default();
        let applied = self.request(command, asked, brought, record).await?;
        if let Some(fence) = &applied.fence {
            fence.wait(FENCE_TIME).await?;
        }
        Ok(applied.durable)
    }

    async fn request(
        &self,
        command: Command,
        asked: Asked,
        brought: Brought,
        record: Option<Box<Record>>,
    ) -> Result<Applied, Refusal> {
        let (reply, answer) = oneshot::channel();
        let urgent = command.is_urgent();
        let request = Request {
            command,
            asked,
            brought,
            record,
            reply,
        };
        self.send(Message::Ask(Box::new(request)), urgent)?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }

    /// The requests that an older process still serves follow too.
    async fn wait_for_follower(&self, revision: u64) -> Result<(), AskError> {
        let mut follower = self.follower.clone();
        let follows = follower.wait_for(|followed| *followed >= revision);
        match tokio::time::timeout(FENCE_TIME, follows).await {
            Ok(_) => Ok(()),
            Err(_) => Err(AskError::NotFollowed),
        }
    }

    /// Waits until the requests that an older process still serves follow a revision, however long that takes.
    #[cfg(feature = "etcd")]
    pub(crate) async fn followed(&self, revision: u64) {
        let mut follower = self.follower.clone();
        // Without a sender there is nobody who follows.
        let _ = follower.wait_for(|followed| *followed >= revision).await;
    }

    /// Refuses ordinary changes from now on, and sends others along. Returns when no change is being
    /// written.
    pub(crate) async fn lend(&self, relay: Relay) -> std::io::Result<()> {
        let (told, is_told) = oneshot::channel();
        self.send(Message::Lend(relay, told), true)
            .map_err(std::io::Error::other)?;
        is_told.await.map_err(std::io::Error::other)
    }

    /// Decides again after [`Controls::lend`]. `written`: the last revision that the other process has
    /// written, if it has written anything.
    pub(crate) async fn take_back(&self, written: Option<u64>) {
        self.tell(|told| Message::TakeBack(written, told)).await;
    }

    /// Decides nothing any more after [`Controls::lend`], once this returns.
    pub(crate) async fn retire(&self) {
        self.tell(Message::Retire).await;
    }

    /// Tells what must not be lost, however many commands wait.
    async fn tell<T>(&self, message: impl Fn(oneshot::Sender<T>) -> Message) -> Option<T> {
        loop {
            let (told, is_told) = oneshot::channel();
            match self.send(message(told), true) {
                Err(Refusal::Busy) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(_) => return None,
                Ok(()) => return is_told.await.ok(),
            }
        }
    }

    /// Does as another process does. The fence opens when all workers follow; none if nothing is decided
    /// here any more.
    pub(crate) async fn follow_state(&self, state: State) -> Option<Arc<Fence>> {
        self.tell(|told| Message::Follow(Box::new(state.clone()), told))
            .await
    }

    /// Tells where names point now. In force once this returns; neither the disk nor other commands are
    /// waited for.
    pub(crate) async fn set_addresses(&self, found: Found) {
        self.tell(|told| Message::Addresses(found.clone(), told))
            .await;
    }

    /// Ends the control thread.
    pub fn stop(&self) {
        let _ = self.send(Message::Stop, true);
    }

    fn send(&self, message: Message, urgent: bool) -> Result<(), Refusal> {
        let queue = if urgent { &self.urgent } else { &self.ordinary };
        let sent = queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Busy,
            TrySendError::Disconnected(_) => Refusal::Stopping,
        });
        self.thread.unpark();
        sent
    }

    /// What is in force now.
    #[must_use]
    pub fn published(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// Follows what is in force.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }
}

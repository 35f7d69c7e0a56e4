//! What the control thread and the link to etcd say to each other.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::Thread;
use std::time::Duration;

use switchback_config::model::Name;
use switchback_proxy::fence::Fence;
use tokio::sync::{mpsc, watch};

use super::Head;
use super::entry::Sealed;
use super::list::Regained;
use crate::state::State;

/// What the control thread hears of the others.
#[derive(Debug)]
pub(crate) enum News {
    /// The link is up. What is shared; none: nothing was ever shared. `follows`: it goes on from the head that
    /// this instance had, which is not so after etcd was restored from a backup.
    Joined {
        shared: Option<Box<State>>,
        /// The changes after that head, as far as they are still there.
        missed: Vec<Sealed>,
        follows: bool,
        /// Somebody has brought back what etcd had lost.
        regained: Option<Regained>,
    },
    /// Changes after the last ones, in order.
    Changes(Vec<Sealed>),
    /// A change was not added: it came second, or cannot be written.
    Refused { hash: String, why: NotAdded },
    /// The link is down; whether a change was added that was under way is not known.
    Away,
    /// Half of the lease has gone by without a sign of life, or that is over.
    Isolated(bool),
    /// So many instances share the promise about false rollbacks.
    Judges(u32),
}

/// Why a change was not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotAdded {
    /// Others were first; their changes come.
    Second,
    /// It is longer than etcd takes.
    TooLong(usize),
}

/// What is served here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    /// The last shared change in it.
    pub(crate) head: Option<Head>,
    /// Opens when every worker follows.
    pub(crate) fence: Option<Arc<Fence>>,
    /// Canaries have weight 0, whatever it says: it is stable that is served.
    pub(crate) isolated: bool,
}

/// The control thread's end.
#[derive(Debug)]
pub(crate) struct ControlEnd {
    /// The name of this instance.
    pub(crate) instance: Name,
    pub(crate) proposals: mpsc::Sender<Sealed>,
    pub(crate) news: Receiver<News>,
    pub(crate) served: watch::Sender<Served>,
}

/// The link's end.
#[derive(Debug)]
pub(crate) struct LinkEnd {
    pub(crate) proposals: mpsc::Receiver<Sealed>,
    pub(crate) served: watch::Receiver<Served>,
    teller: Teller,
}

/// Tells the control thread. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    news: SyncSender<News>,
    thread: watch::Receiver<Option<Thread>>,
}

impl LinkEnd {
    /// Tells the control thread.
    pub(crate) async fn tell(&self, news: News) {
        self.teller.tell(news).await;
    }

    /// The same for others.
    pub(crate) fn teller(&self) -> Teller {
        self.teller.clone()
    }
}

impl Teller {
    /// Tells the control thread, which takes it in within milliseconds.
    pub(crate) async fn tell(&self, news: News) {
        let mut news = news;
        while let Err(TrySendError::Full(again)) = self.news.try_send(news) {
            news = again;
            self.wake();
            tokio::time::sleep(FULL).await;
        }
        self.wake();
    }

    /// The same, if there is a place.
    #[cfg(test)]
    pub(crate) fn try_tell(&self, news: News) -> bool {
        self.news.try_send(news).is_ok()
    }

    fn wake(&self) {
        if let Some(thread) = &*self.thread.borrow() {
            thread.unpark();
        }
    }
}

/// What the control thread begins to share with.
#[derive(Debug)]
pub struct Joining {
    pub(crate) end: ControlEnd,
    /// Told which thread to wake.
    pub(crate) thread: watch::Sender<Option<Thread>>,
    pub(crate) fleet: super::Fleet,
    /// Whether canaries get nothing until others wait for this instance.
    pub(crate) isolated: bool,
}

/// Changes on their way to etcd: one at a time, and what a session that has ended did not take.
const PROPOSALS: usize = 16;

/// News that the control thread has not heard yet.
pub(crate) const NEWS: usize = 256;

/// How long to wait for a place among them.
const FULL: Duration = Duration::from_millis(1);

/// Both ends; the sender is told which thread to wake. `own`: the last change that is in the state of this
/// instance. `isolated`: canaries are closed at first.
pub(crate) fn ends(
    instance: Name,
    own: Option<Head>,
    isolated: bool,
) -> (ControlEnd, LinkEnd, watch::Sender<Option<Thread>>) {
    let (proposals, proposed) = mpsc::channel(PROPOSALS);
    let (news, heard) = sync_channel(NEWS);
    let (served, is_served) = watch::channel(Served {
        head: own,
        fence: None,
        isolated,
    });
    let (woken, thread) = watch::channel(None);
    let control = ControlEnd {
        instance,
        proposals,
        news: heard,
        served,
    };
    let link = LinkEnd {
        proposals: proposed,
        served: is_served,
        teller: Teller { news, thread },
    };
    (control, link, woken)
}

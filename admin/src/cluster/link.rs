//! The link to etcd: joins, carries changes both ways, and keeps a lease.
//!
//! One task runs one [`session`] after the other. A session begins with everything that is shared, as of
//! one moment, and follows from there; whatever goes wrong ends it, and the next one begins the same way, so
//! there is no other way to catch up and nothing to be missed.

mod counters;
mod etcd;
mod forgotten;
mod keys;
mod pack;
mod pulse;
mod read;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use switchback_config::defaults::JOIN_TIME;
use switchback_config::model::{Cluster, Name};
use tokio::sync::{mpsc, watch};

use super::fleet::Ordered;
use super::pool::Counter;
use super::wire::{self, Joining, LinkEnd, News, Teller};
use super::{About, Contact, Fleet, Head, NotBuilt, Roster};
use crate::control::Controls;
use crate::resolver::Resolver;
use keys::Keys;
use pulse::Pulse;

/// Between two attempts to reach etcd.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The link before it is up.
#[derive(Debug)]
pub(crate) struct Link {
    cluster: Cluster,
    base: PathBuf,
    fleet: Fleet,
    end: LinkEnd,
    shown: Arc<Shown>,
    orders: mpsc::Receiver<Ordered>,
    fresh: bool,
    /// What was counted here, over all sessions.
    counter: Arc<Mutex<Counter>>,
}

/// What others see of the link.
#[derive(Debug)]
pub(super) struct Shown {
    roster: watch::Sender<Arc<Roster>>,
    standing: Mutex<Standing>,
}

/// How this instance stands: a lease may be in doubt while there is a session, and the other way round.
#[derive(Debug)]
struct Standing {
    joined: bool,
    isolated: bool,
    since: Timestamp,
    reason: String,
}

impl Shown {
    fn change(&self, change: impl FnOnce(&mut Roster)) {
        self.roster
            .send_modify(|roster| change(Arc::make_mut(roster)));
    }

    fn set_joined(&self, roster: Roster) {
        self.change(|shown| *shown = roster);
        self.stand(|standing| standing.joined = true);
    }

    /// Those who have closed their canaries by now need not be waited for.
    fn forget_awaited(&self, now: Instant) {
        let is_over = |roster: &Arc<Roster>| roster.awaited.values().any(|until| *until <= now);
        self.roster.send_if_modified(|roster| {
            let some = is_over(roster);
            if some {
                Arc::make_mut(roster)
                    .awaited
                    .retain(|_, until| *until > now);
            }
            some
        });
    }

    fn set_away(&self, reason: &str) {
        self.stand(|standing| {
            if std::mem::replace(&mut standing.joined, false) && !standing.isolated {
                standing.since = Timestamp::now();
            }
            reason.clone_into(&mut standing.reason);
        });
    }

    fn set_isolated(&self, now: bool) {
        self.stand(|standing| {
            if !std::mem::replace(&mut standing.isolated, now) && now && standing.joined {
                standing.since = Timestamp::now();
                "the lease was not renewed".clone_into(&mut standing.reason);
            }
        });
    }

    fn stand(&self, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut standing);
        let contact = match standing.joined && !standing.isolated {
            true => Contact::Joined,
            false => Contact::Away {
                since: standing.since,
                reason: standing.reason.clone(),
                isolated: standing.isolated,
            },
        };
        let hears = standing.joined;
        self.change(|roster| (roster.contact, roster.hears) = (contact, hears));
    }
}

/// Makes both ends of the link. `own`: the last change that is in the state of this instance. `fresh`: nobody has
/// served under its name until now, so canaries wait until others wait for it.
#[expect(clippy::unnecessary_wraps, reason = "as where it is not built in")]
pub(crate) fn prepare(
    cluster: &Cluster,
    base: PathBuf,
    own: Option<Head>,
    fresh: bool,
) -> Result<(Joining, Link), NotBuilt> {
    let instance = cluster.instance.clone().unwrap_or_else(machine);
    let (end, link_end, thread) = wire::ends(instance.clone(), own, fresh);
    let (shown, roster) = watch::channel(Arc::new(Roster::unknown(Timestamp::now())));
    let (order, orders) = mpsc::channel(8);
    let fleet = Fleet {
        instance,
        cluster: cluster.name.clone(),
        roster,
        orders: order,
    };
    let link = Link {
        cluster: cluster.clone(),
        base,
        fleet: fleet.clone(),
        end: link_end,
        shown: Arc::new(Shown {
            roster: shown,
            standing: Mutex::new(Standing {
                joined: false,
                isolated: fresh,
                since: Timestamp::now(),
                reason: "it has not answered yet".into(),
            }),
        }),
        orders,
        fresh,
        // Totals of an earlier process with this name are others.
        counter: Arc::new(Mutex::new(Counter::new(fastrand::u64(..1 << 60)))),
    };
    let joining = Joining {
        end,
        thread,
        fleet,
        isolated: fresh,
    };
    Ok((joining, link))
}

/// The name of the machine, as far as it is one for an instance.
fn machine() -> Name {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().into_owned();
    match switchback_config::is_name(&name) {
        true => name,
        false => "instance".into(),
    }
}

impl Link {
    /// Brings it up, and waits until what is shared is in force here, or for a while.
    pub(crate) async fn start(
        self,
        controls: Controls,
        resolver: Resolver,
        about: About,
    ) -> Running {
        // A lease that never was has ended long ago.
        let now = Instant::now();
        let ended = now.checked_sub(self.cluster.lease.0).unwrap_or(now);
        let (pulse, heard) = watch::channel(if self.fresh { ended } else { now });
        let (stop, stopped) = watch::channel(false);
        let teller = self.end.teller();
        let lease = self.cluster.lease.0;
        let watched = pulse::watch(heard, lease, self.fresh, teller, self.shown.clone());
        let mut roster = self.fleet.roster.clone();
        let name = self.fleet.instance.clone();
        let tasks = vec![
            tokio::spawn(watched).abort_handle(),
            tokio::spawn(self.run(controls, resolver, about, pulse, stopped)).abort_handle(),
        ];
        let serves = |roster: &Arc<Roster>| {
            let own = roster.instances.get(&name);
            let head = roster.head.as_ref();
            roster.is_joined() && own.is_some_and(|own| own.serves.as_ref() >= head)
        };
        if tokio::time::timeout(JOIN_TIME, roster.wait_for(serves))
            .await
            .is_err()
        {
            tracing::warn!(
                "the cluster could not be joined yet; what was last known here is in force"
            );
        }
        Running { tasks, stop }
    }

    async fn run(
        mut self,
        controls: Controls,
        resolver: Resolver,
        about: About,
        pulse: Pulse,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut pause = RETRY.0;
        let mut said = String::new();
        loop {
            let keys = Keys::new(&self.cluster);
            let session =
                session::Session::open(&mut self, &keys, &controls, &resolver, &about, &pulse);
            let ended = match session.await {
                Ok(session) => {
                    pause = RETRY.0;
                    said.clear();
                    session.run(&mut stopped).await
                }
                Err(reason) => Err(reason),
            };
            let Err(reason) = ended else { return };
            // Once for each thing that is wrong.
            if reason != said {
                tracing::warn!(reason, "etcd");
                said.clone_from(&reason);
            }
            self.end.tell(News::Away).await;
            self.shown.set_away(&reason);
            // Nobody waits for an answer that does not come.
            while let Ok((_, told)) = self.orders.try_recv() {
                let _ = told.send(Err("etcd cannot be reached".into()));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
                () = ends(&mut stopped) => return,
            }
        }
    }
}

/// Until the process ends.
async fn ends(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// A link that is up.
#[derive(Debug)]
pub(crate) struct Running {
    tasks: Vec<tokio::task::AbortHandle>,
    stop: watch::Sender<bool>,
}

impl Running {
    /// Leaves the lease to end by itself: another process has this instance's name now, and others must not
    /// forget it before that one has said what it serves.
    pub(crate) fn abandon(self) {
        for task in self.tasks {
            task.abort();
        }
    }

    /// Says goodbye to the others, so that nobody waits for this instance.
    pub(crate) async fn stop(self) {
        let told = self.stop.send(true);
        if told.is_ok() {
            let gone = self.stop.closed();
            let _ = tokio::time::timeout(switchback_config::defaults::ETCD_TIME, gone).await;
        }
        for task in self.tasks {
            task.abort();
        }
    }
}

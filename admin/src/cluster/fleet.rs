//! What the admin API asks about the other instances: who they are, and whether they follow.

use std::sync::Arc;
use std::time::Duration;

use switchback_config::defaults::ETCD_TIME;
use switchback_config::model::Name;
use tokio::sync::{mpsc, oneshot, watch};

use super::Roster;

/// The other instances. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The name of this instance.
    pub(crate) instance: Name,
    /// The name of the cluster.
    pub(crate) cluster: Name,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    /// To whom orders about instances go.
    pub(crate) orders: mpsc::Sender<Ordered>,
}

/// What is done about an instance.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Takes it out of use, or back into it.
    Drain { instance: Name, draining: bool },
    /// Forgets it: it is gone.
    Remove { instance: Name },
}

impl Order {
    /// Whether it shows.
    fn is_done(&self, roster: &Roster) -> bool {
        match self {
            Self::Drain { instance, draining } => roster.members.get(instance) == Some(draining),
            Self::Remove { instance } => !roster.members.contains_key(instance),
        }
    }
}

/// An order and who waits for it.
pub(crate) type Ordered = (Order, oneshot::Sender<Result<(), String>>);

/// Every instance with a living lease serves a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// How many serve it.
    pub(crate) applied: usize,
    /// How many there are.
    pub(crate) of: usize,
    /// When the last one said so.
    pub(crate) slowest: Duration,
}

/// A change is in force here, but not known to be elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAcknowledged {
    /// etcd is away.
    #[error(
        "the other instances do not know of it, since etcd cannot be reached; it is kept and told to them as soon as it can"
    )]
    Away,
    /// Some do not serve it yet.
    #[error("not every instance has said in time that it follows: {} of {of} have not ({})", behind.len(), behind.join(", "))]
    Late {
        /// Which ones.
        behind: Vec<Name>,
        /// How many there are.
        of: usize,
    },
}

impl Fleet {
    /// Who is there now.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.borrow().clone()
    }

    /// Whether this instance is the one that does what only one may do.
    #[must_use]
    pub fn leads(&self) -> bool {
        let roster = self.roster.borrow();
        roster.is_joined() && roster.leader.as_ref() == Some(&self.instance)
    }

    /// Whether this instance is to get no new clients.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let roster = self.roster.borrow();
        roster.members.get(&self.instance).copied().unwrap_or(false)
    }

    /// Has something done about an instance, and waits until that is known here.
    ///
    /// # Errors
    /// When etcd cannot be reached or does not do it, in words.
    pub(crate) async fn order(&self, order: Order) -> Result<(), String> {
        let away = || "etcd cannot be reached".to_owned();
        let (told, done) = oneshot::channel();
        if !self.roster().is_joined() {
            return Err(away());
        }
        let mut roster = self.roster.clone();
        let wanted = order.clone();
        self.orders.try_send((order, told)).map_err(|_| away())?;
        done.await.map_err(|_| away())??;
        // Whoever looks next sees it; if not yet, it is done all the same.
        let _ =
            tokio::time::timeout(ETCD_TIME, roster.wait_for(|roster| wanted.is_done(roster))).await;
        Ok(())
    }

    /// Waits until every instance with a living lease serves a revision, at most for `patience`;
    /// how many there are.
    pub(crate) async fn follows(
        &self,
        revision: u64,
        patience: Duration,
    ) -> Result<usize, NotAcknowledged> {
        let mut roster = self.roster.clone();
        let all_follow = |roster: &Arc<Roster>| {
            let knows = roster.instances.contains_key(&self.instance);
            !roster.hears || knows && roster.behind(revision).is_empty()
        };
        let done = tokio::time::timeout(patience, roster.wait_for(all_follow)).await;
        if let Ok(Ok(roster)) = done
            && roster.hears
        {
            return Ok(roster.count());
        }
        let roster = self.roster();
        match roster.hears {
            false => Err(NotAcknowledged::Away),
            true => Err(NotAcknowledged::Late {
                behind: roster.behind(revision),
                of: roster.count(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// An instance that has just come back hears the others before it knows that its lease lives.
    #[tokio::test]
    async fn whoever_hears_the_others_waits_for_them_also_while_its_own_lease_is_in_doubt() {
        let mut roster = Roster::unknown(Timestamp::UNIX_EPOCH);
        let (shown, watched) = watch::channel(Arc::new(roster.clone()));
        let fleet = Fleet {
            instance: "a".into(),
            cluster: "edge".into(),
            roster: watched,
            orders: mpsc::channel(1).0,
        };
        let follows = || fleet.follows(0, Duration::ZERO);
        assert_eq!(follows().await, Err(NotAcknowledged::Away));
        roster.hears = true;
        shown.send_replace(Arc::new(roster));
        let late = NotAcknowledged::Late {
            behind: Vec::new(),
            of: 0,
        };
        assert_eq!(follows().await, Err(late), "it is not known itself yet");
    }
}

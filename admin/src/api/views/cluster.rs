//! The instances that share one state, as one of them knows them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::Name;
use utoipa::ToSchema;

use crate::cluster::{Contact, Fleet, Head, Instance, Roster};

/// The instances that share one state.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Cluster {
    /// The name of the cluster.
    pub(crate) name: Name,
    /// The instance that answers.
    pub(crate) instance: Name,
    /// Whether it knows what the others do.
    pub(crate) contact: Known,
    /// Why not, and since when.
    pub(crate) away: Option<Away>,
    /// The instance that moves rollouts and ends leases; none: nobody does.
    pub(crate) leader: Option<Name>,
    /// Where the list of changes ends, as far as this instance knows.
    pub(crate) head: Option<Head>,
    /// Everybody who has ever joined and was not removed, in the order of their names.
    pub(crate) instances: Vec<Member>,
}

/// Whether an instance knows what the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ClusterContact)]
pub(crate) enum Known {
    /// It hears what the others do, and they hear from it.
    Joined,
    /// etcd cannot be reached: what is said of the others is what was last known.
    Away,
}

/// An instance that cannot reach etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ClusterAway)]
pub(crate) struct Away {
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// What went wrong last.
    pub(crate) reason: String,
    /// Half of its lease has gone by: canaries have weight 0 on it.
    pub(crate) isolated: bool,
}

/// One of the instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ClusterInstance)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: Name,
    /// Whether it is waited for: its lease lives.
    pub(crate) alive: bool,
    /// Whether it is to get no new clients: its `/readyz` says 503.
    pub(crate) draining: bool,
    /// The last change that every worker of it follows; none: nothing is known, or nothing is shared.
    pub(crate) revision: Option<u64>,
    /// How many changes it is behind; none: it is not alive.
    pub(crate) lag: Option<u64>,
    /// Hash of the part of its config file that should be the same everywhere.
    pub(crate) baseline: Option<String>,
    /// Whether that is another one than that of the instance that answers; none: it is not known.
    pub(crate) baseline_differs: Option<bool>,
    /// Its release of switchback.
    pub(crate) release: Option<String>,
    /// Where its admin API listens.
    pub(crate) admin: Option<String>,
    /// Since when it runs.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) started: Option<Timestamp>,
}

impl Cluster {
    /// What an instance knows.
    pub(crate) fn of(fleet: &Fleet) -> Self {
        Self::at(&fleet.cluster, &fleet.instance, &fleet.roster())
    }

    fn at(name: &Name, instance: &Name, roster: &Roster) -> Self {
        let (contact, away) = match &roster.contact {
            Contact::Joined => (Known::Joined, None),
            Contact::Away {
                since,
                reason,
                isolated,
            } => {
                let away = Away {
                    since: *since,
                    reason: reason.clone(),
                    isolated: *isolated,
                };
                (Known::Away, Some(away))
            }
        };
        let own = roster.instances.get(instance);
        let own = own.map(|own| own.baseline.as_str());
        let names = roster.members.keys().chain(roster.instances.keys());
        let names: BTreeSet<&Name> = names.collect();
        Self {
            name: name.clone(),
            instance: instance.clone(),
            contact,
            away,
            leader: roster.leader.clone(),
            head: roster.head.clone(),
            instances: names.iter().map(|name| member(roster, name, own)).collect(),
        }
    }

    /// Whether this instance hears nothing for so long that canaries have weight 0 on it.
    pub(crate) fn is_isolated(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.isolated)
    }

    /// Those whose lease lives.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &Member> {
        self.instances.iter().filter(|member| member.alive)
    }

    /// The instance that answers, if it is known among the others.
    pub(crate) fn own(&self) -> Option<&Member> {
        let mut members = self.instances.iter();
        members.find(|member| member.name == self.instance)
    }
}

fn member(roster: &Roster, name: &Name, own: Option<&str>) -> Member {
    let instance: Option<&Instance> = roster.instances.get(name);
    let serves = instance.and_then(|instance| instance.serves.as_ref());
    let head = roster.head.as_ref().map_or(0, |head| head.revision);
    let revision = serves.map(|head| head.revision);
    let baseline = instance.map(|instance| instance.baseline.clone());
    Member {
        name: name.clone(),
        alive: instance.is_some(),
        draining: roster.members.get(name).copied().unwrap_or(false),
        revision,
        lag: instance.map(|_| head.saturating_sub(revision.unwrap_or(0))),
        baseline_differs: own.and_then(|own| Some(baseline.as_deref()? != own)),
        baseline,
        release: instance.map(|instance| instance.release.clone()),
        admin: instance.map(|instance| instance.admin.clone()),
        started: instance.map(|instance| instance.started),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn head(revision: u64) -> Head {
        Head {
            revision,
            hash: format!("{revision:064}"),
        }
    }

    fn instance(revision: Option<u64>, baseline: &str) -> Instance {
        Instance {
            serves: revision.map(head),
            baseline: baseline.into(),
            release: "1.0.0".into(),
            admin: "127.0.0.1:9900".into(),
            started: Timestamp::UNIX_EPOCH,
            home: String::new(),
        }
    }

    fn roster() -> Roster {
        let members = [("one", false), ("two", true), ("three", false)];
        Roster {
            contact: Contact::Joined,
            hears: true,
            instances: BTreeMap::from([
                ("one".into(), instance(Some(9), "aaaa")),
                ("two".into(), instance(Some(7), "bbbb")),
            ]),
            awaited: BTreeMap::new(),
            members: members.map(|(name, drained)| (name.into(), drained)).into(),
            leader: Some("two".into()),
            head: Some(head(9)),
        }
    }

    fn seen(roster: &Roster) -> Cluster {
        Cluster::at(&"shop".into(), &"one".into(), roster)
    }

    #[test]
    fn lag_is_counted_from_the_last_change() {
        let cluster = seen(&roster());
        let lag = |name: &str| {
            let mut members = cluster.instances.iter();
            members.find(|member| member.name == name).map(|m| m.lag)
        };
        assert_eq!(lag("one"), Some(Some(0)));
        assert_eq!(lag("two"), Some(Some(2)));
        assert_eq!(lag("three"), Some(None));
    }

    #[test]
    fn instance_that_serves_nothing_shared_lags_by_everything() {
        let mut roster = roster();
        roster
            .instances
            .insert("two".into(), instance(None, "aaaa"));
        let cluster = seen(&roster);
        assert_eq!(cluster.instances[2].name, "two");
        assert_eq!(cluster.instances[2].lag, Some(9));
        assert_eq!(cluster.instances[2].revision, None);
    }

    #[test]
    fn member_without_a_lease_is_listed_and_not_alive() {
        let cluster = seen(&roster());
        let alive: Vec<&str> = cluster.alive().map(|member| member.name.as_str()).collect();
        assert_eq!(alive, ["one", "two"]);
        assert_eq!(cluster.instances.len(), 3);
        assert!(cluster.instances.iter().any(|member| member.draining));
    }

    #[test]
    fn file_is_compared_with_that_of_the_instance_that_answers() {
        let cluster = seen(&roster());
        let differs = cluster.instances.iter().map(|m| m.baseline_differs);
        let differs: Vec<Option<bool>> = differs.collect();
        assert_eq!(differs, [Some(false), None, Some(true)]);
    }

    #[test]
    fn nothing_is_said_of_files_before_the_own_one_is_known() {
        let mut roster = roster();
        roster.instances.remove("one");
        let cluster = seen(&roster);
        assert!(
            cluster
                .instances
                .iter()
                .all(|m| m.baseline_differs.is_none())
        );
        assert!(!cluster.own().is_some_and(|own| own.alive));
    }

    #[test]
    fn instance_away_says_since_when_and_why() {
        let mut roster = roster();
        roster.contact = Contact::Away {
            since: Timestamp::UNIX_EPOCH,
            reason: "no answer within 2 s".into(),
            isolated: true,
        };
        let cluster = seen(&roster);
        assert_eq!(cluster.contact, Known::Away);
        assert!(cluster.is_isolated());
        let told = serde_json::json!(cluster);
        assert_eq!(told["contact"], "away");
        assert_eq!(told["away"]["since"], "1970-01-01T00:00:00Z");
        assert_eq!(told["away"]["reason"], "no answer within 2 s");
    }
}

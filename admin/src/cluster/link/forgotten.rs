//! Whom etcd has forgotten: after it has lost what it knew, the others are unknown until they have joined again,
//! and one that has not noticed yet may still send requests to a version that this instance takes out of use.

use std::collections::BTreeMap;
use std::time::Instant;

use switchback_config::model::Name;

use crate::cluster::{Instance, Roster};

/// Whom to wait for after joining again: known until now, but not to etcd. They have closed their canaries when
/// they had no answer of it for half a lease.
pub(super) fn forgotten(
    before: &Roster,
    alive: &BTreeMap<Name, Instance>,
    own: &Name,
    closed: Instant,
) -> BTreeMap<Name, Instant> {
    let known = before.instances.keys().chain(before.awaited.keys());
    known
        .filter(|name| *name != own && !alive.contains_key(*name))
        .map(|name| (name.clone(), closed))
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::cluster::Head;

    fn serves(revision: u64) -> Instance {
        let hash = String::new();
        Instance {
            serves: Some(Head { revision, hash }),
            baseline: String::new(),
            release: String::new(),
            admin: String::new(),
            started: Timestamp::UNIX_EPOCH,
            home: String::new(),
        }
    }

    #[test]
    fn those_whom_etcd_has_forgotten_are_waited_for_like_those_who_are_late() {
        let mut before = Roster::unknown(Timestamp::UNIX_EPOCH);
        before.instances = ["a", "b", "c", "d"]
            .map(|name| (Name::from(name), serves(7)))
            .into();
        let alive = BTreeMap::from([("a".into(), serves(8)), ("b".into(), serves(7))]);
        let until = Instant::now();
        let mut now = before.clone();
        now.awaited = forgotten(&before, &alive, &"a".into(), until);
        now.instances = alive;
        assert_eq!(now.count(), 4);
        assert_eq!(now.behind(8), ["b", "c", "d"]);
        assert_eq!(now.behind(7), ["c", "d"]);
        // Lost once more before they are heard of.
        let again = forgotten(&now, &now.instances, &"a".into(), until);
        assert_eq!(again, now.awaited);
    }
}

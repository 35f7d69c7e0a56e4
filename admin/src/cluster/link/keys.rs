//! Where things are in etcd. Values are JSON, long ones [packed](super::pack).
//!
//! | key | what |
//! | --- | --- |
//! | `head` | number and hash of the last change; comparing it is what puts changes into one order |
//! | `fleet/log/<number>` | the changes |
//! | `fleet/instances/<instance>` | what an instance serves, under its lease |
//! | `fleet/members/<instance>` | everyone who has joined and was not removed |
//! | `fleet/leader` | who leads, under their lease |
//! | `checkpoint` | the whole state after one of the last changes |
//! | `counters/<instance>` | what an instance has counted of watched versions, under its lease |
//!
//! Everybody watches what is below `fleet/`; counters, only who leads.

use switchback_config::model::{Cluster, Name};

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: String,
}

/// What a key below `fleet/` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Log(u64),
    Instance(Name),
    Member(Name),
    Leader,
}

impl Keys {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let (prefix, name) = (&cluster.etcd.prefix, &cluster.name);
        Self {
            root: format!("{prefix}/{name}"),
        }
    }

    pub(super) fn head(&self) -> String {
        format!("{}/head", self.root)
    }

    pub(super) fn checkpoint(&self) -> String {
        format!("{}/checkpoint", self.root)
    }

    pub(super) fn fleet(&self) -> String {
        format!("{}/fleet/", self.root)
    }

    pub(super) fn log(&self, revision: u64) -> String {
        format!("{}/fleet/log/{revision:020}", self.root)
    }

    pub(super) fn instance(&self, name: &str) -> String {
        format!("{}/fleet/instances/{name}", self.root)
    }

    pub(super) fn member(&self, name: &str) -> String {
        format!("{}/fleet/members/{name}", self.root)
    }

    pub(super) fn leader(&self) -> String {
        format!("{}/fleet/leader", self.root)
    }

    pub(super) fn counters(&self, name: &str) -> String {
        format!("{}/counters/{name}", self.root)
    }

    /// What a key below `fleet/` says; none: somebody else's.
    pub(super) fn place(&self, key: &[u8]) -> Option<Place> {
        let key = std::str::from_utf8(key).ok()?;
        let rest = key.strip_prefix(&self.root)?.strip_prefix("/fleet/")?;
        match rest.split_once('/') {
            None if rest == "leader" => Some(Place::Leader),
            Some(("log", number)) => number.parse().ok().map(Place::Log),
            Some(("instances", name)) => Some(Place::Instance(name.to_owned())),
            Some(("members", name)) => Some(Place::Member(name.to_owned())),
            _ => None,
        }
    }

    /// Whose counters a key has.
    pub(super) fn counted_by<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let key = std::str::from_utf8(key).ok()?;
        key.strip_prefix(&self.root)?.strip_prefix("/counters/")
    }
}

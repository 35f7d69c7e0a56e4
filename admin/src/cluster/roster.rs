//! Who is there, and what each of them serves.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::{Config, Name};
use utoipa::ToSchema;

use super::Head;

/// What an instance tells about itself, under its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// The last change that every worker of it follows.
    #[serde(flatten)]
    #[schema(inline)]
    pub serves: Option<Head>,
    /// Hash of its config file as it is in force, without what is its own.
    pub baseline: String,
    /// Its release.
    pub release: String,
    /// Where its admin API listens.
    pub admin: String,
    /// Since when it runs.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// Whose state directory it has: two processes with one name are told apart by it.
    #[serde(default)]
    #[schema(ignore)]
    pub(crate) home: String,
}

/// What does not change about an instance.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Where its admin API listens.
    pub(crate) admin: String,
    /// Since when it runs.
    pub(crate) started: Timestamp,
    /// Names its state directory.
    pub(crate) home: String,
}

impl About {
    /// What is told of it now.
    pub(crate) fn instance(&self, serves: Option<Head>, config: &Config) -> Instance {
        Instance {
            serves,
            baseline: baseline(config),
            release: env!("CARGO_PKG_VERSION").into(),
            admin: self.admin.clone(),
            started: self.started,
            home: self.home.clone(),
        }
    }
}

/// SHA-256 of the part of a file that is the same on all instances, its first 16 digits.
fn baseline(config: &Config) -> String {
    let shared = (
        &config.routes,
        &config.services,
        &config.flags,
        &config.runbooks,
    );
    let text = serde_json::to_vec(&shared).unwrap_or_default();
    super::entry::hash(&text).chars().take(16).collect()
}

/// How this instance stands with etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "contact", rename_all = "snake_case")]
pub enum Contact {
    /// It has joined and its lease lives.
    Joined,
    /// Nothing was heard of etcd for a while, or never.
    Away {
        /// Since when.
        #[schema(value_type = String, format = DateTime)]
        since: Timestamp,
        /// What went wrong last.
        reason: String,
        /// Half of the lease has gone by: canaries have weight 0 here.
        isolated: bool,
    },
}

/// All instances, as this one knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// How this instance stands with etcd.
    pub contact: Contact,
    /// Whether it hears what the others do: also while its own lease is not known to live yet.
    pub hears: bool,
    /// Those whose lease lives.
    pub instances: BTreeMap<Name, Instance>,
    /// Those who were alive when this instance lost etcd, and of whom etcd knows nothing since it is back: it may
    /// have lost that. Each serves by itself until it has closed its canaries, at this time at the latest.
    pub awaited: BTreeMap<Name, Instant>,
    /// Those that have ever joined and were not removed; whether each is being drained.
    pub members: BTreeMap<Name, bool>,
    /// The instance that leads.
    pub leader: Option<Name>,
    /// Where the list of changes ends.
    pub head: Option<Head>,
}

impl Roster {
    /// Nobody is known yet.
    pub(crate) fn unknown(since: Timestamp) -> Self {
        Self {
            contact: Contact::Away {
                since,
                reason: "it has not answered yet".into(),
                isolated: false,
            },
            hears: false,
            instances: BTreeMap::new(),
            awaited: BTreeMap::new(),
            members: BTreeMap::new(),
            leader: None,
            head: None,
        }
    }

    /// Whether this instance knows what the others do.
    #[must_use]
    pub const fn is_joined(&self) -> bool {
        matches!(self.contact, Contact::Joined)
    }

    /// How many share the promise about false rollbacks; at least this one.
    #[must_use]
    pub fn judges(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX).max(1)
    }

    /// How many have to serve a change: those whose lease lives, and those who are awaited.
    pub(crate) fn count(&self) -> usize {
        self.instances.len() + self.awaited.len()
    }

    /// Those who have to serve a revision and do not yet.
    pub(crate) fn behind(&self, revision: u64) -> Vec<Name> {
        let serves = |instance: &Instance| instance.serves.as_ref().map_or(0, |head| head.revision);
        let behind = self.instances.iter();
        behind
            .filter(|(_, instance)| serves(instance) < revision)
            .map(|(name, _)| name)
            .chain(self.awaited.keys())
            .cloned()
            .collect()
    }
}

//! One change as all instances share it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::Digest;
use switchback_config::model::Name;
use utoipa::ToSchema;

use crate::command::{Author, Urgent};
use crate::drill::shadow::is_shadow;
use crate::history::{AuditEntry, Revision};
use crate::state::{FlagState, ServiceState, State};

/// Where the list of changes ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = SharedHead)]
pub struct Head {
    /// The number of the last change.
    pub revision: u64,
    /// Its hash: SHA-256 in hexadecimal. It covers the hash before it, so two lists with the same head are
    /// the same.
    pub hash: String,
}

/// What was decided here and others do not know yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unshared {
    /// The revision that it is here. Another one when others were first.
    pub(crate) revision: u64,
    /// What to do on another state than it was decided on, in order.
    pub(crate) urgent: Vec<Urgent>,
    /// Who has asked for it.
    pub(crate) author: Author,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its number.
    pub(crate) revision: u64,
    /// The hash of the change before it; none: it is the first.
    pub(crate) previous: Option<String>,
    /// The instance where it was decided.
    pub(crate) instance: Name,
    /// Whether this is everything there is, rather than what has changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) whole: bool,
    /// If so, the last change that the instance had seen before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) knows: u64,
    /// Services with their new state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) services: BTreeMap<Name, ServiceState>,
    /// Flags with their new state; an empty one is not recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) flags: BTreeMap<Name, FlagState>,
    /// Whether stable-only mode holds afterwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stable_only: bool,
    /// What is recorded of it, one for each command that is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) records: Vec<Recorded>,
}

/// A change as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) entry: Entry,
    pub(crate) head: Head,
    /// JSON.
    pub(crate) text: Vec<u8>,
}

/// What every instance records of a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// In the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<Revision>,
    /// In the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audit: Option<AuditEntry>,
}

impl Entry {
    /// What leads from a shared state to another one. What belongs to rehearsals is each instance's own.
    pub(crate) fn between(
        instance: &Name,
        before: &State,
        after: &State,
        records: Vec<Recorded>,
    ) -> Self {
        let is_new = |name: &Name, state: &ServiceState| before.services.get(name) != Some(state);
        let services = after.services.iter();
        let services = services.filter(|(name, state)| !is_shadow(name) && is_new(name, state));
        let gone = before.flags.keys();
        let gone = gone.filter(|name| !after.flags.contains_key(*name));
        let flags = after.flags.iter();
        let flags = flags.filter(|(name, flag)| before.flags.get(*name) != Some(*flag));
        Self {
            revision: after.revision,
            previous: before.shared.as_ref().map(|head| head.hash.clone()),
            instance: instance.clone(),
            whole: false,
            knows: 0,
            services: services
                .map(|(name, state)| (name.clone(), state.clone()))
                .collect(),
            flags: flags
                .map(|(name, flag)| (name.clone(), flag.clone()))
                .chain(gone.map(|name| (name.clone(), FlagState::default())))
                .collect(),
            stable_only: after.stable_only,
            records,
        }
    }

    /// A whole state, put after whatever is there.
    pub(crate) fn whole(instance: &Name, after: Option<&Head>, state: &State) -> Self {
        let nothing = State {
            shared: after.cloned(),
            ..State::default()
        };
        Self {
            whole: true,
            knows: [state.shared.as_ref(), after]
                .into_iter()
                .flatten()
                .map(|head| head.revision)
                .max()
                .unwrap_or(0),
            ..Self::between(instance, &nothing, state, Vec::new())
        }
    }

    /// As it is written, with the head that it makes.
    pub(crate) fn seal(self) -> serde_json::Result<Sealed> {
        let text = serde_json::to_vec(&self)?;
        Ok(Sealed {
            head: Head {
                revision: self.revision,
                hash: hash(&text),
            },
            entry: self,
            text,
        })
    }

    /// Reads what was written.
    pub(crate) fn unseal(text: Vec<u8>) -> serde_json::Result<Sealed> {
        let entry: Self = serde_json::from_slice(&text)?;
        Ok(Sealed {
            head: Head {
                revision: entry.revision,
                hash: hash(&text),
            },
            entry,
            text,
        })
    }

    /// Makes a shared state that of after this change.
    pub(crate) fn apply(&self, head: &Head, state: &mut State) {
        if self.whole {
            state.services.clear();
        }
        if self.whole || !self.flags.is_empty() {
            let flags = Arc::make_mut(&mut state.flags);
            if self.whole {
                flags.clear();
            }
            flags.extend(self.flags.clone());
            flags.retain(|_, flag| !flag.is_empty());
        }
        state.services.extend(self.services.clone());
        state.stable_only = self.stable_only;
        state.revision = head.revision;
        state.shared = Some(head.clone());
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn hash(text: &[u8]) -> String {
    let digest = sha2::Sha256::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Reads everything that is shared, as of one moment.

use std::collections::BTreeMap;

use etcd_client::{GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};
use serde::{Deserialize, Serialize};
use switchback_config::model::Name;

use super::etcd::Connection;
use super::keys::{Keys, Place};
use crate::cluster::{Entry, Head, Instance, Sealed};
use crate::state::State;

/// Changes that a newcomer takes into its history.
const HISTORY: usize = 100;

/// What is shared.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// The state; none: nothing was ever shared.
    pub(super) state: Option<State>,
    /// The changes after the ones that this instance has.
    pub(super) missed: Vec<Sealed>,
    /// Whether it goes on from what this instance has.
    pub(super) follows: bool,
    /// What whoever brought the last change had seen, if it is a whole state.
    pub(super) knows: Option<u64>,
    /// The last write of the head; 0: there is none.
    pub(super) head_written: i64,
    /// The moment: watch from the next one on.
    pub(super) at: i64,
    pub(super) instances: BTreeMap<Name, Instance>,
    pub(super) members: BTreeMap<Name, bool>,
    pub(super) leader: Option<Name>,
}

/// Everyone who has joined and was not removed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Membership {
    /// To be taken out of use.
    #[serde(default)]
    pub(super) draining: bool,
}

/// The whole state after a change.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) state: State,
}

/// Reads it. `own`: the last change that is in the state of this instance.
pub(super) async fn read(
    connection: &Connection,
    keys: &Keys,
    own: Option<&Head>,
) -> Result<Whole, String> {
    let all = GetOptions::new().with_prefix();
    let txn = Txn::new().and_then([
        TxnOp::get(keys.head(), None),
        TxnOp::get(keys.checkpoint(), None),
        TxnOp::get(keys.fleet(), Some(all)),
    ]);
    let response = connection.txn(txn).await?;
    let mut whole = Whole {
        at: response
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision),
        ..Whole::default()
    };
    let [head, checkpoint, fleet] = gets(&response)?;
    whole.head_written = head.first().map_or(0, KeyValue::mod_revision);
    let head: Option<Head> = head.first().map(parse).transpose()?;
    let checkpoint: Option<Checkpoint> = checkpoint.first().map(parse).transpose()?;
    let mut log = Vec::new();
    for pair in &fleet {
        match keys.place(pair.key()) {
            Some(Place::Log(_)) => {
                let sealed = Entry::unseal(pair.value().to_vec());
                log.push(sealed.map_err(|error| error.to_string())?);
            }
            Some(Place::Instance(name)) => drop(whole.instances.insert(name, parse(pair)?)),
            Some(Place::Member(name)) => {
                let member: Membership = parse(pair)?;
                whole.members.insert(name, member.draining);
            }
            Some(Place::Leader) => whole.leader = Some(parse(pair)?),
            None => {}
        }
    }
    let Some(head) = head else {
        return Ok(whole);
    };
    whole.state = Some(state_at(&head, checkpoint, &log)?);
    whole.follows = own.is_some_and(|own| follows(own, &head, &log));
    let last = log.last().map(|sealed| &sealed.entry);
    whole.knows = last.filter(|entry| entry.whole).map(|entry| entry.knows);
    let after = own.filter(|_| whole.follows).map_or(0, |own| own.revision);
    log.retain(|sealed| sealed.head.revision > after);
    if !whole.follows {
        log.drain(..log.len().saturating_sub(HISTORY));
    }
    whole.missed = log;
    Ok(whole)
}

/// The state after the last change.
fn state_at(head: &Head, checkpoint: Option<Checkpoint>, log: &[Sealed]) -> Result<State, String> {
    let mut state = checkpoint.map_or_else(State::default, |checkpoint| checkpoint.state);
    let begins = state.shared.as_ref().map_or(0, |head| head.revision);
    for change in log.iter().filter(|change| change.head.revision > begins) {
        let last = state.shared.as_ref().map(|head| &head.hash);
        if change.entry.previous.as_ref() != last && !change.entry.whole {
            return Err(format!(
                "the list of changes in etcd is broken before {}",
                change.head.revision
            ));
        }
        change.entry.apply(&change.head, &mut state);
    }
    match state.shared.as_ref() == Some(head) {
        true => Ok(state),
        false => Err("the list of changes in etcd does not lead to its head".into()),
    }
}

/// Whether a list goes on from a head. What was removed from it, since it was too old, did.
fn follows(own: &Head, head: &Head, log: &[Sealed]) -> bool {
    if own.revision >= head.revision {
        return own == head;
    }
    let same = log
        .iter()
        .find(|change| change.head.revision == own.revision);
    match same {
        Some(change) => change.head == *own,
        None => log
            .first()
            .is_some_and(|first| first.head.revision > own.revision),
    }
}

fn gets<const N: usize>(response: &TxnResponse) -> Result<[Vec<KeyValue>; N], String> {
    let answers = response.op_responses().into_iter();
    let pairs = answers.filter_map(|answer| match answer {
        TxnOpResponse::Get(mut get) => Some(get.take_kvs()),
        _ => None,
    });
    let pairs: Vec<Vec<KeyValue>> = pairs.collect();
    pairs
        .try_into()
        .map_err(|_| "etcd left out an answer".to_owned())
}

/// The value of a pair.
pub(super) fn parse<T: serde::de::DeserializeOwned>(pair: &KeyValue) -> Result<T, String> {
    serde_json::from_slice(pair.value())
        .map_err(|error| format!("{} in etcd: {error}", String::from_utf8_lossy(pair.key())))
}

//! Reads everything that is shared, as of one moment.

use std::collections::BTreeMap;

use etcd_client::{GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};
use serde::{Deserialize, Serialize};
use switchback_config::model::Name;

use super::etcd::Connection;
use super::keys::{Keys, Place};
use super::pack::unpack;
use crate::cluster::list::List;
use crate::cluster::{Entry, Head, Instance};
use crate::state::State;

/// What is shared.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) list: List,
    /// The last write of the head; 0: there is none.
    pub(super) head_written: i64,
    /// The moment: watch from the next one on.
    pub(super) at: i64,
    pub(super) instances: BTreeMap<Name, Instance>,
    /// Under which lease each of them is.
    pub(super) leases: BTreeMap<Name, i64>,
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
    let checkpoint: Option<Checkpoint> = checkpoint
        .first()
        .map(|pair| parse_text(pair, &unpack(pair.value())?))
        .transpose()?;
    let mut log = Vec::new();
    for pair in &fleet {
        match keys.place(pair.key()) {
            Some(Place::Log(_)) => {
                let sealed = Entry::unseal(unpack(pair.value())?);
                log.push(sealed.map_err(|error| error.to_string())?);
            }
            Some(Place::Instance(name)) => {
                whole.leases.insert(name.clone(), pair.lease());
                whole.instances.insert(name, parse(pair)?);
            }
            Some(Place::Member(name)) => {
                let member: Membership = parse(pair)?;
                whole.members.insert(name, member.draining);
            }
            Some(Place::Leader) => whole.leader = Some(parse(pair)?),
            None => {}
        }
    }
    let checkpoint = checkpoint.map(|checkpoint| checkpoint.state);
    whole.list = List::read(head, checkpoint, log, own)?;
    Ok(whole)
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
    parse_text(pair, pair.value())
}

fn parse_text<T: serde::de::DeserializeOwned>(pair: &KeyValue, text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text)
        .map_err(|error| format!("{} in etcd: {error}", String::from_utf8_lossy(pair.key())))
}

//! Tells what was counted here, and hears it of the others while this instance leads.

use std::sync::{Arc, Mutex, PoisonError};

use etcd_client::{
    EventType, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};
use switchback_config::defaults::POOL_APART;
use switchback_config::model::Name;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::etcd::{Connection, in_time, words};
use super::keys::Keys;
use super::read::parse;
use crate::cluster::Roster;
use crate::cluster::pool::{Counter, Counts, Pool};
use crate::control::Controls;

/// Of one session.
pub(super) struct Counters {
    pub(super) connection: Connection,
    pub(super) keys: Keys,
    pub(super) lease: i64,
    pub(super) instance: Name,
    pub(super) controls: Controls,
    pub(super) roster: watch::Receiver<Arc<Roster>>,
    /// Of the whole process: another session is no other epoch.
    pub(super) counter: Arc<Mutex<Counter>>,
}

/// What the others tell.
struct Hearing {
    stream: WatchStream,
    pool: Pool,
}

impl Counters {
    /// Until etcd fails; why.
    pub(super) async fn run(self) -> String {
        match self.keep_telling().await {
            Ok(()) => "the process ends".into(),
            Err(reason) => reason,
        }
    }

    async fn keep_telling(&self) -> Result<(), String> {
        let mut ticks = tokio::time::interval(POOL_APART);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Counts::new();
        let mut hearing: Option<Hearing> = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let counts = {
                        let counter = self.counter.lock();
                        let mut counter = counter.unwrap_or_else(PoisonError::into_inner);
                        counter.read(&self.controls.published())
                    };
                    if counts != told {
                        self.tell(&counts).await?;
                        told = counts;
                    }
                    let leads = self.roster.borrow().leader.as_ref() == Some(&self.instance);
                    match (leads, &hearing) {
                        (true, None) => hearing = Some(self.begin_to_hear().await?),
                        (false, Some(_)) => hearing = None,
                        _ => {}
                    }
                }
                heard = hear(&mut hearing) => self.take_in(&mut hearing, heard?)?,
            }
        }
    }

    async fn tell(&self, counts: &Counts) -> Result<(), String> {
        let text = serde_json::to_vec(counts).map_err(|error| error.to_string())?;
        let leased = PutOptions::new().with_lease(self.lease);
        let put = TxnOp::put(self.keys.counters(&self.instance), text, Some(leased));
        self.connection.txn(Txn::new().and_then([put])).await?;
        Ok(())
    }

    async fn begin_to_hear(&self) -> Result<Hearing, String> {
        let all = GetOptions::new().with_prefix();
        let get = TxnOp::get(self.keys.counters(""), Some(all));
        let response = self.connection.txn(Txn::new().and_then([get])).await?;
        let at = response
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        let mut pool = Pool::default();
        for answer in response.op_responses() {
            let TxnOpResponse::Get(get) = answer else {
                continue;
            };
            for pair in get.kvs() {
                if let Some(instance) = self.keys.counted_by(pair.key()) {
                    pool.begin(instance.to_owned(), parse(pair)?);
                }
            }
        }
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(at + 1);
        let mut client = self.connection.watch.clone();
        let stream = in_time(client.watch(self.keys.counters(""), Some(options))).await?;
        Ok(Hearing { stream, pool })
    }

    fn take_in(
        &self,
        hearing: &mut Option<Hearing>,
        heard: etcd_client::WatchResponse,
    ) -> Result<(), String> {
        let Some(Hearing { pool, .. }) = hearing else {
            return Ok(());
        };
        if heard.canceled() {
            return Err(format!("a watch was cancelled: {}", heard.cancel_reason()));
        }
        let snapshot = self.controls.published().snapshot.clone();
        for event in heard.events() {
            let Some(pair) = event.kv().filter(|_| event.event_type() == EventType::Put) else {
                continue;
            };
            let instance = self.keys.counted_by(pair.key());
            if let Some(instance) = instance.filter(|instance| *instance != self.instance) {
                pool.add(instance.to_owned(), parse(pair)?, &snapshot);
            }
        }
        Ok(())
    }
}

async fn hear(hearing: &mut Option<Hearing>) -> Result<etcd_client::WatchResponse, String> {
    let Some(Hearing { stream, .. }) = hearing else {
        return std::future::pending().await;
    };
    match stream.message().await {
        Ok(Some(response)) => Ok(response),
        Ok(None) => Err("a watch has ended".into()),
        Err(error) => Err(words(&error)),
    }
}

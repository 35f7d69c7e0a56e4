//! The outbox on disk: messages to hooks, from the change that made them to their end.
//!
//! A message is written in the transaction of its change. A change that is in force already puts it
//! straight into the outbox. One that is applied after it was persisted is *held*, by its revision,
//! until the control thread says that it is in force ([`Store::release`]) or void; a rollback that
//! comes in between drops it, since what it overtakes is decided again. After a restart the persisted
//! state is what is in force, so whatever is still held is released.

use redb::{
    ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use switchback_config::defaults::{DEAD_LETTERS_MAX, DELIVERIES_KEPT, OUTBOX_MAX};
use tokio::sync::futures::OwnedNotified;

use super::database::{Database, text};
use super::{Job, Store, seal, unseal};
use crate::drill::shadow::is_shadow;
use crate::hooks::delivery::{Attempt, Delivery};

/// Messages that wait, in order.
const WAITING: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");
/// Messages of changes that may not be in force yet, by revision.
const HELD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox_held");
/// Messages that were given up.
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead_letters");
/// The last ones that arrived.
const DELIVERED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("deliveries");
/// `next`: the id of the next message.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("outbox_numbers");

/// The messages of a change.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// The revision that was in force when they were made.
    pub base: u64,
    /// What is told.
    pub deliveries: Vec<Delivery>,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// It arrived.
    Delivered(Delivery),
    /// It is tried again.
    Again(Delivery),
    /// It was given up.
    Dead(Delivery),
}

/// What is in the outbox.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Messages that the reader has not seen.
    pub fresh: Vec<Delivery>,
    /// The oldest one there is; what is older was given up.
    pub oldest: u64,
    /// How many dead letters there are.
    pub dead: u64,
}

/// A list of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Those that wait.
    Waiting,
    /// Those that were given up.
    Dead,
    /// The last ones that arrived.
    Delivered,
}

impl List {
    const fn table(self) -> TableDefinition<'static, u64, &'static [u8]> {
        match self {
            Self::Waiting => WAITING,
            Self::Dead => DEAD,
            Self::Delivered => DELIVERED,
        }
    }
}

impl Store {
    /// Resolves when there may be something new in the outbox, from now on.
    pub(crate) fn outbox_news(&self) -> OwnedNotified {
        self.outbox.clone().notified_owned()
    }

    /// Changes the outbox; tried again once if the disk says no.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        work: impl Fn(&Database) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (sender, answer) = tokio::sync::oneshot::channel();
        let mut sender = Some(sender);
        let job = Job::Write(Box::new(move |database, last| {
            let done = work(database);
            let is_done = done.is_ok();
            if let Some(sender) = sender.take_if(|_| is_done || last) {
                let _ = sender.send(done);
            }
            is_done
        }));
        self.jobs
            .try_send(job)
            .map_err(|_| "the store is busy".to_owned())?;
        answer
            .await
            .map_err(|_| "the store has stopped".to_owned())?
    }

    /// The messages after `seen`.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn waiting(&self, seen: u64) -> Result<Waiting, String> {
        self.read(move |database| database.waiting(seen)).await
    }

    /// Writes down what became of a message; the number of dead letters.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn settle(&self, settlement: Settlement) -> Result<u64, String> {
        self.change(move |database| database.settle(&settlement))
            .await
    }

    /// The last `limit` messages of a list, newest first.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn deliveries(
        &self,
        list: List,
        limit: usize,
    ) -> Result<Vec<Delivery>, String> {
        self.read(move |database| database.deliveries(list, limit))
            .await
    }

    /// Puts a dead letter back into the outbox, as if it had never been tried; whether there is one.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn revive(&self, id: u64) -> Result<bool, String> {
        self.change(move |database| database.revive(id)).await
    }

    /// Forgets a dead letter; whether there was one.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub(crate) async fn bury(&self, id: u64) -> Result<bool, String> {
        self.change(move |database| database.bury(id)).await
    }
}

impl Database {
    /// After a start: the persisted state is in force, and so are its messages.
    pub(super) fn release_all(&self) -> Result<(), String> {
        self.write(release_held)
    }

    pub(super) fn release(&self, revision: u64) -> Result<(), String> {
        self.write(|write| release(write, revision))
    }

    /// Makes what is held of a revision unreadable.
    #[cfg(test)]
    pub(super) fn damage_held(&self, revision: u64) -> Result<(), String> {
        self.write(|write| {
            let mut held = write.open_table(HELD).map_err(text)?;
            held.insert(revision, &b"damaged"[..]).map_err(text)?;
            Ok(())
        })
    }

    /// The number that the next message gets.
    pub(super) fn next_message(&self) -> Result<u64, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(numbers) = read.open_table(NUMBERS) else {
            return Ok(1);
        };
        let next = numbers.get("next").map_err(text)?;
        Ok(next.map_or(1, |next| next.value()))
    }

    pub(super) fn enqueue(&self, deliveries: &[Delivery]) -> Result<(), String> {
        self.write(|write| append(write, deliveries))
    }

    pub(super) fn waiting(&self, seen: u64) -> Result<Waiting, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let mut waiting = Waiting::default();
        if let Ok(dead) = read.open_table(DEAD) {
            waiting.dead = dead.len().map_err(text)?;
        }
        let Ok(table) = read.open_table(WAITING) else {
            return Ok(waiting);
        };
        let first = table.first().map_err(text)?;
        waiting.oldest = first.map_or(u64::MAX, |(id, _)| id.value());
        for row in table.range(seen + 1..).map_err(text)? {
            let (id, row) = row.map_err(text)?;
            match unseal::<Delivery>(row.value()) {
                Ok(delivery) => waiting.fresh.push(delivery),
                Err(error) => {
                    tracing::warn!(id = id.value(), %error, "read a message of the outbox")
                }
            }
        }
        Ok(waiting)
    }

    fn settle(&self, settlement: &Settlement) -> Result<u64, String> {
        self.write(|write| {
            let mut waiting = write.open_table(WAITING).map_err(text)?;
            match settlement {
                Settlement::Again(delivery) => {
                    // It may have been pushed out meanwhile.
                    if waiting.get(delivery.id).map_err(text)?.is_some() {
                        insert(&mut waiting, delivery)?;
                    }
                }
                Settlement::Delivered(delivery) => {
                    waiting.remove(delivery.id).map_err(text)?;
                    if !is_rehearsed(delivery) {
                        let mut delivered = write.open_table(DELIVERED).map_err(text)?;
                        insert(&mut delivered, delivery)?;
                        keep_last(&mut delivered, DELIVERIES_KEPT)?;
                    }
                }
                Settlement::Dead(delivery) => {
                    waiting.remove(delivery.id).map_err(text)?;
                    give_up(write, delivery)?;
                }
            }
            let dead = write.open_table(DEAD).map_err(text)?;
            dead.len().map_err(text)
        })
    }

    fn deliveries(&self, list: List, limit: usize) -> Result<Vec<Delivery>, String> {
        let read = self.open_one()?.begin_read().map_err(text)?;
        let Ok(table) = read.open_table(list.table()) else {
            return Ok(Vec::new());
        };
        let rows = table.iter().map_err(text)?;
        let found = rows
            .rev()
            .map(|row| unseal::<Delivery>(row.map_err(text)?.1.value()));
        let told = found.filter(|found| !found.as_ref().is_ok_and(is_rehearsed));
        told.take(limit).collect()
    }

    fn revive(&self, id: u64) -> Result<bool, String> {
        self.write(|write| {
            let row = {
                let mut dead = write.open_table(DEAD).map_err(text)?;
                let row = dead.remove(id).map_err(text)?;
                row.map(|row| row.value().to_vec())
            };
            let Some(row) = row else {
                return Ok(false);
            };
            let delivery: Delivery = unseal(&row)?;
            append(write, &[Delivery::new(delivery.hook, delivery.event)])?;
            Ok(true)
        })
    }

    fn bury(&self, id: u64) -> Result<bool, String> {
        self.write(|write| {
            let mut dead = write.open_table(DEAD).map_err(text)?;
            let found = dead.remove(id).map_err(text)?.is_some();
            Ok(found)
        })
    }
}

/// Writes the messages of a change. `in_force`: it was applied before it was persisted. What was held up to
/// its base came into force before it, and is told before it; what was held since is overtaken by it.
pub(super) fn commit(
    write: &WriteTransaction,
    revision: u64,
    outgoing: &Outgoing,
    in_force: bool,
) -> Result<(), String> {
    if in_force {
        let mut held = write.open_table(HELD).map_err(text)?;
        held.retain_in(outgoing.base + 1.., |_, _| false)
            .map_err(text)?;
        drop(held);
        release_held(write)?;
        return append(write, &outgoing.deliveries);
    }
    if outgoing.deliveries.is_empty() {
        return Ok(());
    }
    let mut held = write.open_table(HELD).map_err(text)?;
    held.insert(revision, &seal(&outgoing.deliveries)?[..])
        .map_err(text)?;
    Ok(())
}

/// Forgets the messages of a change that never came into force.
pub(super) fn void(write: &WriteTransaction, revision: u64) -> Result<(), String> {
    let mut held = write.open_table(HELD).map_err(text)?;
    held.remove(revision).map_err(text)?;
    Ok(())
}

/// Forgets messages from a number on, and whatever is held. Numbers are not given again.
pub(super) fn forget_from(write: &WriteTransaction, message: u64) -> Result<(), String> {
    for table in [WAITING, DEAD] {
        let mut table = write.open_table(table).map_err(text)?;
        table.retain_in(message.., |_, _| false).map_err(text)?;
    }
    let mut held = write.open_table(HELD).map_err(text)?;
    held.retain(|_, _| false).map_err(text)
}

/// Lets the messages of all changes go that are held, in order.
fn release_held(write: &WriteTransaction) -> Result<(), String> {
    let held: Vec<u64> = {
        let table = write.open_table(HELD).map_err(text)?;
        let rows = table.iter().map_err(text)?;
        let rows = rows.map(|row| Ok(row.map_err(text)?.0.value()));
        rows.collect::<Result<_, String>>()?
    };
    held.into_iter()
        .try_for_each(|revision| release(write, revision))
}

fn release(write: &WriteTransaction, revision: u64) -> Result<(), String> {
    let row = {
        let mut held = write.open_table(HELD).map_err(text)?;
        let row = held.remove(revision).map_err(text)?;
        row.map(|row| row.value().to_vec())
    };
    let deliveries: Vec<Delivery> = match row {
        Some(row) => unseal(&row)?,
        None => Vec::new(),
    };
    append(write, &deliveries)
}

/// Puts messages at the end of the outbox. If it is full, the oldest are given up.
fn append(write: &WriteTransaction, deliveries: &[Delivery]) -> Result<(), String> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let mut numbers = write.open_table(NUMBERS).map_err(text)?;
    let next = numbers.get("next").map_err(text)?;
    let mut next = next.map_or(1, |next| next.value());
    let mut waiting = write.open_table(WAITING).map_err(text)?;
    for delivery in deliveries {
        let delivery = Delivery {
            id: next,
            ..delivery.clone()
        };
        insert(&mut waiting, &delivery)?;
        next += 1;
    }
    numbers.insert("next", next).map_err(text)?;
    let most = u64::try_from(OUTBOX_MAX).unwrap_or(u64::MAX);
    while waiting.len().map_err(text)? > most {
        let oldest = waiting.pop_first().map_err(text)?;
        let oldest = oldest.map(|(_, row)| unseal::<Delivery>(row.value()));
        if let Some(Ok(mut oldest)) = oldest {
            oldest.last = Some(pushed_out(oldest.last.as_ref()));
            give_up(write, &oldest)?;
        }
    }
    Ok(())
}

fn pushed_out(before: Option<&Attempt>) -> Attempt {
    let before = before.map_or(String::new(), |last| format!("; last: {}", last.result));
    Attempt {
        at: jiff::Timestamp::now(),
        took_ms: 0,
        delivered: false,
        result: format!("more than {OUTBOX_MAX} messages were waiting{before}"),
        output: String::new(),
    }
}

/// Whether it is a drill's: these are told to nobody, and nothing is kept of them.
fn is_rehearsed(delivery: &Delivery) -> bool {
    is_shadow(&delivery.event.data.service)
}

fn give_up(write: &WriteTransaction, delivery: &Delivery) -> Result<(), String> {
    if is_rehearsed(delivery) {
        return Ok(());
    }
    let mut dead = write.open_table(DEAD).map_err(text)?;
    insert(&mut dead, delivery)?;
    keep_last(&mut dead, DEAD_LETTERS_MAX)
}

fn insert(table: &mut redb::Table<'_, u64, &[u8]>, delivery: &Delivery) -> Result<(), String> {
    table
        .insert(delivery.id, &seal(delivery)?[..])
        .map_err(text)?;
    Ok(())
}

fn keep_last(table: &mut redb::Table<'_, u64, &[u8]>, most: usize) -> Result<(), String> {
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    while table.len().map_err(text)? > most {
        table.pop_first().map_err(text)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;

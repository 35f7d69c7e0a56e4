//! Evidence on its way to the disk: after the rollback itself is safe, and never in its way.
//!
//! Records and what is added to them later are written one after the other, each in a transaction of
//! its own. If the disk does not take them they wait, in order and bounded; what does not fit is lost,
//! the oldest first, and the log says so.

use std::collections::VecDeque;
use std::sync::mpsc::TrySendError;

use switchback_config::model::Name;

use super::database::Database;
use super::{Job, Store};
use crate::evidence::{Action, Amendment, Record, Summary};

/// Pieces that may wait for the disk; some 200 KiB for the largest.
const WAITING_MAX: usize = 64;

/// Attempts for one piece, at least a second apart: an hour.
const ATTEMPTS_MAX: u32 = 3_600;

/// How often it is looked whether the record of an action is here, at least a second apart.
const LOOKS_MAX: u32 = 5;

/// A piece of evidence.
#[derive(Debug)]
pub(super) enum Piece {
    /// A new record.
    Record(Box<Record>),
    /// Something to add to a record.
    Amendment(u64, Box<Amendment>),
    /// Something that was done; it may be known before the record is here.
    Action(u64, Action, u32),
}

/// Pieces that are not on disk yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pieces: VecDeque<Piece>,
    /// Of the first one.
    attempts: u32,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether something waits that this process alone has.
    pub(super) fn must_wait(&self) -> bool {
        let is_action = |piece: &Piece| matches!(piece, Piece::Action(..));
        !self.pieces.iter().all(is_action)
    }

    pub(super) fn add(&mut self, piece: Piece) {
        if self.pieces.len() == WAITING_MAX {
            self.give_up("too much evidence waits for the disk");
        }
        self.pieces.push_back(piece);
    }

    /// Writes what waits; stops at the first failure.
    ///
    /// # Errors
    /// What the disk says. The database may have to be opened anew.
    pub(super) fn save(&mut self, database: &mut Database) -> Result<(), String> {
        let mut early = VecDeque::new();
        let result = self.save_all(database, &mut early);
        self.pieces.append(&mut early);
        result
    }

    /// The same; puts what comes too early aside.
    fn save_all(
        &mut self,
        database: &mut Database,
        early: &mut VecDeque<Piece>,
    ) -> Result<(), String> {
        while let Some(piece) = self.pieces.front() {
            let written = match piece {
                Piece::Record(record) => database.save_rollback(record).map(|()| true),
                Piece::Amendment(id, amendment) => database.amend_rollback(*id, amendment),
                Piece::Action(id, action, _) => database.amend_rollback(
                    *id,
                    &Amendment {
                        actions: vec![action.clone()],
                        ..Amendment::default()
                    },
                ),
            };
            if let Err(error) = &written {
                self.attempts += 1;
                if self.attempts == ATTEMPTS_MAX {
                    self.give_up(error);
                }
                return Err(error.clone());
            }
            self.attempts = 0;
            let piece = self.pieces.pop_front();
            if let (Ok(false), Some(Piece::Action(id, action, looks))) = (written, piece)
                && looks > 1
            {
                early.push_back(Piece::Action(id, action, looks - 1));
            }
        }
        Ok(())
    }

    fn give_up(&mut self, error: &str) {
        self.attempts = 0;
        if let Some(piece) = self.pieces.pop_front() {
            let id = match piece {
                Piece::Record(record) => record.id,
                Piece::Amendment(id, _) | Piece::Action(id, ..) => id,
            };
            tracing::error!(rollback = id, error, "evidence of a rollback is lost");
        }
    }
}

impl Store {
    /// Keeps the record of a rollback, as soon as the disk allows.
    pub fn save_rollback(&self, record: Box<Record>) {
        self.keep(Piece::Record(record));
    }

    /// Adds to the record of a rollback, as soon as the disk allows. Nothing happens if it is not kept
    /// any more.
    pub fn amend_rollback(&self, id: u64, amendment: Box<Amendment>) {
        self.keep(Piece::Amendment(id, amendment));
    }

    /// Adds something that was done to the record of a rollback, if there is one.
    pub(crate) fn note_action(&self, id: u64, action: Action) {
        self.keep(Piece::Action(id, action, LOOKS_MAX));
    }

    fn keep(&self, piece: Piece) {
        if let Err(TrySendError::Full(Job::Evidence(piece))) =
            self.jobs.try_send(Job::Evidence(piece))
        {
            tracing::error!(?piece, "the disk does not keep up; evidence is lost");
        }
    }

    /// The last `limit` rollbacks below `below`, newest first; of one service, if it is named.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub async fn rollbacks(
        &self,
        service: Option<Name>,
        below: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Summary>, String> {
        self.read(move |database| database.rollbacks(service.as_deref(), below, limit))
            .await
    }

    /// The record of one rollback.
    ///
    /// # Errors
    /// When the disk or the store does not answer.
    pub async fn rollback(&self, id: u64) -> Result<Option<Record>, String> {
        self.read(move |database| database.rollback(id)).await
    }
}

#[cfg(test)]
mod tests;

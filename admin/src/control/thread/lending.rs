//! What changes for the control thread while another process takes over.

use std::collections::BTreeMap;
use std::sync::Arc;

use switchback_config::model::Name;
use switchback_proxy::fence::Fence;
use tokio::sync::oneshot;

use super::{Keeper, Message};
use crate::command::{Asked, Command};
use crate::controller::Decision;
use crate::evidence::Record;
use crate::handover::Relay;
use crate::history::AuditEntry;
use crate::state::{FlagState, State};
use crate::store::Commit;

/// Whether the state has been lent.
#[derive(Debug, Default)]
pub(super) struct Lending {
    relay: Option<Relay>,
    /// Waits until no change is being written.
    told: Option<oneshot::Sender<()>>,
    retired: bool,
}

impl Lending {
    /// Whether another process writes the state, or is about to.
    pub(super) const fn is_under_way(&self) -> bool {
        self.relay.is_some()
    }

    /// Whether nothing is being written any more on behalf of this process.
    pub(super) const fn is_lent(&self) -> bool {
        self.relay.is_some() && self.told.is_none()
    }

    /// Whether another process decides.
    pub(super) const fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether nothing more can be sent along for now: what came into force would be lost with this process.
    pub(super) fn is_full(&self) -> bool {
        self.relay.as_ref().is_some_and(Relay::is_full)
    }

    /// No change is being written.
    pub(super) fn tell(&mut self) {
        if let Some(told) = self.told.take() {
            let _ = told.send(());
        }
    }
}

impl Keeper {
    pub(super) fn serve_lending(&mut self, message: Message) {
        match message {
            Message::Lend(relay, told) => {
                self.lending.relay = Some(relay);
                self.lending.told = Some(told);
            }
            Message::TakeBack(written, told) => {
                self.lending = Lending::default();
                if let Some(revision) = written {
                    self.take_state_back(revision);
                }
                self.propose_unshared();
                let _ = told.send(());
            }
            Message::Retire(told) => {
                self.lending.retired = true;
                let _ = told.send(());
            }
            Message::Follow(state, told) => {
                let _ = told.send(self.do_as(*state));
            }
            Message::Ask(_) | Message::Addresses(..) | Message::Stop => {}
        }
    }

    /// Has what is in force here persisted instead of what the other process has written, up to a revision
    /// that nobody else must have.
    fn take_state_back(&mut self, written: u64) {
        self.numbered = self.numbered.max(written);
        let config = self.world.config.clone();
        let reason = "another process did not finish taking over".to_owned();
        let asked = Asked::by_itself("takeover", Some(reason));
        let commit = self.withdrawal(&Command::Reload { config }, &asked);
        self.store.commit(commit, Box::new(|_| ()));
    }

    /// Makes what another process has decided the truth here.
    fn do_as(&mut self, state: State) -> Arc<Fence> {
        let decision = Decision {
            services: state.services,
            flags: self.followed_flags(Arc::unwrap_or_clone(state.flags)),
            stable_only: state.stable_only,
            ..Decision::nothing(&self.world)
        };
        self.numbered = self.numbered.max(state.revision);
        self.carry_out(&decision, state.revision, false)
    }

    /// The flags of another process; those that it does not record any more are as in the file.
    fn followed_flags(&self, mut flags: BTreeMap<Name, FlagState>) -> BTreeMap<Name, FlagState> {
        for name in self.world.state.flags.keys() {
            flags.entry(name.clone()).or_default();
        }
        flags
    }

    /// Has a change that is in force persisted, by whoever writes the state; what is known of it then comes
    /// from `record`.
    pub(super) fn commit_now(
        &self,
        commit: Commit,
        (command, asked): (&Command, &Asked),
        record: impl FnOnce() -> Option<Box<Record>>,
    ) -> oneshot::Receiver<bool> {
        let (durable, is_durable) = oneshot::channel();
        match &self.lending.relay {
            None => {
                let done = Box::new(move |result: Result<(), String>| {
                    let _ = durable.send(result.is_ok());
                });
                self.store.commit(commit, done);
                if let Some(record) = record() {
                    self.store.save_rollback(record);
                }
            }
            Some(relay) => {
                // Kept as well, in case nothing comes of it.
                let revision = commit.state.revision;
                self.store.commit(commit, Box::new(|_| ()));
                let record = record();
                if let Some(record) = record.clone() {
                    self.store.save_rollback(record);
                }
                relay.carry(revision, (command, asked), record, durable);
            }
        }
        is_durable
    }

    /// Notes what is in no revision, in the audit of whoever writes the state.
    pub(super) fn audit(&self, entry: AuditEntry) {
        match &self.lending.relay {
            None => self.store.audit(entry),
            Some(relay) => relay.note(entry),
        }
    }
}

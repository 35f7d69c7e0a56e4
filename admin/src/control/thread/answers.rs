//! What is recorded of a command, and what its asker is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use switchback_config::model::Name;
use switchback_proxy::fence::Fence;

use super::{Applied, Durable, Keeper, Request, Shared};
use crate::command::{Asked, Command, Refusal};
use crate::controller::{Decision, Note, World};
use crate::drill::shadow::is_shadow;
use crate::effective::Effective;
use crate::history::{AuditEntry, Change, FlagTurn, Revision, Settled, Stand, file_notes};
use crate::hooks::outbox::of_change;
use crate::state::flag_in_force;
use crate::store::{Commit, Outgoing};

impl Keeper {
    pub(super) fn commit(
        &self,
        before: &World,
        command: &Command,
        asked: &Asked,
        decision: &Decision,
        revision: u64,
        keep_trying: bool,
    ) -> Commit {
        let at = self.clock().told;
        let changes = self.changes(before, decision);
        let stands = |of: fn(&Change) -> Option<&Settled>| -> BTreeMap<Name, Stand> {
            let changed = changes.iter();
            changed
                .filter_map(|(name, change)| Some((name.clone(), Stand::from(of(change)?))))
                .collect()
        };
        let audit = AuditEntry {
            before: stands(|change| change.in_force_before.as_ref()),
            after: stands(|change| change.in_force_after.as_ref()),
            ..audit_entry(at, command, asked, "done", Some(revision))
        };
        // What the audit keeps of a drill, nobody wants to restore.
        let mut changes = changes;
        changes.retain(|name, _| !is_shadow(name));
        let record = Revision {
            revision,
            at,
            by: asked.by.clone(),
            via: asked.via.into(),
            how: asked.how.clone(),
            action: command.verb().into(),
            reason: asked.reason.clone(),
            notes: notes(before, command, decision),
            changes,
            flags: flag_turns(before, decision),
        };
        Commit {
            state: Arc::new(decision.follow(before, revision).state),
            revision: Some(record),
            audit: Some(audit),
            keep_trying,
            outgoing: Outgoing {
                base: before.state.revision,
                deliveries: of_change(before, command, asked, decision, revision, at),
            },
            revisions_kept: decision.config.admin.revisions,
        }
    }

    /// What is in force, to be persisted in place of a change that was.
    pub(super) fn withdrawal(&self, command: &Command, asked: &Asked) -> Commit {
        let at = self.clock().told;
        Commit {
            state: Arc::new(self.world.state.clone()),
            revision: None,
            audit: Some(audit_entry(at, command, asked, "withdrawn", None)),
            keep_trying: true,
            outgoing: Outgoing {
                base: self.world.state.revision,
                deliveries: Vec::new(),
            },
            revisions_kept: self.world.config.admin.revisions,
        }
    }

    /// What a decision changes, by service: what is recorded, and what is in force because of it.
    fn changes(&self, before: &World, decision: &Decision) -> BTreeMap<Name, Change> {
        let same_mode = before.state.stable_only == decision.stable_only;
        let mut changes = BTreeMap::new();
        for (name, file) in &decision.config.services {
            let recorded = before.state.services.get(name);
            let changed = decision.services.get(name);
            let file_before = before.config.services.get(name);
            if changed.is_none() && file_before == Some(file) && same_mode {
                continue;
            }
            let recorded = recorded.cloned().unwrap_or_default();
            let after = changed.cloned().unwrap_or_else(|| recorded.clone());
            let in_force_before = file_before.map(|file| {
                Settled::from(&Effective::new(file, &recorded, before.state.stable_only))
            });
            let in_force_after = Settled::from(&Effective::new(file, &after, decision.stable_only));
            if changed.is_none() && in_force_before.as_ref() == Some(&in_force_after) {
                continue;
            }
            let change = Change {
                before: recorded,
                after,
                in_force_before,
                in_force_after: Some(in_force_after),
            };
            changes.insert(name.clone(), change);
        }
        changes.extend(removals(before, decision));
        changes
    }

    pub(super) fn tell(&mut self, decision: &Decision, asked: &Asked, revision: Option<u64>) {
        for note in &decision.notes {
            self.events.emit(
                note.kind,
                note.service.as_deref(),
                &asked.by,
                note.message.clone(),
                revision,
            );
        }
    }

    pub(super) fn applied(
        &self,
        notes: Vec<Note>,
        fence: Option<Arc<Fence>>,
        durable: Durable,
    ) -> Applied {
        Applied {
            changed: fence.is_some(),
            notes,
            published: self.published.borrow().clone(),
            planned: None,
            fence,
            durable,
            shared: Shared::Alone,
        }
    }

    pub(super) fn answer_unchanged(&mut self, request: Request, notes: Vec<Note>) {
        // The file is read whenever it may have changed, and rollouts are looked at all the time; that
        // nothing came of it is no news.
        if !matches!(
            request.command,
            Command::Reload { .. } | Command::Progress { .. }
        ) {
            let (command, asked) = (&request.command, &request.asked);
            self.audit(audit_entry(
                self.clock().told,
                command,
                asked,
                "unchanged",
                None,
            ));
        }
        // Others may still have to follow what was asked for before.
        let applied = Applied {
            shared: self.shared_so_far(),
            ..self.applied(notes, None, Durable::Known(true))
        };
        let _ = request.reply.send(Ok(applied));
    }

    pub(super) fn answer_dry_run(&self, request: Request, decision: Decision) {
        let notes = decision.notes.clone();
        let mut applied = self.applied(notes, None, Durable::Known(false));
        applied.changed = decision.changes(&self.world);
        applied.planned = Some(Box::new((decision, applied.published.clone())));
        let _ = request.reply.send(Ok(applied));
    }

    pub(super) fn refuse(&self, request: Request, refusal: Refusal) {
        let entry = audit_entry(
            self.clock().told,
            &request.command,
            &request.asked,
            refusal.code(),
            None,
        );
        self.audit(entry);
        let _ = request.reply.send(Err(refusal));
    }
}

/// The services that a new file does not name any more.
fn removals(before: &World, decision: &Decision) -> impl Iterator<Item = (Name, Change)> {
    let gone = before.config.services.iter();
    let gone = gone.filter(|(name, _)| !decision.config.services.contains_key(*name));
    gone.map(|(name, file)| {
        let state = before.state.services.get(name).cloned().unwrap_or_default();
        let effective = Effective::new(file, &state, before.state.stable_only);
        let change = Change {
            before: state.clone(),
            after: state,
            in_force_before: Some(Settled::from(&effective)),
            in_force_after: None,
        };
        (name.clone(), change)
    })
}

/// What a decision changes about flags: what is recorded, and what is in force because of it.
fn flag_turns(before: &World, decision: &Decision) -> BTreeMap<Name, FlagTurn> {
    let (old, new) = (&before.config.flags, &decision.config.flags);
    let named = old.keys().chain(new.keys()).chain(decision.flags.keys());
    let turn = |name: &Name| {
        let recorded = before.state.flags.get(name).cloned().unwrap_or_default();
        let changed = decision.flags.get(name);
        let after = changed.cloned().unwrap_or_else(|| recorded.clone());
        let in_force_before = flag_in_force(old.get(name), Some(&recorded));
        let in_force_after = flag_in_force(new.get(name), Some(&after));
        let has_turned = changed.is_some() || in_force_before != in_force_after;
        has_turned.then_some(FlagTurn {
            before: recorded,
            after,
            in_force_before,
            in_force_after,
        })
    };
    named
        .filter_map(|name| Some((name.clone(), turn(name)?)))
        .collect()
}

/// What happened, in sentences; for a new file also what is new in it.
fn notes(before: &World, command: &Command, decision: &Decision) -> Vec<String> {
    let said = decision.notes.iter().map(|note| note.message.clone());
    if !matches!(command, Command::Reload { .. }) {
        return said.collect();
    }
    let changes = switchback_config::diff::changes(&before.config, &decision.config);
    let mut notes = file_notes(&changes);
    notes.extend(said);
    if notes.is_empty() {
        notes.push("the file is the same, but a file that it names has changed".into());
    }
    notes
}

fn audit_entry(
    at: Timestamp,
    command: &Command,
    asked: &Asked,
    result: &str,
    revision: Option<u64>,
) -> AuditEntry {
    AuditEntry {
        at,
        by: asked.by.clone(),
        via: asked.via.into(),
        action: command.verb().into(),
        service: command.service().cloned(),
        flag: command.flag().cloned(),
        reason: asked.reason.clone(),
        result: result.into(),
        revision,
        ..AuditEntry::default()
    }
}

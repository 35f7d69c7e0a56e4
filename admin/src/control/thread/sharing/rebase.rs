//! What is in force here and not shared, decided again on what others have made of the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use switchback_config::model::Name;

use super::Keeper;
use crate::cluster::{Head, Recorded, Sealed, Unshared};
use crate::command::{Asked, Command, Refusal};
use crate::controller::{Decision, Outlook, World, apply};
use crate::drill::shadow::is_shadow;
use crate::state::{FlagState, ServiceState};
use crate::store::{Commit, Outgoing};

impl Keeper {
    /// Puts what is in force here and not shared on top of what is shared, and makes that the truth.
    pub(super) fn rebase(&mut self, foreign: &[Sealed]) {
        self.rebase_with(foreign, false);
    }

    pub(super) fn rebase_with(&mut self, foreign: &[Sealed], new_routes: bool) {
        let Some(base) = self.sharing.base.clone() else {
            return;
        };
        let own = std::mem::take(&mut self.world.state.unshared);
        let mut world = World {
            config: self.world.config.clone(),
            state: base,
        };
        let services = self.world.state.services.iter();
        let rehearsed = services.filter(|(name, _)| is_shadow(name));
        let rehearsed = rehearsed.map(|(name, state)| (name.clone(), state.clone()));
        world.state.services.extend(rehearsed);
        self.numbered = self.numbered.max(world.state.revision);
        self.sharing.records.clear();
        let mut numbers = BTreeMap::new();
        let mut commits = Vec::new();
        for unshared in own {
            let here = unshared.revision;
            commits.extend(self.decide_again(&mut world, unshared));
            numbers.insert(here, world.state.revision);
        }
        for (revision, _) in &mut self.sharing.waiting {
            *revision = numbers.get(revision).copied().unwrap_or(*revision);
        }
        let recorded = |number: u64| {
            let again = numbers.values().any(|revision| *revision == number);
            again || foreign.iter().any(|change| change.head.revision == number)
        };
        for here in numbers.keys().filter(|number| !recorded(**number)) {
            self.store.void(*here);
        }
        self.become_world(world, new_routes);
        self.note_foreign(foreign, |revision| numbers.contains_key(&revision));
        for mut commit in commits {
            commit.state = Arc::new(self.world.state.clone());
            self.store.commit(commit, Box::new(|_| ()));
        }
        if !self.world.state.unshared.is_empty() {
            return self.tell_served();
        }
        let revision = self.world.state.revision;
        self.sharing.tell_shared(revision, revision);
        self.persist_state();
        self.tell_served();
    }

    /// Decides on another state what was decided here; what is recorded of it.
    fn decide_again(&mut self, world: &mut World, unshared: Unshared) -> Vec<Commit> {
        let mut commits = Vec::new();
        for urgent in unshared.urgent {
            let command = urgent.clone().into_command();
            let asked = unshared.author.clone().into_asked();
            let decision = match self.decide_on(world, &command, &asked) {
                Ok(decision) if decision.changes(world) => decision,
                // Others have done it, too.
                Ok(_) => continue,
                Err(refusal) => {
                    let what = command.verb();
                    let message = format!(
                        "{what} was decided here while the cluster went on, and does not hold there: {refusal}"
                    );
                    let service = command.service().map(Name::as_str);
                    self.events
                        .emit("rollback_held", service, "cluster", message, None);
                    self.sharing.tell_refused(unshared.revision, &refusal);
                    continue;
                }
            };
            self.numbered += 1;
            let revision = self.numbered;
            let mut commit = self.commit(world, &command, &asked, &decision, revision, true);
            // Hooks have heard of it when it was decided.
            commit.outgoing = Outgoing {
                deliveries: Vec::new(),
                ..commit.outgoing
            };
            *world = decision.follow(world, revision);
            world.state.unshared.push(Unshared {
                revision,
                urgent: vec![urgent],
                author: unshared.author.clone(),
            });
            let recorded = Recorded {
                revision: commit.revision.clone(),
                audit: commit.audit.clone(),
            };
            self.sharing.records.push_back((revision, recorded));
            commits.push(commit);
        }
        commits
    }

    fn decide_on(
        &self,
        world: &World,
        command: &Command,
        asked: &Asked,
    ) -> Result<Decision, Refusal> {
        let snapshot = self.plane.snapshot();
        let health =
            |service: &str, backend: &str| crate::builder::health(&snapshot, service, backend);
        let standing = |service: &str, backend: &str| self.observer.standing(service, backend);
        let outlook = Outlook {
            health: &health,
            standing: &standing,
        };
        apply(world, self.clock().at, outlook, command, asked)
    }

    /// Makes another state the truth here.
    fn become_world(&mut self, world: World, new_routes: bool) {
        let (now, then) = (&self.world.state, &world.state);
        let names = now.services.keys().chain(then.services.keys());
        let mut services: BTreeMap<Name, ServiceState> = BTreeMap::new();
        for name in names {
            let (before, after) = (now.services.get(name), then.services.get(name));
            if before != after {
                services.insert(name.clone(), after.cloned().unwrap_or_default());
            }
        }
        let names = now.flags.keys().chain(then.flags.keys());
        let mut flags: BTreeMap<Name, FlagState> = BTreeMap::new();
        for name in names {
            let (before, after) = (now.flags.get(name), then.flags.get(name));
            if before != after {
                flags.insert(name.clone(), after.cloned().unwrap_or_default());
            }
        }
        let decision = Decision {
            services,
            flags,
            stable_only: then.stable_only,
            ..Decision::nothing(&world)
        };
        let (shared, unshared) = (then.shared.clone(), then.unshared.clone());
        let revision = then.revision;
        let changes = decision.changes(&self.world) || new_routes;
        (self.world.state.shared, self.world.state.unshared) = (shared, unshared);
        if changes {
            self.carry_out(&decision, revision, new_routes);
        } else {
            self.world.state.revision = revision;
            self.publish(self.plane.snapshot());
        }
    }

    /// Notes in the history and the audit what was done, as far as this instance has not noted it when it
    /// did it.
    fn note_foreign(&self, changes: &[Sealed], has_noted: impl Fn(u64) -> bool) {
        let instance = self.sharing.instance();
        for Sealed { entry, head, .. } in changes {
            for recorded in &entry.records {
                let revision = recorded.revision.clone();
                let number = revision.as_ref().map(|revision| revision.revision);
                if entry.instance == instance && number.is_some_and(&has_noted) {
                    continue;
                }
                if let Some(revision) = &revision {
                    self.tell_foreign(&entry.instance, revision);
                }
                let commit = Commit {
                    state: Arc::new(self.world.state.clone()),
                    revision,
                    audit: recorded.audit.clone(),
                    ..self.silent_commit(head)
                };
                self.store.commit(commit, Box::new(|_| ()));
            }
        }
    }

    /// Persists where this instance stands.
    pub(super) fn persist_state(&self) {
        if let Some(head) = &self.world.state.shared {
            self.store
                .commit(self.silent_commit(head), Box::new(|_| ()));
        }
    }

    fn silent_commit(&self, head: &Head) -> Commit {
        Commit {
            state: Arc::new(self.world.state.clone()),
            revision: None,
            audit: None,
            keep_trying: true,
            revisions_kept: self.world.config.admin.revisions,
            outgoing: Outgoing {
                base: head.revision,
                deliveries: Vec::new(),
            },
        }
    }

    fn tell_foreign(&self, instance: &Name, revision: &crate::history::Revision) {
        let services: Vec<&Name> = revision.changes.keys().collect();
        let service = match services[..] {
            [one] => Some(one.as_str()),
            _ => None,
        };
        let said = match revision.notes.is_empty() {
            true => revision.action.clone(),
            false => revision.notes.join("; "),
        };
        let message = format!("{said} (on instance {instance})");
        let number = Some(revision.revision);
        self.events
            .emit("followed", service, &revision.by, message, number);
    }
}

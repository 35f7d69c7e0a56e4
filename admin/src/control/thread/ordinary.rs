//! Changes that are persisted before they are applied, one at a time.
//!
//! A rollback or block that comes in meanwhile is not kept waiting: what it overtakes is decided again.

use switchback_config::model::Name;

use super::{Durable, Keeper, Pending, Request, Way};
use crate::command::{Command, Refusal};
use crate::control::Brought;
use crate::controller::Decision;
use crate::effective::Effective;

impl Keeper {
    /// Persists; what is safe is applied by [`Keeper::finish`].
    pub(super) fn serve_ordinary(&mut self, request: Request) {
        if self.lending.is_under_way() && !request.asked.dry_run {
            return self.refuse(request, Refusal::HandingOver);
        }
        match self.decide(&request.command, &request.asked) {
            Ok(decision) if request.asked.dry_run => self.answer_dry_run(request, decision),
            Ok(decision) if decision.changes(&self.world) || request.brought.material.is_some() => {
                if self.sharing.way() == Way::Away {
                    return self.do_alone(request, &decision);
                }
                self.numbered += 1;
                self.persist(Pending {
                    revision: self.numbered,
                    base: self.world.state.revision,
                    request,
                    decision,
                });
            }
            Ok(decision) => self.answer_unchanged(request, decision.notes),
            Err(refusal) => self.refuse(request, refusal),
        }
    }

    /// The others cannot be told: nothing changes but this instance's own file.
    fn do_alone(&mut self, mut request: Request, decision: &Decision) {
        if !matches!(request.command, Command::Reload { .. }) {
            return self.refuse(request, Refusal::ClusterAway);
        }
        let own = Decision {
            config: decision.config.clone(),
            ..Decision::nothing(&self.world)
        };
        self.take_over(std::mem::take(&mut request.brought));
        let fence = self.carry_out(&own, self.world.state.revision, true);
        self.sharing.note_file_changed();
        self.tell_served();
        let applied = self.applied(Vec::new(), Some(fence), Durable::Known(true));
        let _ = request.reply.send(Ok(applied));
    }

    /// What came with a file.
    pub(super) fn take_over(&mut self, brought: Brought) {
        if let Some(material) = brought.material {
            self.material = material;
        }
        self.addresses.extend(brought.addresses);
    }

    fn persist(&mut self, pending: Pending) {
        let Request { command, asked, .. } = &pending.request;
        let commit = self.commit(
            &self.world,
            command,
            asked,
            &pending.decision,
            pending.revision,
            false,
        );
        if self.sharing.way() != Way::Alone {
            return self.propose_ordinary(pending, &commit);
        }
        let (sender, thread) = (self.persisted.0.clone(), std::thread::current());
        let done = Box::new(move |result: Result<(), String>| {
            let _ = sender.try_send(result);
            thread.unpark();
        });
        self.pending = Some(Box::new(pending));
        self.store.commit(commit, done);
    }

    /// A change has reached the disk, or not.
    pub(super) fn finish(&mut self, pending: Pending, result: Result<(), String>) {
        if let Err(error) = result {
            return self.refuse(pending.request, Refusal::NotDurable(error));
        }
        if pending.base != self.world.state.revision {
            return self.finish_overtaken(pending);
        }
        match self.decide(&pending.request.command, &pending.request.asked) {
            // Nobody waited for the disk: what was fit to take traffic may be so no longer.
            Err(refusal) => {
                self.withdraw(&pending);
                return self.refuse(pending.request, refusal);
            }
            // The clock would ask for something else by now, and asks again: a judge has found something, or
            // what weights would go back to has died.
            Ok(again)
                if pending.is_progress()
                    && !(again.changes(&self.world)
                        && has_same_traffic(&again, &pending.decision)) =>
            {
                self.withdraw(&pending);
                return self.answer_unchanged(pending.request, Vec::new());
            }
            Ok(_) => {}
        }
        let Pending {
            mut request,
            decision,
            revision,
            ..
        } = pending;
        self.take_over(std::mem::take(&mut request.brought));
        let new_routes = matches!(request.command, Command::Reload { .. } | Command::Drill(_));
        let fence = self.carry_out(&decision, revision, new_routes);
        self.store.release(revision);
        self.tell(&decision, &request.asked, Some(revision));
        let applied = self.applied(decision.notes, Some(fence), Durable::Known(true));
        let _ = request.reply.send(Ok(applied));
    }

    /// Takes back a change that is persisted but not in force: what is in force is persisted instead, or
    /// the change would come into force with the next start.
    fn withdraw(&mut self, pending: &Pending) {
        let Request { command, asked, .. } = &pending.request;
        self.store.void(pending.revision);
        let commit = self.withdrawal(command, asked);
        self.store.commit(commit, Box::new(|_| ()));
    }

    /// A rollback or block was applied while this was being written. It is decided again as things
    /// are now, unless it would give weight back to what was just taken away.
    pub(super) fn finish_overtaken(&mut self, pending: Pending) {
        let Pending {
            request,
            revision,
            decision,
            ..
        } = pending;
        // What others were faster than was never persisted.
        if self.sharing.way() == Way::Alone {
            self.store.void(revision);
        }
        let again = match self.decide(&request.command, &request.asked) {
            Ok(again) => again,
            Err(refusal) => return self.refuse(request, refusal),
        };
        let touched = |decision: &Decision| decision.services.keys().cloned().collect::<Vec<_>>();
        let undoes = touched(&decision)
            .iter()
            .chain(&touched(&again))
            .any(|name| {
                let Some(now) = self.effective.get(name) else {
                    return false;
                };
                let Some(file) = again.config.services.get(name) else {
                    return false;
                };
                let state = again
                    .services
                    .get(name)
                    .or_else(|| self.world.state.services.get(name));
                let Some(state) = state else { return false };
                let after = Effective::new(file, state, again.stable_only);
                now.backends
                    .keys()
                    .any(|backend| now.weight(backend) == 0 && after.weight(backend) > 0)
            });
        // Nor what was just turned off.
        let mut on = again.flags.iter().filter(|(_, flag)| flag.off.is_none());
        let flags = &self.world.state.flags;
        let turns_on = on.any(|(name, _)| flags.get(name).is_some_and(|flag| flag.off.is_some()));
        if undoes || turns_on {
            return self.refuse(request, Refusal::Overtaken);
        }
        if !again.changes(&self.world) && request.brought.material.is_none() {
            return self.answer_unchanged(request, again.notes);
        }
        self.numbered += 1;
        self.persist(Pending {
            revision: self.numbered,
            base: self.world.state.revision,
            request,
            decision: again,
        });
    }
}

/// Whether two decisions about the same services send traffic the same way.
fn has_same_traffic(one: &Decision, other: &Decision) -> bool {
    let traffic = |decision: &Decision, name: &Name| {
        let file = decision.config.services.get(name)?;
        let state = decision.services.get(name)?;
        let effective = Effective::new(file, state, decision.stable_only);
        Some((effective.weights.clone(), effective.stable.clone()))
    };
    let mut names = one.services.keys().chain(other.services.keys());
    names.all(|name| traffic(one, name) == traffic(other, name))
}

//! When the judges are asked, and what is done about their verdicts.

use switchback_config::defaults::{TICK, TICK_MIN};
use switchback_config::model::{Name, OnFailure};

use super::Keeper;
use crate::command::{Asked, Command, Failing};
use crate::evidence::Amendment;
use crate::observer::{Alert, Notice};

impl Keeper {
    /// Looks at the counters every 50 ms, and within a millisecond of a watched version's failure.
    pub(super) fn tick_if_due(&mut self) {
        let now = self.clock().now;
        // Requests that end here after another process has taken over prove nothing about what it serves.
        if self.lending.is_retired() {
            self.last_tick = now;
            return;
        }
        let since = now.saturating_sub(self.last_tick);
        let alarmed = self.alarm.take();
        if since < TICK {
            if !alarmed {
                return;
            }
            if since < TICK_MIN {
                std::thread::park_timeout(TICK_MIN - since);
            }
        }
        let clock = self.clock();
        self.last_tick = clock.now;
        for notice in self.observer.tick(clock, alarmed) {
            match notice {
                Notice::Failing(alert) => self.heed(alert),
                Notice::MirrorFailing(alert) => self.heed_mirror(alert),
                Notice::Tell(note) => {
                    let service = note.service.as_deref();
                    self.events
                        .emit(note.kind, service, "judge", note.message, None);
                }
                Notice::Afterwards {
                    id,
                    service,
                    amendment,
                    said,
                } => {
                    self.count_recovery(service, &amendment);
                    self.store.amend_rollback(id, amendment);
                    // No revision: nothing has changed, so hooks hear of it by the event.
                    if let Some(note) = said {
                        let service = note.service.as_deref();
                        let message = format!("{}; see switchback incident {id}", note.message);
                        self.events
                            .emit(note.kind, service, "switchback", message, None);
                    }
                }
            }
        }
        self.outgoing.release();
    }

    /// Tells about a version that keeps what it has.
    fn tell_failing(&mut self, action: OnFailure, service: &Name, finding: &str) {
        let holds = action == OnFailure::Hold;
        let kind = if holds { "judge_hold" } else { "judge_notify" };
        let message = finding.to_owned();
        self.events
            .emit(kind, Some(service), "judge", message, None);
        if holds {
            self.freeze(service, finding);
        }
    }

    fn count_recovery(&mut self, service: Name, amendment: &Amendment) {
        if let Some(recovery) = &amendment.recovery {
            let result = recovery.state.as_str();
            *self.recoveries.entry((service, result)).or_default() += 1;
            self.publish(self.plane.snapshot());
        }
    }

    pub(super) fn heed(&mut self, alert: Alert) {
        let Alert {
            service,
            backend,
            version,
            cause,
            sentence,
            action,
            first,
        } = alert;
        let asked = action;
        let effective = self.effective.get(&service);
        let action = effective.map_or(asked, |effective| effective.on_failure(&backend, asked));
        if action != OnFailure::Rollback {
            if first {
                let why = match action != asked {
                    true => "; its migration is destructive, so only people roll it back",
                    false => "",
                };
                self.tell_failing(action, &service, &format!("{backend}: {sentence}{why}"));
            }
            return;
        }
        let asked = Asked {
            by: "judge".into(),
            how: Some(cause.as_str().into()),
            ..Asked::by_itself("judge", Some(sentence.clone()))
        };
        let failing = Failing {
            service: service.clone(),
            backend: backend.clone(),
            version,
            sentence: sentence.clone(),
        };
        let command = Command::Condemn {
            failing,
            cause,
            force: false,
        };
        match self.decide_now(&command, &asked) {
            Ok(decision) if decision.changes(&self.world) => {
                self.apply_now(&command, &asked, &decision);
            }
            Ok(_) if first => {
                let message = format!(
                    "{backend} fails, and there is no previous version to go back to: {sentence}"
                );
                self.events
                    .emit("rollback_held", Some(&service), "judge", message, None);
            }
            Err(refusal) if first => {
                self.pause_rollout(&service, &refusal);
                let message =
                    format!("{backend} should be rolled back but is not, {refusal}: {sentence}");
                self.events
                    .emit("rollback_held", Some(&service), "judge", message, None);
            }
            Ok(_) | Err(_) => {}
        }
    }
}

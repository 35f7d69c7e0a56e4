//! The record of a rollback, or of a block of what never had weight: begun just before it is carried out,
//! finished when it is in force.
//!
//! Nothing here may delay a rollback: what has to be looked at before is copied (some microseconds),
//! everything else is done after the swap and after the rollback is on its way to the disk.

use std::sync::Arc;

use jiff::Timestamp;
use switchback_config::model::{Name, Service};
use switchback_judge::baseline::Baseline;
use switchback_proxy::exposure::Exposure;
use switchback_proxy::fence::Fence;

use super::Keeper;
use crate::builder::find;
use crate::command::{Asked, Cause, Command};
use crate::controller::Decision;
use crate::drill::shadow::is_shadow;
use crate::effective::Effective;
use crate::evidence::{Action, Record, Recovery, VersionEvidence, samples};
use crate::observer::RolledBack;

/// What was seen before a rollback.
pub(super) struct Witnessed {
    service: Name,
    cause: Cause,
    before: Arc<Effective>,
    after: Effective,
    versions: Vec<VersionEvidence>,
    exposures: Vec<(Name, Option<Arc<Exposure>>)>,
    /// What stable usually fails at most; none: no user has met what it is about.
    usual_rate: Option<f64>,
    /// How often it is usually slow at most, if that is what it is about.
    usual_slow_rate: Option<f64>,
    /// The record of another process, which has seen it and decided.
    seen: Option<Record>,
}

impl Witnessed {
    /// The failure rate at or below which all is well; none: there is nothing to recover from.
    fn band(&self, file: &Service) -> Option<f64> {
        let tolerated = file.rollback.max_extra_errors.fraction();
        self.usual_rate.map(|usual| usual + tolerated)
    }

    /// The same as another process has seen it, which has decided about it.
    pub(super) fn seen_as(mut self, seen: Record) -> Self {
        // Whom it has reached was counted there.
        for (_, exposure) in &mut self.exposures {
            *exposure = None;
        }
        self.seen = Some(seen);
        self
    }
}

impl Keeper {
    /// Copies what the observer has seen of the versions that a command will take the weight of.
    pub(super) fn witness(&self, command: &Command, decision: &Decision) -> Option<Witnessed> {
        let cause = match command {
            Command::Rollback { .. } | Command::Block { .. } => Cause::Operator,
            Command::Condemn { cause, .. } => *cause,
            Command::Reject { failing } => {
                return self.witness_copies(command, decision, &failing.backend);
            }
            _ => return None,
        };
        let service = command.service()?;
        // What is rehearsed is no incident.
        if is_shadow(service) {
            return None;
        }
        let before = self.effective.get(service)?;
        let file = decision.config.services.get(service)?;
        let state = decision.services.get(service)?;
        let after = Effective::new(file, state, decision.stable_only);
        let loses = |name: &&Name| before.weight(name) > 0 && after.weight(name) == 0;
        let mut losers: Vec<&Name> = before.backends.keys().filter(loses).collect();
        // A previous stable that keeps none either is not what it is about.
        losers.sort_by_key(|name| before.previous.as_ref() == Some(*name));
        if losers.is_empty() {
            return None;
        }
        let snapshot = self.plane.snapshot();
        let clock = self.clock();
        let live = find(&snapshot, service);
        let exposure = |name: &Name| {
            let live = live?;
            let index = live.backends.iter().position(|b| *b.name == **name)?;
            live.exposures.get(index)?.clone()
        };
        let with_tapes = matches!(cause, Cause::Judge | Cause::Rule);
        let seen = |name: &&Name| {
            let seen = self.observer.evidence(clock, service, name, with_tapes);
            seen.unwrap_or_else(|| VersionEvidence {
                backend: (*name).clone(),
                version: before.version(name).to_owned(),
                ..VersionEvidence::default()
            })
        };
        let usual_rate = losers
            .first()
            .and_then(|name| self.observer.usual_rate(service, name));
        let usual_slow_rate = losers
            .first()
            .filter(|_| cause == Cause::Judge)
            .and_then(|name| self.observer.usual_slow_rate(service, name));
        Some(Witnessed {
            service: service.clone(),
            cause,
            before: before.clone(),
            versions: losers.iter().map(seen).collect(),
            exposures: losers
                .iter()
                .map(|name| ((*name).clone(), exposure(name)))
                .collect(),
            usual_rate: Some(usual_rate.unwrap_or_else(|| Baseline::new(0.0).bound())),
            usual_slow_rate,
            after,
            seen: None,
        })
    }

    /// The same, for a version that only got copies.
    fn witness_copies(
        &self,
        command: &Command,
        decision: &Decision,
        backend: &Name,
    ) -> Option<Witnessed> {
        let service = command.service()?;
        let before = self.effective.get(service)?;
        let seen = self.observer.mirror_evidence(self.clock(), service);
        let seen = seen.filter(|seen| seen.backend == *backend)?;
        let file = decision.config.services.get(service)?;
        let state = decision.services.get(service)?;
        let after = Effective::new(file, state, decision.stable_only);
        Some(Witnessed {
            service: service.clone(),
            cause: Cause::Judge,
            before: before.clone(),
            after,
            versions: vec![seen],
            exposures: Vec::new(),
            usual_rate: None,
            usual_slow_rate: None,
            seen: None,
        })
    }

    /// Begins to watch whether a rollback helps.
    pub(super) fn watch_aftermath(
        &mut self,
        witnessed: &Witnessed,
        revision: u64,
        fence: &Arc<Fence>,
    ) {
        let Some(file) = self.world.config.services.get(&witnessed.service) else {
            return;
        };
        let snapshot = self.plane.snapshot();
        let live = find(&snapshot, &witnessed.service);
        let Some((live, band)) = live.zip(witnessed.band(file)) else {
            return;
        };
        let tolerated = file.rollback.max_extra_slow;
        let tolerated = tolerated.map_or(0.0, |extra| extra.fraction());
        let rolled_back = RolledBack {
            id: revision,
            service: live,
            losers: &witnessed.exposures,
            fence: fence.clone(),
            band,
            slow_band: witnessed.usual_slow_rate.map(|usual| usual + tolerated),
            verify: file.rollback.verify.0,
        };
        let clock = self.clock();
        self.observer
            .watch_aftermath(clock, &witnessed.service, &rolled_back);
    }

    /// Makes the record. None if the file does not name the service any more.
    pub(super) fn record(
        &self,
        witnessed: Witnessed,
        decision: &Decision,
        asked: &Asked,
        revision: u64,
    ) -> Option<Box<Record>> {
        let file = self.world.config.services.get(&witnessed.service)?;
        let clock = self.clock();
        let band = witnessed.band(file);
        let settings = serde_json::to_value(&file.rollback).unwrap_or_default();
        let Witnessed {
            service,
            cause,
            before,
            after,
            mut versions,
            exposures,
            seen,
            ..
        } = witnessed;
        if let Some(seen) = seen {
            let id = revision;
            return Some(Box::new(Record { id, ..seen }));
        }
        for (version, (_, exposure)) in versions.iter_mut().zip(&exposures) {
            if let Some(exposure) = exposure {
                version.impact = Some(exposure.impact().into());
                version.samples = samples(clock, exposure);
            }
        }
        let first = versions.first();
        Some(Box::new(Record {
            id: revision,
            at: clock.told,
            backend: first.map(|first| first.backend.clone()).unwrap_or_default(),
            version: first.map(|first| first.version.clone()).unwrap_or_default(),
            stable_version: after.version(&after.stable).to_owned(),
            stable: after.stable.clone(),
            cause,
            sentence: sentence(cause, asked),
            by: asked.by.clone(),
            applied_in_us: None,
            weights_before: before.weights.clone(),
            weights_after: after.weights.clone(),
            settings,
            versions,
            actions: actions(clock.told, &before, &after, decision),
            recovery: band.map_or_else(Recovery::not_needed, Recovery::pending),
            service,
        }))
    }
}

/// Why, in one sentence: the finding, or what the operator gave as the reason.
fn sentence(cause: Cause, asked: &Asked) -> String {
    match (cause, &asked.reason) {
        (Cause::Operator, Some(reason)) => format!("{} asked for it: {reason}", asked.by),
        (Cause::Operator, None) => format!("{} asked for it", asked.by),
        (_, Some(finding)) => finding.clone(),
        (_, None) => cause.as_str().into(),
    }
}

/// What was done, in sentences.
fn actions(
    at: Timestamp,
    before: &Effective,
    after: &Effective,
    decision: &Decision,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut add = |what: String| actions.push(Action { at, what });
    let moved: Vec<String> = before
        .backends
        .keys()
        .filter(|name| before.weight(name) != after.weight(name))
        .map(|name| format!("{name} {} -> {}", before.weight(name), after.weight(name)))
        .collect();
    if !moved.is_empty() {
        add(format!("weights: {}", moved.join(", ")));
    }
    if before.stable != after.stable {
        add(format!(
            "stable is {} again, not {}",
            after.stable, before.stable
        ));
    }
    for name in after
        .blocked
        .iter()
        .filter(|name| !before.blocked.contains(*name))
    {
        let version = after.version(name);
        add(format!(
            "version {version} of {name} is blocked until it is unblocked or another version is deployed"
        ));
    }
    for note in &decision.notes {
        if note.kind != "rolled_back" && note.kind != "blocked" {
            add(note.message.clone());
        }
    }
    actions
}

//! Bringing back what was in force after an earlier revision.
//!
//! What was in force then is worked out here, for every service; whether it can be again is decided by
//! the controller, all or nothing. The answer names each service: restored, unchanged, or why not.

use std::collections::BTreeMap;

use axum::Extension;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use switchback_config::model::{Flag, Name};
use utoipa::ToSchema;

use super::{Past, flags_of, moments, not_kept};
use crate::api::extract::Named;
use crate::api::problem::Problem;
use crate::api::reads::unknown;
use crate::api::views::{self, Answer, BeforeSwitch, Followed};
use crate::api::writes::{IfMatch, Inputs, Options, Wait, Write, gated};
use crate::api::{Api, body};
use crate::auth::Role;
use crate::command::Command;
use crate::control::Confirmed;
use crate::effective::Effective;
use crate::history::Settled;
use crate::history::difference::{Difference, differences, flag_differences};
use crate::history::past::{Moment, Then};
use crate::state::flag_in_force;

/// What to bring back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Restore)]
pub(in crate::api) struct Wanted {
    /// Only this service.
    service: Option<Name>,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// Even if a backend that gets traffic is not known to be healthy, and without asking hooks for
    /// `before_switch`.
    force: bool,
}

/// What became of a restore.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Restored {
    /// The revision that was restored.
    restored: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    /// Nothing has changed.
    dry_run: bool,
    /// Whether anything is different now, or would be.
    changed: bool,
    /// The state after it.
    revision: u64,
    /// Microseconds from the swap until every worker followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_in_us: Option<u64>,
    /// Whether it survives a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<bool>,
    /// Whether the other instances follow.
    #[serde(flatten)]
    #[schema(inline)]
    followed: Followed,
    /// Where hooks want to be asked before another backend becomes stable: whether they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    before_switch: Option<BeforeSwitch>,
    /// The services that were restored, as after any other write.
    services: Vec<Answer>,
    /// What changed, or would.
    differences: Vec<Difference>,
    /// The flags that were restored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    flags: Vec<Name>,
    /// Services that are as they were then.
    unchanged: Vec<Name>,
    /// Services that could not be restored, and why.
    not_restored: Vec<Said>,
    /// What could not be brought back inside of services that were restored.
    conflicts: Vec<Said>,
}

/// Something to know about a service or a flag.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Said {
    /// The service, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Name>,
    /// The flag, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<Name>,
    /// In words.
    reason: String,
}

/// Brings back what was in force after a revision, as a new revision: all services or one, all or
/// nothing. Lifts no block; never touches listeners, TLS, the admin API or hooks.
#[utoipa::path(post, path = "/v1/revisions/{revision}/restore", operation_id = "restore", tag = "record",
    params(("revision" = u64, Path, description = "Its number; 0: before the first change"), Options, IfMatch),
    request_body = Option<Wanted>,
    responses((status = 200, body = Restored)))]
pub(in crate::api) async fn restore(
    State(api): State<Api>,
    Named(revision): Named<u64>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let mut write = Write::new(caller, Role::Operator, query, &headers)?;
    let wanted: Wanted = body::read(&text)?;
    let past = Past::read(&api).await?;
    let mut then = past.as_of(revision)?;
    if let Some(service) = &wanted.service {
        then.retain(|name, _| name == service);
        match then.get(service) {
            None => return Err(unknown(service)),
            Some(Then::Unknown) => return Err(not_kept(revision)),
            Some(_) => {}
        }
    }
    let mut not_restored = Vec::new();
    for (name, then) in &then {
        let reason = match then {
            Then::Unknown => "its changes since then are no longer kept",
            Then::Absent if past.now.contains_key(name) => "it was not configured then",
            Then::Was(_) if !past.now.contains_key(name) => "it is not configured any more",
            _ => continue,
        };
        not_restored.push(Said {
            service: Some(name.clone()),
            reason: reason.into(),
            ..Said::default()
        });
    }
    // Who names a service means that and nothing else.
    let flags = match wanted.service {
        Some(_) => BTreeMap::new(),
        None => flags_then(&past, revision, &mut not_restored),
    };
    let services = then
        .iter()
        .filter(|(name, _)| past.now.contains_key(*name))
        .filter_map(|(name, then)| Some((name.clone(), then.moment()?.in_force.clone())));
    let command = Command::Restore {
        revision,
        services: services.collect(),
        flags,
        force: wanted.force,
    };
    let names: Vec<Name> = match &command {
        Command::Restore { services, .. } => services.keys().cloned().collect(),
        _ => Vec::new(),
    };
    gated::hear_restore(&api, &mut write, &command, wanted.reason.as_ref()).await?;
    let asked = write.asked(&api, wanted.reason)?;
    let confirmed = api.controls.ask(command, asked).await?;
    let answer = answer(&write, revision, &past, names, not_restored, &confirmed).await;
    Ok(Json(answer).into_response())
}

async fn answer(
    write: &Write,
    revision: u64,
    past: &Past,
    names: Vec<Name>,
    not_restored: Vec<Said>,
    confirmed: &Confirmed,
) -> Restored {
    let applied = &confirmed.applied;
    let dry_run = write.options.dry_run;
    let after = |name: &Name| match applied.planned.as_deref() {
        Some((decision, _)) => planned(decision, name),
        None => moments(&applied.published).remove(name),
    };
    let mut restored = Restored {
        restored: revision,
        dry_run,
        changed: applied.changed,
        revision: applied.published.state.revision,
        applied_in_us: (!dry_run).then(|| micros(confirmed.applied_in)),
        durable: (!dry_run).then_some(confirmed.durable),
        followed: confirmed.acknowledged.into(),
        before_switch: write.before_switch,
        services: Vec::new(),
        flags: Vec::new(),
        differences: Vec::new(),
        unchanged: Vec::new(),
        not_restored,
        conflicts: Vec::new(),
    };
    restored.tell_flags(past, confirmed);
    for name in names {
        let is_about = |service: &Option<Name>| service.as_ref() == Some(&name);
        let mut notes = applied.notes.iter().filter(|note| is_about(&note.service));
        let conflicts = notes.clone().filter(|note| note.kind == "conflict");
        restored.conflicts.extend(conflicts.map(|note| Said {
            service: Some(name.clone()),
            reason: note.message.clone(),
            ..Said::default()
        }));
        if !notes.any(|note| note.kind == "restored") {
            restored.unchanged.push(name);
            continue;
        }
        let found = differences(&name, past.now.get(&name), after(&name).as_ref());
        restored.differences.extend(found);
        restored
            .services
            .extend(view(write, &name, confirmed).await);
    }
    restored
}

/// The flags of that time, as far as they are known.
fn flags_then(past: &Past, revision: u64, not_restored: &mut Vec<Said>) -> BTreeMap<Name, Flag> {
    let mut flags = BTreeMap::new();
    for (name, then) in past.flags_as_of(revision) {
        let reason = match then {
            Then::Was(flag) | Then::Unchanged(flag) => {
                flags.insert(name, *flag);
                continue;
            }
            Then::Unknown => "its changes since then are no longer kept",
            Then::Absent if past.flags_now.contains_key(&name) => {
                "it was not there then: switchback flag unset removes it"
            }
            Then::Absent => continue,
        };
        not_restored.push(Said {
            flag: Some(name),
            reason: reason.into(),
            ..Said::default()
        });
    }
    flags
}

impl Restored {
    /// Tells what became of the flags.
    fn tell_flags(&mut self, past: &Past, confirmed: &Confirmed) {
        let applied = &confirmed.applied;
        let after = match applied.planned.as_deref() {
            Some((decision, _)) => {
                let changed = decision.flags.iter();
                changed
                    .filter_map(|(name, state)| {
                        let file = decision.config.flags.get(name);
                        Some((name.clone(), flag_in_force(file, Some(state))?))
                    })
                    .collect()
            }
            None => flags_of(&applied.published),
        };
        for (name, flag) in &after {
            let found = flag_differences(name, past.flags_now.get(name), Some(flag));
            if !found.is_empty() {
                self.flags.push(name.clone());
                self.differences.extend(found);
            }
        }
        let notes = applied.notes.iter();
        let conflicts = notes.filter(|note| note.kind == "conflict" && note.service.is_none());
        self.conflicts.extend(conflicts.map(|note| Said {
            reason: note.message.clone(),
            ..Said::default()
        }));
    }
}

/// A service that was restored, as after any other write.
async fn view(write: &Write, name: &Name, confirmed: &Confirmed) -> Option<Answer> {
    if write.options.dry_run {
        let planned = views::planned(name, confirmed)?;
        return Some(Answer::Planned(Box::new(planned)));
    }
    let mut view = views::written(name, confirmed)?;
    if write.options.wait == Some(Wait::Drained) {
        view.drained = Some(write.drained(name, confirmed).await);
        view.count(&confirmed.applied.published);
    }
    Some(Answer::Written(Box::new(view)))
}

fn planned(decision: &crate::controller::Decision, name: &Name) -> Option<Moment> {
    let (state, file) = (
        decision.services.get(name)?.clone(),
        decision.config.services.get(name)?,
    );
    let in_force = Settled::from(&Effective::new(file, &state, decision.stable_only));
    Some(Moment { state, in_force })
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

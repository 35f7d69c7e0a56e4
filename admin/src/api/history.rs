//! The endpoints about the past: what changed, what differs from then, and bringing it back.

pub(super) mod restore;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use switchback_config::model::{Flag, Name};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{Named, Query};
use super::problem::Problem;
use super::reads::{Limit, store_failed, unknown};
use super::views::list::Revisions;
use crate::control::Published;
use crate::drill::shadow::is_shadow;
use crate::history::difference::{Difference, differences, flag_differences};
use crate::history::past::{Moment, Then, after, before};
use crate::history::{Revision, Settled};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many at most; 50 if it is not said.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 500)]
    limit: Option<Limit>,
    /// Only those before this number.
    before: Option<u64>,
    /// Only those that changed this service.
    service: Option<Name>,
}

/// Every change of runtime state that is kept, the newest first: who, when, why, and what it was before.
#[utoipa::path(get, path = "/v1/revisions", operation_id = "history", tag = "record",
    params(Page),
    responses((status = 200, body = Revisions)))]
pub(super) async fn revisions(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let Limit(limit) = page.limit.unwrap_or_default();
    let revisions = api.store.revisions(page.service, page.before, limit).await;
    let revisions = revisions.map_err(store_failed)?;
    let next = revisions.last().map(|last| last.revision);
    let next = next.filter(|_| revisions.len() == limit);
    let page = Revisions {
        revisions,
        next_before: next,
    };
    Ok(Json(page).into_response())
}

/// One revision, with what it changed field by field.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RevisionDetail)]
struct Detail {
    #[serde(flatten)]
    revision: Revision,
    /// What it changed, field by field.
    differences: Vec<Difference>,
}

/// One recorded change, with what it changed field by field.
#[utoipa::path(get, path = "/v1/revisions/{revision}", operation_id = "history_show", tag = "record",
    params(("revision" = u64, Path, description = "Its number")),
    responses((status = 200, body = Detail)))]
pub(super) async fn revision(
    State(api): State<Api>,
    Named(number): Named<u64>,
) -> Result<Response, Problem> {
    let found = api.store.revision(number).await.map_err(store_failed)?;
    let revision = found.ok_or_else(|| not_kept(number))?;
    let changed = revision.changes.iter();
    let differences = changed.flat_map(|(name, change)| {
        differences(name, before(change).as_ref(), after(change).as_ref())
    });
    let turned = revision.flags.iter().flat_map(|(name, turn)| {
        let (before, after) = (&turn.in_force_before, &turn.in_force_after);
        flag_differences(name, before.as_ref(), after.as_ref())
    });
    let differences = differences.chain(turned).collect();
    let detail = Detail {
        revision,
        differences,
    };
    Ok(Json(detail).into_response())
}

fn not_kept(number: u64) -> Problem {
    Problem::not_found(format!("revision {number} is not kept"))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Compare {
    /// The other revision; without one, what is in force now.
    to: Option<u64>,
    /// Only this service.
    service: Option<Name>,
}

/// What differs between two states.
#[derive(Debug, Serialize, ToSchema)]
struct Diff {
    /// The earlier state.
    from: u64,
    /// The later one.
    to: u64,
    /// Whether `to` is what is in force now.
    current: bool,
    /// What differs in force, field by field.
    differences: Vec<Difference>,
    /// Services about which the record says nothing.
    unknown: Vec<Name>,
    /// Flags about which the record says nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    unknown_flags: Vec<Name>,
}

/// What differs between what was in force after a revision and after another one, or now. 0 is the state
/// before the first change.
#[utoipa::path(get, path = "/v1/revisions/{revision}/diff", operation_id = "diff", tag = "record",
    params(("revision" = u64, Path, description = "The earlier state"), Compare),
    responses((status = 200, body = Diff)))]
pub(super) async fn diff(
    State(api): State<Api>,
    Named(from): Named<u64>,
    Query(Compare { to, service }): Query<Compare>,
) -> Result<Response, Problem> {
    let past = Past::read(&api).await?;
    let mut earlier = past.as_of(from)?;
    let mut later = past.as_of(to.unwrap_or(past.current))?;
    if let Some(service) = &service {
        if !earlier.contains_key(service) && !later.contains_key(service) {
            return Err(unknown(service));
        }
        earlier.retain(|name, _| name == service);
        later.retain(|name, _| name == service);
    }
    let mut diff = Diff {
        from,
        to: to.unwrap_or(past.current),
        current: to.is_none_or(|to| to == past.current),
        differences: Vec::new(),
        unknown: Vec::new(),
        unknown_flags: Vec::new(),
    };
    if service.is_none() {
        let (earlier, later) = (past.flags_as_of(from), past.flags_as_of(diff.to));
        compare_flags(&earlier, &later, &mut diff);
    }
    for (name, then) in &earlier {
        let now = later.get(name).unwrap_or(&Then::Absent);
        if *then == Then::Unknown || *now == Then::Unknown {
            diff.unknown.push(name.clone());
        } else {
            let found = differences(name, then.moment(), now.moment());
            diff.differences.extend(found);
        }
    }
    Ok(Json(diff).into_response())
}

fn compare_flags(
    earlier: &BTreeMap<Name, Then<Flag>>,
    later: &BTreeMap<Name, Then<Flag>>,
    diff: &mut Diff,
) {
    for (name, then) in earlier {
        let now = later.get(name).unwrap_or(&Then::Absent);
        if *then == Then::Unknown || *now == Then::Unknown {
            diff.unknown_flags.push(name.clone());
        } else {
            let found = flag_differences(name, then.moment(), now.moment());
            diff.differences.extend(found);
        }
    }
}

/// The record, beside what is in force now.
#[derive(Debug)]
struct Past {
    record: crate::history::past::Record,
    now: BTreeMap<Name, Moment>,
    flags_now: BTreeMap<Name, Flag>,
    current: u64,
}

impl Past {
    async fn read(api: &Api) -> Result<Self, Problem> {
        // In this order: a change in between is in the record, and found there.
        let published = api.controls.published();
        let record = api.store.record().await.map_err(store_failed)?;
        Ok(Self {
            record,
            now: moments(&published),
            flags_now: flags_of(&published),
            current: published.state.revision,
        })
    }

    /// All flags as of a revision.
    fn flags_as_of(&self, revision: u64) -> BTreeMap<Name, Then<Flag>> {
        self.record.flags_as_of(revision, &self.flags_now)
    }

    /// All services as of a revision.
    fn as_of(&self, revision: u64) -> Result<BTreeMap<Name, Then>, Problem> {
        let current = self.current;
        if revision > current {
            let detail =
                format!("there is no revision {revision} yet; the current one is {current}");
            return Err(Problem::not_found(detail));
        }
        let then = self.record.as_of(revision, &self.now);
        if then.values().all(|then| *then == Then::Unknown) {
            return Err(not_kept(revision));
        }
        Ok(then)
    }
}

/// The flags as they are now.
fn flags_of(published: &Published) -> BTreeMap<Name, Flag> {
    let live = published.flags.flags.iter();
    live.map(|(name, live)| (name.clone(), live.flag.clone()))
        .collect()
}

/// The services as they are now.
fn moments(published: &Published) -> BTreeMap<Name, Moment> {
    let services = published.services.iter();
    let services = services.filter(|(name, _)| !is_shadow(name));
    let services = services.map(|(name, status)| {
        let state = published.state.services.get(name).cloned();
        let moment = Moment {
            state: state.unwrap_or_default(),
            in_force: Settled::from(&*status.effective),
        };
        (name.clone(), moment)
    });
    services.collect()
}

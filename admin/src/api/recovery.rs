//! The endpoints about ways back: whether there is one right now, how fast each was, and which to take.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use switchback_config::defaults::ROLLBACKS_KEPT;
use switchback_config::model::Name;
use switchback_config::units::TimeSpan;
use utoipa::IntoParams;

use super::Api;
use super::document::InService;
use super::extract::{Named, Query};
use super::problem::Problem;
use super::reads::{store_failed, unknown};
use super::views::schema;
use crate::control::Published;
use crate::diagnose::{self, Changed, Diagnosis, Errors, Known};
use crate::explain::{Facts, plan};
use crate::methods::{self, Measured, Methods};
use crate::ready::Ready;
use crate::state::ServiceState;
use crate::timings::OF_ALL;

/// Revisions that are looked through for what was changed.
const LOOKED_THROUGH: usize = 200;

/// How far back it is looked for a cause, if the caller does not say.
const WITHIN_S: u64 = 3_600;

/// Whether the service could be rolled back right now, and why not: who would get the traffic, whether they
/// can serve it, whether the database allows it, whether it was tried lately.
#[utoipa::path(get, path = "/v1/services/{service}/ready", operation_id = "ready", tag = "look",
    params(InService), responses((status = 200, body = Ready)))]
pub(super) async fn ready(
    State(api): State<Api>,
    Named(name): Named<Name>,
) -> Result<Response, Problem> {
    api.readiness.read_rollbacks(&api.store).await;
    let published = api.controls.published();
    let ready = api.readiness.of(&published, &name, api.store.trouble());
    Ok(Json(ready.ok_or_else(|| unknown(&name))?).into_response())
}

/// The ways back beside each other: how fast each was here, when it was last rehearsed, and what it would do
/// to data. What was never measured has no speed.
#[utoipa::path(get, path = "/v1/services/{service}/methods", operation_id = "methods", tag = "look",
    params(InService), responses((status = 200, body = Methods)))]
pub(super) async fn methods(
    State(api): State<Api>,
    Named(name): Named<Name>,
) -> Result<Response, Problem> {
    let measured = measured(&api, &name).await?;
    let published = api.controls.published();
    let methods = methods::methods(&published, &name, &measured);
    Ok(Json(methods.ok_or_else(|| unknown(&name))?).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Within {
    /// How far back changes are looked at; 1h if it is not said.
    #[param(value_type = Option<schema::TimeSpan>, inline)]
    within: Option<TimeSpan>,
}

/// What is wrong with the service and what to do, the recommended way first: what was changed lately, who
/// errs since when, what is possible now, and how long it took here.
#[utoipa::path(get, path = "/v1/services/{service}/diagnose", operation_id = "diagnose", tag = "look",
    params(InService, Within), responses((status = 200, body = Diagnosis)))]
pub(super) async fn diagnose(
    State(api): State<Api>,
    Named(name): Named<Name>,
    Query(Within { within }): Query<Within>,
) -> Result<Response, Problem> {
    let within_s = within.map_or(WITHIN_S, |within| within.0.as_secs());
    let measured = measured(&api, &name).await?;
    let changes = changes(&api, &name, within_s).await?;
    let published = api.controls.published();
    let unrecorded = ServiceState::default();
    let now = published.clock.now();
    let facts = Facts::collect(&published, &name, &unrecorded, now);
    let facts = facts.ok_or_else(|| unknown(&name))?;
    let found: Diagnosis = diagnose::diagnose(Known {
        facts: &facts,
        within_min: u32::try_from(within_s.div_ceil(60)).unwrap_or(u32::MAX),
        changes,
        errors: errors(&api, &published, &name),
        measured: &measured,
        flags_on: flags_on(&published),
        plan: &|command| plan(&published, &name, now, command),
    });
    Ok(Json(found).into_response())
}

/// What was measured of the ways back of a service.
async fn measured(api: &Api, service: &Name) -> Result<Measured, Problem> {
    // What was answered a moment ago is on its way.
    api.controls.timings.save(&api.store);
    let mut timings = api
        .store
        .timings(service.clone())
        .await
        .map_err(store_failed)?;
    let of_all = api.store.timings(OF_ALL.into()).await;
    timings.extend(of_all.map_err(store_failed)?);
    let limit = usize::try_from(ROLLBACKS_KEPT).unwrap_or(usize::MAX);
    let rollbacks = api
        .store
        .rollbacks(Some(service.clone()), None, limit)
        .await
        .map_err(store_failed)?;
    Ok(Measured { timings, rollbacks })
}

/// What was changed of a service, or of flags, within a time.
async fn changes(api: &Api, service: &Name, within_s: u64) -> Result<Vec<Changed>, Problem> {
    let revisions = api
        .store
        .revisions(None, None, LOOKED_THROUGH)
        .await
        .map_err(store_failed)?;
    let within = i64::try_from(within_s).unwrap_or(i64::MAX);
    let within = SignedDuration::from_secs(within);
    let oldest = Timestamp::now()
        .saturating_sub(within)
        .unwrap_or(Timestamp::MIN);
    let late = revisions.iter().filter(|revision| revision.at >= oldest);
    let changes = late.filter_map(|revision| diagnose::changed(revision, service));
    Ok(changes.collect())
}

fn errors(api: &Api, published: &Published, service: &Name) -> Vec<Errors> {
    let Some(status) = published.services.get(service) else {
        return Vec::new();
    };
    let backends = status.effective.backends.iter();
    let errs = backends.filter_map(|(name, deployed)| {
        let stretch = api.trends.after(service, name, None);
        diagnose::errs(name, &deployed.version, &stretch)
    });
    errs.collect()
}

fn flags_on(published: &Published) -> Vec<Name> {
    let flags = published.flags.flags.iter();
    let on = flags.filter(|(_, live)| live.flag.enabled);
    on.map(|(name, _)| name.clone()).collect()
}

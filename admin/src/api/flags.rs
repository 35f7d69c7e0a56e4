//! The endpoints about flags: what they are, what they say to somebody, and changing them.

use std::time::Instant;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use switchback_config::model::Name;
use switchback_config::units::Percent;
use switchback_proxy::flag::{Asker, NoKey, evaluate};
use switchback_proxy::split::key_hash;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body;
use super::condition::tagged;
use super::extract::Named;
use super::problem::Problem;
use super::views::{self, FlagAnswer, FlagView, FlagWritten, Flags, schema};
use super::writes::{DryRun, IfMatch, Inputs, Reason, Write};
use crate::auth::Role;
use crate::command::{Command, FlagChange, Refusal};
use crate::history::difference::flag_differences;
use crate::state::flag_in_force;

/// Which flag it is about.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the router")]
struct OfFlag {
    /// Name of the flag.
    #[param(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", example = "new-checkout")]
    flag: String,
}

/// A flag to set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FlagRequest)]
pub(super) struct SetFlag {
    /// The flag, as it is written below `flags` in the config file.
    #[schema(value_type = schema::WrittenFlag)]
    flag: Map<String, Value>,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// Shares of a flag.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FlagSharesRequest)]
pub(super) struct SetShares {
    /// Share of targeting keys for each variant; the others get the default.
    #[schema(value_type = std::collections::BTreeMap<String, schema::Percent>)]
    shares: IndexMap<Name, Percent>,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// Somebody who asks.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = FlagQuestion)]
pub(super) struct Ask {
    /// What is known of them: `targetingKey`, by which shares are given, and whatever rules are about.
    #[schema(value_type = Object)]
    context: Map<String, Value>,
}

/// All flags: what is in force, beside the file and what was set.
#[utoipa::path(get, path = "/v1/flags", operation_id = "flags", tag = "flags",
    responses((status = 200, body = Flags, headers(("ETag" = String, description = "The state: `\"<revision>\"`")))))]
pub(super) async fn flags(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let published = api.controls.published();
    let view = Json(views::flags(&published)).into_response();
    tagged(&headers, published.state.revision, view)
}

/// One flag: what is in force, beside the file and what was set.
#[utoipa::path(get, path = "/v1/flags/{flag}", operation_id = "flag", tag = "flags",
    params(OfFlag),
    responses((status = 200, body = FlagView, headers(("ETag" = String, description = "The state: `\"<revision>\"`")))))]
pub(super) async fn flag(
    State(api): State<Api>,
    Named(name): Named<Name>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let published = api.controls.published();
    let view = views::flag(&published, &name);
    let view = view.ok_or_else(|| Problem::from(Refusal::UnknownFlag(name)))?;
    let revision = published.state.revision;
    tagged(&headers, revision, Json(view).into_response())
}

/// What a flag says to somebody, and why. Applications ask elsewhere: see `ofrep` of the file.
#[utoipa::path(post, path = "/v1/flags/{flag}/evaluate", operation_id = "flag_evaluate", tag = "flags",
    params(OfFlag), request_body = Option<Ask>, responses((status = 200, body = FlagAnswer)))]
pub(super) async fn evaluate_flag(
    State(api): State<Api>,
    Named(name): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    Write::without_options(caller, Role::Viewer, query, &headers)?;
    let Ask { context } = body::read(&text)?;
    let published = api.controls.published();
    let table = &published.flags;
    let Some(live) = table.flags.get(&name) else {
        return Err(Refusal::UnknownFlag(name).into());
    };
    let key = context.get("targetingKey").and_then(Value::as_str);
    let key = key.filter(|key| !key.is_empty());
    let asker = Asker {
        key: key.map(|key| key_hash(key.as_bytes())),
        context: &context,
    };
    match evaluate(&live.flag, &table.trust, Instant::now(), asker) {
        Ok(answer) => Ok(Json(FlagAnswer {
            flag: name,
            variant: answer.variant.to_owned(),
            value: answer.value.clone(),
            reason: answer.reason.as_str(),
        })
        .into_response()),
        Err(NoKey) => {
            let detail = format!("{name} is given to a share of keys: name a targetingKey");
            Err(unprocessable("targeting_key_missing", detail))
        }
    }
}

/// Sets a flag, or makes a new one. It holds until the file's own flag of this name changes.
#[utoipa::path(put, path = "/v1/flags/{flag}", operation_id = "flag_set", tag = "flags",
    params(OfFlag, DryRun, IfMatch), request_body = SetFlag,
    responses((status = 200, body = FlagWritten)))]
pub(super) async fn set(
    State(api): State<Api>,
    Named(name): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Operator, query, &headers)?;
    let SetFlag { flag, reason } = body::read(&text)?;
    if !switchback_config::is_name(&name) {
        let detail = "a flag's name has letters, digits, - _ and . only, at most 63";
        return Err(unprocessable("invalid_name", detail));
    }
    let flag = switchback_config::parse_flag(&Value::Object(flag).to_string());
    let flag = flag.map_err(|faults| {
        let first = faults.first();
        let first = first.map(|f| format!("{}: {}; {}", f.path, f.reason, f.repair));
        unprocessable("invalid_flag", first.unwrap_or_default()).with("diagnostics", json!(faults))
    })?;
    change(&api, &write, name, FlagChange::Set(Box::new(flag)), reason).await
}

/// Sets the shares of a flag.
#[utoipa::path(put, path = "/v1/flags/{flag}/shares", operation_id = "flag_shares", tag = "flags",
    params(OfFlag, DryRun, IfMatch), request_body = SetShares,
    responses((status = 200, body = FlagWritten)))]
pub(super) async fn shares(
    State(api): State<Api>,
    Named(name): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Operator, query, &headers)?;
    let SetShares { shares, reason } = body::read(&text)?;
    change(&api, &write, name, FlagChange::Shares(shares), reason).await
}

/// Turns a flag off, like a rollback: at once, before anything else, with a full disk too. It stays off
/// whatever the file says, until it is turned on.
#[utoipa::path(post, path = "/v1/flags/{flag}/off", operation_id = "flag_off", tag = "flags",
    params(OfFlag, DryRun), request_body = Option<Reason>,
    responses((status = 200, body = FlagWritten)))]
pub(super) async fn off(
    State(api): State<Api>,
    Named(name): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Rollback, query, &headers)?;
    let Reason { reason } = body::read(&text)?;
    change(&api, &write, name, FlagChange::Off, reason).await
}

/// Turns a flag on again.
#[utoipa::path(post, path = "/v1/flags/{flag}/on", operation_id = "flag_on", tag = "flags",
    params(OfFlag, DryRun, IfMatch), request_body = Option<Reason>,
    responses((status = 200, body = FlagWritten)))]
pub(super) async fn on(
    State(api): State<Api>,
    Named(name): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Operator, query, &headers)?;
    let Reason { reason } = body::read(&text)?;
    change(&api, &write, name, FlagChange::On, reason).await
}

/// Forgets what was set: the flag is as in the file, and gone if the file does not name it.
#[utoipa::path(delete, path = "/v1/flags/{flag}", operation_id = "flag_unset", tag = "flags",
    params(OfFlag, DryRun, IfMatch), request_body = Option<Reason>,
    responses((status = 200, body = FlagWritten)))]
pub(super) async fn unset(
    State(api): State<Api>,
    Named(name): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_wait(caller, Role::Operator, query, &headers)?;
    let Reason { reason } = body::read(&text)?;
    change(&api, &write, name, FlagChange::Unset, reason).await
}

fn unprocessable(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
}

async fn change(
    api: &Api,
    write: &Write,
    flag: Name,
    change: FlagChange,
    reason: Option<String>,
) -> Result<Response, Problem> {
    let asked = write.asked(api, reason)?;
    let before = api.controls.published();
    let command = Command::ChangeFlag {
        flag: flag.clone(),
        change,
    };
    let confirmed = api.controls.ask(command, asked).await?;
    let applied = &confirmed.applied;
    let dry_run = write.options.dry_run;
    let after = match applied.planned.as_deref() {
        Some((decision, now)) => {
            let state = decision.flags.get(&flag);
            let state = state.or_else(|| now.state.flags.get(&flag));
            flag_in_force(decision.config.flags.get(&flag), state)
        }
        None => in_force(&applied.published, &flag),
    };
    let differences = match applied.changed {
        true => flag_differences(&flag, in_force(&before, &flag).as_ref(), after.as_ref()),
        false => Vec::new(),
    };
    let applied_in_us = u64::try_from(confirmed.applied_in.as_micros()).unwrap_or(u64::MAX);
    let answer = FlagWritten {
        flag,
        changed: applied.changed,
        dry_run,
        revision: applied.published.state.revision,
        enabled: after.map(|flag| flag.enabled),
        differences,
        applied_in_us: (!dry_run).then_some(applied_in_us),
        durable: (!dry_run).then_some(confirmed.durable),
        followed: confirmed.acknowledged.into(),
    };
    Ok(Json(answer).into_response())
}

fn in_force(
    published: &crate::control::Published,
    flag: &Name,
) -> Option<switchback_config::model::Flag> {
    let live = published.flags.flags.get(flag)?;
    Some(live.flag.clone())
}

//! The endpoints that begin a rollout and move it along.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use switchback_config::model::{Bake, Name, Step};
use utoipa::{IntoParams, ToSchema};

use super::order::{MayOperate, Order};
use super::{IfMatch, Options, Reason, carry_out, gated};
use crate::api::Api;
use crate::api::document::InService;
use crate::api::extract::Named;
use crate::api::problem::Problem;
use crate::api::views::{Answer, schema};
use crate::command::{Command, StartRollout};

/// What to roll out, and how; what is not given comes from the file.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RolloutRequest)]
pub(in crate::api) struct Start {
    /// The backend that grows; may be left out where there is only one besides stable.
    #[schema(example = "green")]
    canary: Option<Name>,
    /// Other steps than the file's.
    #[schema(value_type = Option<Vec<schema::Step>>)]
    steps: Option<Vec<Step>>,
    /// Another bake than the file's; `off`: none.
    #[schema(value_type = Option<schema::BakeOrOff>)]
    bake: Option<BakeOrOff>,
    /// Skip the steps, for a version that was stable before.
    fast: bool,
    /// Even if the canary is not known to be healthy.
    force: bool,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// A bake, or none at all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum BakeOrOff {
    Off(Off),
    Bake(Bake),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Off {
    Off,
}

/// How far to go on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PromoteRequest)]
pub(in crate::api) struct Promote {
    /// To the end: the canary becomes stable.
    full: bool,
    /// Even if the judge holds.
    force: bool,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// By which a repeated request is recognised.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "described here, read by `idempotency_key`")]
pub(in crate::api) struct IdempotencyKey {
    /// The same key again starts no second rollout.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 128)]
    idempotency_key: Option<String>,
}

/// Longest `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 128;

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = key.to_str().ok().map(str::trim);
    match text.filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len())) {
        Some(text) => Ok(Some(text.to_owned())),
        None => {
            let detail = format!("Idempotency-Key has 1 to {KEY_BYTES_MAX} printable characters");
            let status = StatusCode::BAD_REQUEST;
            Err(Problem::new(status, "invalid_idempotency_key", detail))
        }
    }
}

/// Begins to let a canary grow: it gets the first step's share.
#[utoipa::path(post, path = "/v1/services/{service}/rollout", operation_id = "rollout_start", tag = "rollouts",
    params(InService, Options, IfMatch, IdempotencyKey), request_body = Option<Start>, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn start(
    State(api): State<Api>,
    Named(service): Named<Name>,
    headers: HeaderMap,
    Order {
        write,
        wanted: start,
        ..
    }: Order<MayOperate, Start>,
) -> Result<Response, Problem> {
    let bake = start.bake.map(|bake| match bake {
        BakeOrOff::Off(Off::Off) => None,
        BakeOrOff::Bake(bake) => Some(bake),
    });
    let command = Command::StartRollout(Box::new(StartRollout {
        service,
        canary: start.canary,
        steps: start.steps,
        bake,
        fast: start.fast,
        force: start.force,
        key: idempotency_key(&headers)?,
    }));
    carry_out(&api, &write, command, start.reason).await
}

/// Goes on to the next step now; after the last one, the canary becomes stable.
#[utoipa::path(post, path = "/v1/services/{service}/rollout/promote", operation_id = "rollout_promote", tag = "rollouts",
    params(InService, Options, IfMatch), request_body = Option<Promote>, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn promote(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, Promote>,
) -> Result<Response, Problem> {
    let Promote {
        full,
        force,
        reason,
    } = wanted;
    let command = Command::Promote {
        service,
        full,
        force,
    };
    gated::carry_out(&api, write, command, reason).await
}

/// Keeps a rollout at its step.
#[utoipa::path(post, path = "/v1/services/{service}/rollout/pause", operation_id = "rollout_pause", tag = "rollouts",
    params(InService, Options, IfMatch), request_body = Option<Reason>, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn pause(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, Reason>,
) -> Result<Response, Problem> {
    carry_out(&api, &write, Command::Pause { service }, wanted.reason).await
}

/// Lets a paused rollout go on.
#[utoipa::path(post, path = "/v1/services/{service}/rollout/resume", operation_id = "rollout_resume", tag = "rollouts",
    params(InService, Options, IfMatch), request_body = Option<Reason>, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn resume(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, Reason>,
) -> Result<Response, Problem> {
    carry_out(&api, &write, Command::Resume { service }, wanted.reason).await
}

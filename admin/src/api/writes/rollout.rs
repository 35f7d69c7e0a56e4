//! The endpoints that begin a rollout and move it along.

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use switchback_config::model::{Bake, Name, Step};

use super::{Inputs, Write, body, carry_out};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::auth::Role;
use crate::command::{Command, StartRollout};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Start {
    canary: Option<Name>,
    steps: Option<Vec<Step>>,
    bake: Option<BakeOrOff>,
    fast: bool,
    force: bool,
    reason: Option<String>,
}

/// A bake, or none at all.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BakeOrOff {
    Off(Off),
    Bake(Bake),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Off {
    Off,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Promote {
    full: bool,
    force: bool,
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Reason {
    reason: Option<String>,
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

pub(in crate::api) async fn start(
    State(api): State<Api>,
    Path(service): Path<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Operator, query, &headers)?;
    let start: Start = body(&text)?;
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

pub(in crate::api) async fn promote(
    State(api): State<Api>,
    Path(service): Path<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Operator, query, &headers)?;
    let Promote {
        full,
        force,
        reason,
    } = body(&text)?;
    let command = Command::Promote {
        service,
        full,
        force,
    };
    carry_out(&api, &write, command, reason).await
}

pub(in crate::api) async fn pause(
    State(api): State<Api>,
    Path(service): Path<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Operator, query, &headers)?;
    let Reason { reason } = body(&text)?;
    carry_out(&api, &write, Command::Pause { service }, reason).await
}

pub(in crate::api) async fn resume(
    State(api): State<Api>,
    Path(service): Path<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Operator, query, &headers)?;
    let Reason { reason } = body(&text)?;
    carry_out(&api, &write, Command::Resume { service }, reason).await
}

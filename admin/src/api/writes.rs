//! The endpoints that change something.

pub(super) mod rollout;

use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use switchback_config::model::Name;
use switchback_config::units::{Endpoint, TimeSpan};

use super::problem::Problem;
use super::{Api, views};
use crate::auth::{Caller, Role};
use crate::builder::find;
use crate::command::{Asked, Command};
use crate::control::Confirmed;

/// What a write may be asked in its query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    dry_run: bool,
    wait: Option<String>,
    timeout: Option<TimeSpan>,
}

/// How long a drain is waited for, if the caller does not say.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// How often the counters are looked at meanwhile.
const DRAIN_POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Plain {
    reason: Option<String>,
    force: bool,
    cut: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weights {
    weights: IndexMap<Name, u32>,
    /// They end after this time, unless they are set again.
    lease: Option<TimeSpan>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchTo {
    to: Name,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBackend {
    version: String,
    endpoints: Vec<Endpoint>,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

/// Everything about a write besides its body.
#[derive(Debug)]
pub(super) struct Write {
    caller: Caller,
    options: Options,
    if_revision: Option<u64>,
}

impl Write {
    pub(super) fn new(
        caller: Caller,
        needed: Role,
        query: Option<String>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        if caller.role < needed {
            let detail = format!(
                "this needs the role {needed:?}, and token {:?} has {:?}",
                caller.name, caller.role
            )
            .to_lowercase();
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        let query = query.unwrap_or_default();
        let options: Options = serde_urlencoded::from_str(&query)
            .map_err(|error| Problem::bad_request("invalid_query", error.to_string()))?;
        if options
            .wait
            .as_deref()
            .is_some_and(|wait| wait != "drained")
        {
            return Err(Problem::bad_request(
                "invalid_query",
                "wait can only be drained",
            ));
        }
        Ok(Self {
            caller,
            options,
            if_revision: if_match(headers)?,
        })
    }

    fn asked(&self, reason: Option<String>) -> Asked {
        Asked {
            by: self.caller.name.clone(),
            via: "api",
            reason,
            if_revision: self.if_revision,
            dry_run: self.options.dry_run,
        }
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let revision = value.to_str().ok().map(|value| value.trim_matches('"'));
    let revision = revision.and_then(|revision| revision.parse().ok());
    revision.map(Some).ok_or_else(|| {
        Problem::bad_request("invalid_if_match", "If-Match holds a revision: \"12\"")
    })
}

/// Reads a body; an empty one stands for `{}` where nothing is required.
fn body<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| {
        let problem = Problem::bad_request("invalid_body", error.to_string());
        problem
            .with("line", error.line().into())
            .with("column", error.column().into())
    })
}

type Inputs = (Extension<Caller>, RawQuery, HeaderMap);

pub(super) async fn weights(
    State(api): State<Api>,
    Path(service): Path<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Operator, query, &headers)?;
    let Weights {
        weights,
        lease,
        reason,
    } = body(&text)?;
    let command = Command::SetWeights {
        service,
        weights,
        lease,
    };
    carry_out(&api, &write, command, reason).await
}

pub(super) async fn switch(
    State(api): State<Api>,
    Path(service): Path<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Operator, query, &headers)?;
    let SwitchTo { to, reason, force } = body(&text)?;
    carry_out(&api, &write, Command::Switch { service, to, force }, reason).await
}

pub(super) async fn rollback(
    State(api): State<Api>,
    Path(service): Path<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Rollback, query, &headers)?;
    let Plain { reason, force, cut } = body(&text)?;
    carry_out(
        &api,
        &write,
        Command::Rollback {
            service,
            force,
            cut,
        },
        reason,
    )
    .await
}

/// All services at once: what can be rolled back is, each with its own result.
pub(super) async fn rollback_all(
    State(api): State<Api>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Rollback, query, &headers)?;
    let Plain { reason, force, cut } = body(&text)?;
    let names: Vec<Name> = api.controls.published().services.keys().cloned().collect();
    let (mut results, mut refused) = (Vec::new(), 0_u32);
    for service in names {
        let command = Command::Rollback {
            service: service.clone(),
            force,
            cut,
        };
        results.push(match ask(&api, &write, command, reason.clone()).await {
            Ok(answer) => answer,
            Err(problem) => {
                refused += 1;
                json!({"service": service, "changed": false, "problem": problem.to_json()})
            }
        });
    }
    Ok(Json(json!({"refused": refused, "services": results})).into_response())
}

pub(super) async fn block(
    State(api): State<Api>,
    Path((service, backend)): Path<(Name, Name)>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Rollback, query, &headers)?;
    let Plain { reason, force, .. } = body(&text)?;
    carry_out(
        &api,
        &write,
        Command::Block {
            service,
            backend,
            force,
        },
        reason,
    )
    .await
}

pub(super) async fn unblock(
    State(api): State<Api>,
    Path((service, backend)): Path<(Name, Name)>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Operator, query, &headers)?;
    let Plain { reason, .. } = body(&text)?;
    carry_out(&api, &write, Command::Unblock { service, backend }, reason).await
}

pub(super) async fn set_backend(
    State(api): State<Api>,
    Path((service, backend)): Path<(Name, Name)>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Operator, query, &headers)?;
    let SetBackend {
        version,
        endpoints,
        reason,
        force,
    } = body(&text)?;
    if version.is_empty() || version.len() > VERSION_BYTES_MAX {
        let detail = format!("version is a label of 1 to {VERSION_BYTES_MAX} characters");
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_version",
            detail,
        ));
    }
    let command = Command::SetBackend {
        service,
        backend,
        version,
        endpoints,
        force,
    };
    carry_out(&api, &write, command, reason).await
}

/// Longest label: image digests have 71 characters.
const VERSION_BYTES_MAX: usize = 128;

pub(super) async fn reload(
    State(api): State<Api>,
    (Extension(caller), RawQuery(query), headers): Inputs,
) -> Result<Response, Problem> {
    Write::new(caller, Role::Operator, query, &headers)?;
    match api.reloader.reload().await {
        Ok(report) => Ok(Json(json!(report)).into_response()),
        Err(error) => {
            let problem = Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                error.code(),
                error.to_string(),
            );
            Err(problem.with("diagnostics", json!(error.diagnostics())))
        }
    }
}

pub(super) async fn acknowledge(
    State(api): State<Api>,
    (Extension(caller), RawQuery(query), headers): Inputs,
) -> Result<Response, Problem> {
    let write = Write::new(caller, Role::Admin, query, &headers)?;
    let confirmed = api
        .controls
        .ask(Command::Acknowledge, write.asked(None))
        .await?;
    let revision = confirmed.applied.published.state.revision;
    Ok(Json(json!({"changed": confirmed.applied.changed, "revision": revision})).into_response())
}

async fn carry_out(
    api: &Api,
    write: &Write,
    command: Command,
    reason: Option<String>,
) -> Result<Response, Problem> {
    ask(api, write, command, reason)
        .await
        .map(|answer| Json(answer).into_response())
}

/// Carries a command out and describes what became of it.
async fn ask(
    api: &Api,
    write: &Write,
    command: Command,
    reason: Option<String>,
) -> Result<Value, Problem> {
    let service = command.service().cloned().unwrap_or_default();
    let confirmed = match api.controls.ask(command, write.asked(reason)).await {
        Ok(confirmed) => confirmed,
        Err(error) => {
            let problem = Problem::from(error);
            let current = views::service(&api.controls.published(), &service);
            return Err(match current {
                Some(current) if problem.is_precondition() => problem.with("current", current),
                _ => problem,
            });
        }
    };
    if write.options.dry_run {
        return Ok(views::planned(&service, &confirmed));
    }
    let mut answer = views::written(&service, &confirmed);
    if write.options.wait.is_some() {
        let patience = write.options.timeout.map_or(DRAIN_TIME, |span| span.0);
        let drained = tokio::time::timeout(patience, drained(&service, &confirmed))
            .await
            .is_ok();
        answer = views::written(&service, &confirmed);
        answer["drained"] = drained.into();
    }
    Ok(answer)
}

/// Waits until no backend without weight has a request in flight.
async fn drained(service: &str, confirmed: &Confirmed) {
    let Some(service) = find(&confirmed.applied.published.snapshot, service) else {
        return;
    };
    let mut ticks = tokio::time::interval(DRAIN_POLL);
    loop {
        ticks.tick().await;
        let closed = (0..service.backends.len()).filter(|index| !service.is_open(*index));
        if closed
            .map(|index| service.backends[index].stats.in_flight())
            .all(|count| count == 0)
        {
            return;
        }
    }
}

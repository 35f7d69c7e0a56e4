//! What every write has in common: its conditions, its body, and the answer.
//!
//! The endpoints themselves are in the files below, by what they change.

pub(super) mod drill;
pub(super) mod gated;
pub(super) mod order;
pub(super) mod process;
pub(super) mod rollout;
pub(super) mod runbook;
pub(super) mod traffic;

use std::time::Duration;

use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use switchback_config::defaults::REASON_CHARS_MAX;
use switchback_config::units::TimeSpan;
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use super::views::{Answer, BeforeSwitch, schema};
use super::{Api, condition, extract, views};
use crate::auth::{Caller, Role};
use crate::builder::find;
use crate::command::{Asked, Command};
use crate::control::Confirmed;

/// What a write may be asked in its query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Options {
    /// `true`: tell what would change, and change nothing.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// `applied`: answer when every instance of the cluster follows, after 2 s at the latest; that is how it
    /// is anyway. `drained`: answer when, besides, backends without weight have finished their requests here.
    #[param(inline)]
    pub(super) wait: Option<Wait>,
    /// How long to wait for `drained` at most; 30 s if it is not said.
    #[param(value_type = Option<schema::TimeSpan>, inline)]
    timeout: Option<TimeSpan>,
}

/// What a write that has nothing to wait for may be asked in its query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DryRun {
    /// `true`: tell what would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// `applied`: answer when every instance of the cluster follows, after 2 s at the latest; that is how it
    /// is anyway.
    #[param(inline)]
    #[expect(dead_code, reason = "there is nothing else to wait for")]
    wait: Option<WaitApplied>,
}

/// What a write that takes no options may be asked in its query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// What a write may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WaitFor)]
pub(super) enum Wait {
    /// Every instance of the cluster follows.
    Applied,
    /// Backends without weight have finished their requests.
    Drained,
}

/// What a write may wait for that moves no requests.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WaitForApplied)]
pub(super) enum WaitApplied {
    /// Every instance of the cluster follows.
    Applied,
}

/// Under which condition a write is carried out.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "described here, read by `condition`")]
pub(super) struct IfMatch {
    /// Only if the state is still at this revision, or at one of a list of them; otherwise 412 with the
    /// current one.
    #[param(rename = "If-Match", pattern = r#"^(\*|"[0-9]{1,19}"|[0-9]{1,19})$"#)]
    if_match: Option<String>,
}

/// How long a drain is waited for, if the caller does not say.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// How often the counters are looked at meanwhile.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Why something is done.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ReasonRequest)]
pub(super) struct Reason {
    /// For the record.
    #[schema(max_length = 1000)]
    pub(super) reason: Option<String>,
}

/// Everything about a write besides its body.
#[derive(Debug)]
pub(super) struct Write {
    caller: Caller,
    pub(super) options: Options,
    condition: condition::IfMatch,
    /// Whether hooks were asked about it.
    pub(super) before_switch: Option<BeforeSwitch>,
}

impl Write {
    pub(super) fn new(
        caller: Caller,
        needed: Role,
        query: Option<String>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        Self::with_options(caller, needed, headers, || extract::query(query.as_deref()))
    }

    /// A write that has nothing to wait for.
    pub(super) fn without_wait(
        caller: Caller,
        needed: Role,
        query: Option<String>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        Self::with_options(caller, needed, headers, || {
            let DryRun { dry_run, .. } = extract::query(query.as_deref())?;
            Ok(Options {
                dry_run,
                ..Options::default()
            })
        })
    }

    /// A write that takes no options: neither a dry run nor a wait is silently left out.
    pub(super) fn without_options(
        caller: Caller,
        needed: Role,
        query: Option<String>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        Self::with_options(caller, needed, headers, || {
            let Nothing {} = extract::query(query.as_deref())?;
            Ok(Options::default())
        })
    }

    fn with_options(
        caller: Caller,
        needed: Role,
        headers: &HeaderMap,
        options: impl FnOnce() -> Result<Options, Problem>,
    ) -> Result<Self, Problem> {
        if caller.role < needed {
            let detail = format!(
                "this needs the role {needed:?}, and token {:?} has {:?}",
                caller.name, caller.role
            )
            .to_lowercase();
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        Ok(Self {
            caller,
            options: options()?,
            condition: condition::IfMatch::of(headers)?,
            before_switch: None,
        })
    }

    /// Who asks, why, and under which condition.
    pub(super) fn asked(&self, api: &Api, reason: Option<String>) -> Result<Asked, Problem> {
        let length = reason.as_ref().map_or(0, |reason| reason.chars().count());
        if length > REASON_CHARS_MAX {
            let detail =
                format!("a reason has at most {REASON_CHARS_MAX} characters, not {length}");
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return Err(Problem::new(status, "invalid_reason", detail));
        }
        Ok(Asked {
            by: self.caller.name.clone(),
            via: "api",
            how: Some(self.caller.request.clone()),
            reason,
            if_revision: self.if_revision(api),
            dry_run: self.options.dry_run,
            heard: self.before_switch == Some(BeforeSwitch::Passed),
        })
    }

    fn if_revision(&self, api: &Api) -> Option<u64> {
        let current = api.controls.published().state.revision;
        self.condition.expected(current)
    }

    /// Waits for as long as was asked until no backend without weight has a request in flight.
    pub(super) async fn drained(&self, service: &str, confirmed: &Confirmed) -> bool {
        let patience = self.options.timeout.map_or(DRAIN_TIME, |span| span.0);
        let drained = tokio::time::timeout(patience, drained(service, confirmed));
        drained.await.is_ok()
    }
}

pub(super) type Inputs = (Extension<Caller>, RawQuery, HeaderMap);

pub(super) async fn carry_out(
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
) -> Result<Answer, Problem> {
    let service = command.service().cloned().unwrap_or_default();
    let about_rollout = command.is_about_rollout();
    let confirmed = match api.controls.ask(command, write.asked(api, reason)?).await {
        Ok(confirmed) => confirmed,
        Err(error) => {
            let problem = Problem::from(error);
            let current = views::service(&api.controls.published(), &service);
            return Err(match current {
                Some(current) if problem.is_precondition() => {
                    problem.with("current", json!(current))
                }
                _ => problem,
            });
        }
    };
    if write.options.dry_run {
        let planned = views::planned(&service, &confirmed).ok_or_else(gone)?;
        return Ok(Answer::Planned(Box::new(planned)));
    }
    let published = &confirmed.applied.published;
    let mut answer = views::written(&service, &confirmed).ok_or_else(gone)?;
    if write.options.wait == Some(Wait::Drained) {
        let drained = write.drained(&service, &confirmed).await;
        answer.count(published);
        answer.drained = Some(drained);
    }
    answer.before_switch = write.before_switch;
    if about_rollout {
        answer = answer.with_rollout(published);
    }
    Ok(Answer::Written(Box::new(answer)))
}

/// The file has lost the service while it was asked about.
fn gone() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_service",
        "the service is not configured any more",
    )
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

//! The endpoints that change where traffic goes at once.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use indexmap::IndexMap;
use serde::Deserialize;
use switchback_config::model::{Migration, Name, SchemaSupport};
use switchback_config::units::{Endpoint, TimeSpan};
use utoipa::ToSchema;

use super::order::{MayOperate, MayRollBack, Order};
use super::{IfMatch, Options, Reason, ask, carry_out, gated};
use crate::api::Api;
use crate::api::document::{InService, OfBackend};
use crate::api::extract::Named;
use crate::api::problem::Problem;
use crate::api::views::{Answer, AnswerOrRefused, Answers, Refused, schema};
use crate::command::{Command, Declared};
use crate::drill::shadow::is_shadow;

/// How to roll back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RollbackRequest)]
pub(in crate::api) struct Rollback {
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// Even if the target has no healthy endpoint, or cannot live with the database.
    force: bool,
    /// End open streams of the losing backends now.
    cut: bool,
}

/// How to block a version.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = BlockRequest)]
pub(in crate::api) struct Block {
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// Even if stable has no healthy endpoint.
    force: bool,
}

/// The whole split of a service.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WeightsRequest)]
pub(in crate::api) struct Weights {
    /// The weight of every backend; not all are 0.
    #[schema(value_type = schema::Weights)]
    weights: IndexMap<Name, u32>,
    /// They end after this time, unless they are set again.
    #[schema(value_type = Option<schema::TimeSpan>)]
    lease: Option<TimeSpan>,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// The backend that becomes stable.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SwitchRequest)]
pub(in crate::api) struct SwitchTo {
    /// The new stable.
    #[schema(example = "green")]
    to: Name,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// Even if it is not known to be healthy.
    #[serde(default)]
    force: bool,
}

/// What is deployed on a backend.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BackendRequest)]
pub(in crate::api) struct SetBackend {
    /// Label of what is deployed: digest, tag, build number.
    #[schema(min_length = 1, max_length = 128, example = "43")]
    version: String,
    /// Its addresses.
    #[schema(value_type = Vec<schema::Endpoint>)]
    endpoints: Vec<Endpoint>,
    /// Which versions of the database schema it can live with. If it is not said: what was said of the same
    /// version before.
    #[schema(value_type = Option<schema::SchemaSupport>)]
    schema: Option<SchemaSupport>,
    /// What its release does to the database.
    #[schema(value_type = Option<schema::Migration>)]
    migration: Option<Migration>,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// Even if the backend has weight.
    #[serde(default)]
    force: bool,
}

/// Sets all weights of a service. Roles stay as they are.
#[utoipa::path(put, path = "/v1/services/{service}/weights", operation_id = "weights", tag = "traffic",
    params(InService, Options, IfMatch), request_body = Weights, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn weights(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, Weights>,
) -> Result<Response, Problem> {
    let Weights {
        weights,
        lease,
        reason,
    } = wanted;
    let command = Command::SetWeights {
        service,
        weights,
        lease,
    };
    carry_out(&api, &write, command, reason).await
}

/// Makes another backend stable at once, with all the traffic. The old stable stays warm as the target of
/// a rollback.
#[utoipa::path(post, path = "/v1/services/{service}/switch", operation_id = "switch", tag = "traffic",
    params(InService, Options, IfMatch), request_body = SwitchTo, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn switch(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayOperate, SwitchTo>,
) -> Result<Response, Problem> {
    let SwitchTo { to, reason, force } = wanted;
    let command = Command::Switch { service, to, force };
    gated::carry_out(&api, write, command, reason).await
}

/// The red button: takes all traffic from canaries, or goes back to the previous stable. Never waits,
/// and a second time changes nothing.
#[utoipa::path(post, path = "/v1/services/{service}/rollback", operation_id = "rollback", tag = "traffic",
    params(InService, Options), request_body = Option<Rollback>, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn rollback(
    State(api): State<Api>,
    Named(service): Named<Name>,
    Order { write, wanted, .. }: Order<MayRollBack, Rollback>,
) -> Result<Response, Problem> {
    let Rollback { reason, force, cut } = wanted;
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

/// The red button for all services at once: what can be rolled back is, each with its own result.
#[utoipa::path(post, path = "/v1/rollback", operation_id = "rollback_all", tag = "traffic",
    params(Options), request_body = Option<Rollback>, responses((status = 200, body = Answers)))]
pub(in crate::api) async fn rollback_all(
    State(api): State<Api>,
    Order { write, wanted, .. }: Order<MayRollBack, Rollback>,
) -> Result<Response, Problem> {
    let Rollback { reason, force, cut } = wanted;
    // What is wrong with the request is not each service's refusal.
    write.asked(&api, reason.clone())?;
    let published = api.controls.published();
    let names = published.services.keys().filter(|name| !is_shadow(name));
    let names: Vec<Name> = names.cloned().collect();
    let (mut results, mut refused) = (Vec::new(), 0_u32);
    for service in names {
        let command = Command::Rollback {
            service: service.clone(),
            force,
            cut,
        };
        results.push(match ask(&api, &write, command, reason.clone()).await {
            Ok(answer) => AnswerOrRefused::Answer(answer),
            Err(problem) => {
                refused += 1;
                AnswerOrRefused::Refused(Refused {
                    service,
                    changed: false,
                    problem: problem.body(),
                })
            }
        });
    }
    let answers = Answers {
        refused,
        services: results,
    };
    Ok(Json(answers).into_response())
}

/// Takes all traffic from a version and keeps it out.
#[utoipa::path(post, path = "/v1/services/{service}/backends/{backend}/block", operation_id = "block", tag = "traffic",
    params(OfBackend, Options), request_body = Option<Block>, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn block(
    State(api): State<Api>,
    Named((service, backend)): Named<(Name, Name)>,
    Order { write, wanted, .. }: Order<MayRollBack, Block>,
) -> Result<Response, Problem> {
    let Block { reason, force } = wanted;
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

/// Allows a version again. Moves no traffic.
#[utoipa::path(post, path = "/v1/services/{service}/backends/{backend}/unblock", operation_id = "unblock", tag = "traffic",
    params(OfBackend, Options, IfMatch), request_body = Option<Reason>, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn unblock(
    State(api): State<Api>,
    Named((service, backend)): Named<(Name, Name)>,
    Order { write, wanted, .. }: Order<MayOperate, Reason>,
) -> Result<Response, Problem> {
    carry_out(
        &api,
        &write,
        Command::Unblock { service, backend },
        wanted.reason,
    )
    .await
}

/// Registers what is deployed on a backend, for example from a deploy job.
#[utoipa::path(put, path = "/v1/services/{service}/backends/{backend}", operation_id = "backend_set", tag = "traffic",
    params(OfBackend, Options, IfMatch), request_body = SetBackend, responses((status = 200, body = Answer)))]
pub(in crate::api) async fn set_backend(
    State(api): State<Api>,
    Named((service, backend)): Named<(Name, Name)>,
    Order { write, wanted, .. }: Order<MayOperate, SetBackend>,
) -> Result<Response, Problem> {
    let SetBackend {
        version,
        endpoints,
        schema,
        migration,
        reason,
        force,
    } = wanted;
    if version.is_empty() || version.len() > VERSION_BYTES_MAX {
        let detail = format!("version is a label of 1 to {VERSION_BYTES_MAX} characters");
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_version",
            detail,
        ));
    }
    let mut own = api.reloader.bound();
    own.push(api.address);
    crate::own::refuse(&endpoints, &own)?;
    let command = Command::SetBackend {
        service,
        backend,
        version,
        endpoints,
        declared: Declared { schema, migration },
        force,
    };
    carry_out(&api, &write, command, reason).await
}

/// Longest label: image digests have 71 characters.
const VERSION_BYTES_MAX: usize = 128;

//! The endpoints about the instances that share one state: who they are, whether they follow, and taking
//! one out of use.
//!
//! What is done about an instance changes no traffic by itself: a drained one says so at `/readyz`, and
//! whoever sends clients to it stops doing so. It is on record in the audit of the instance that was asked.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switchback_config::model::Name;
use utoipa::{IntoParams, ToSchema};

use super::extract::Named;
use super::problem::Problem;
use super::views::cluster::Cluster;
use super::writes::{Inputs, Reason, Write};
use super::{Api, body};
use crate::auth::Role;
use crate::cluster::{Fleet, Order, Roster};
use crate::command::{Asked, Refusal};
use crate::history::AuditEntry;

/// Which instance it is about.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the router")]
struct OfInstance {
    /// Name of the instance.
    #[param(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", example = "edge-1")]
    instance: String,
}

/// Whether an instance is to get no new clients.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DrainRequest)]
pub(super) struct Drain {
    /// `true`: its `/readyz` says 503 from now on; `false`: it is used again.
    draining: bool,
    /// Why, for the record.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// What was done about an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct InstanceChanged {
    /// The instance.
    instance: Name,
    /// Whether anything is different now.
    changed: bool,
    /// Whether it is to get no new clients.
    draining: bool,
    /// It is forgotten.
    removed: bool,
}

/// The instances that share one state, as this one knows them. 404 `no_cluster`: it is alone.
#[utoipa::path(get, path = "/v1/cluster", operation_id = "cluster", tag = "cluster",
    responses((status = 200, body = Cluster), (status = 404, description = "It does not exist", body = super::problem::ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show(State(api): State<Api>) -> Result<Json<Cluster>, Problem> {
    Ok(Json(Cluster::of(fleet(&api)?)))
}

/// Takes an instance out of use, or back into it: its `/readyz` says 503, and it goes on serving those who
/// come all the same.
#[utoipa::path(put, path = "/v1/cluster/instances/{instance}/drain", operation_id = "cluster_drain", tag = "cluster",
    params(OfInstance), request_body = Drain,
    responses((status = 200, body = InstanceChanged)))]
pub(super) async fn drain(
    State(api): State<Api>,
    Named(instance): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_options(caller, Role::Operator, query, &headers)?;
    let Drain { draining, reason } = body::read(&text)?;
    let asked = write.asked(&api, reason)?;
    let fleet = fleet(&api)?;
    let action = match draining {
        true => "cluster_drain",
        false => "cluster_undrain",
    };
    let done = match may_drain(&fleet.roster(), &instance, draining) {
        Ok(true) => {
            let instance = instance.clone();
            let order = Order::Drain { instance, draining };
            obey(fleet, order).await.map(|()| true)
        }
        otherwise => otherwise,
    };
    note(&api, action, &instance, asked, &done);
    let changed = done?;
    #[rustfmt::skip]
    let view = InstanceChanged { instance, changed, draining, removed: false };
    Ok(Json(view).into_response())
}

/// Forgets an instance that is gone for good: the promise about false rollbacks is no longer shared with it.
/// 409 `instance_alive` while its lease lives; one that comes back is a new one.
#[utoipa::path(delete, path = "/v1/cluster/instances/{instance}", operation_id = "cluster_remove", tag = "cluster",
    params(OfInstance), request_body = Option<Reason>,
    responses((status = 200, body = InstanceChanged)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Named(instance): Named<Name>,
    (Extension(caller), RawQuery(query), headers): Inputs,
    text: Bytes,
) -> Result<Response, Problem> {
    let write = Write::without_options(caller, Role::Operator, query, &headers)?;
    let Reason { reason } = body::read(&text)?;
    let asked = write.asked(&api, reason)?;
    let fleet = fleet(&api)?;
    let done = match may_remove(&fleet.roster(), &instance) {
        Ok(()) => {
            let instance = instance.clone();
            obey(fleet, Order::Remove { instance }).await.map(|()| true)
        }
        Err(problem) => Err(problem),
    };
    note(&api, "cluster_remove", &instance, asked, &done);
    let changed = done?;
    #[rustfmt::skip]
    let view = InstanceChanged { instance, changed, draining: false, removed: true };
    Ok(Json(view).into_response())
}

fn fleet(api: &Api) -> Result<&Fleet, Problem> {
    api.controls.fleet().ok_or_else(|| {
        let detail = "this instance shares its state with nobody; write cluster: into its file";
        Problem::new(StatusCode::NOT_FOUND, "no_cluster", detail)
    })
}

/// Whether there is anything to change about an instance.
fn may_drain(roster: &Roster, instance: &Name, draining: bool) -> Result<bool, Problem> {
    let member = roster.members.get(instance);
    let member = member.ok_or_else(|| unknown(roster, instance))?;
    Ok(*member != draining)
}

fn may_remove(roster: &Roster, instance: &Name) -> Result<(), Problem> {
    if roster.instances.contains_key(instance) {
        let detail = format!(
            "instance {instance:?} is alive and would be back at once; stop it first, and wait until its lease has ended"
        );
        return Err(Problem::new(StatusCode::CONFLICT, "instance_alive", detail));
    }
    let is_known = roster.members.contains_key(instance);
    is_known
        .then_some(())
        .ok_or_else(|| unknown(roster, instance))
}

fn unknown(roster: &Roster, instance: &Name) -> Problem {
    let known: Vec<&str> = roster.members.keys().map(Name::as_str).collect();
    let known = match known[..] {
        [] => "none is known yet".to_owned(),
        _ => format!("there are {}", known.join(", ")),
    };
    let detail = format!("there is no instance {instance:?}; {known}");
    Problem::new(StatusCode::NOT_FOUND, "unknown_instance", detail)
}

async fn obey(fleet: &Fleet, order: Order) -> Result<(), Problem> {
    let done = fleet.order(order).await;
    done.map_err(|reason| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Problem::new(status, Refusal::ClusterAway.code(), reason)
    })
}

/// Puts on record what was asked for, and what became of it.
fn note(api: &Api, action: &str, instance: &Name, asked: Asked, done: &Result<bool, Problem>) {
    let result = match done {
        Ok(true) => "done",
        Ok(false) => "unchanged",
        Err(problem) => problem.code(),
    };
    api.store.audit(AuditEntry {
        at: Timestamp::now(),
        by: asked.by,
        via: asked.via.into(),
        action: action.into(),
        instance: Some(instance.clone()),
        reason: asked.reason,
        result: result.into(),
        ..AuditEntry::default()
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::{Contact, Instance};

    fn roster() -> Roster {
        let instance = Instance {
            serves: None,
            baseline: String::new(),
            release: String::new(),
            admin: String::new(),
            started: Timestamp::UNIX_EPOCH,
            home: String::new(),
        };
        Roster {
            contact: Contact::Joined,
            hears: true,
            instances: BTreeMap::from([("one".into(), instance)]),
            awaited: BTreeMap::new(),
            members: BTreeMap::from([("one".into(), true), ("two".into(), false)]),
            leader: None,
            head: None,
        }
    }

    #[test]
    fn drain_changes_something_only_once() {
        assert_eq!(may_drain(&roster(), &"one".into(), true), Ok(false));
        assert_eq!(may_drain(&roster(), &"one".into(), false), Ok(true));
        assert_eq!(may_drain(&roster(), &"two".into(), true), Ok(true));
    }

    #[test]
    fn instance_that_never_joined_is_unknown_and_the_known_ones_are_named() {
        for problem in [
            may_drain(&roster(), &"three".into(), true).map(drop),
            may_remove(&roster(), &"three".into()),
        ] {
            let problem = problem.unwrap_err();
            assert_eq!(problem.code(), "unknown_instance");
            assert_eq!(problem.in_short().0, StatusCode::NOT_FOUND);
            assert!(problem.in_short().1.ends_with("there are one, two"));
        }
    }

    #[test]
    fn only_an_instance_that_is_gone_is_removed() {
        let alive = may_remove(&roster(), &"one".into()).unwrap_err();
        assert_eq!(alive.code(), "instance_alive");
        assert_eq!(alive.in_short().0, StatusCode::CONFLICT);
        assert_eq!(may_remove(&roster(), &"two".into()), Ok(()));
    }
}

//! What load balancers and supervisors ask: does it live, and may clients be sent here.
//!
//! Anybody may ask, so that nothing is said here that is nobody's business: the reasons are in the log, in
//! `/v1/config` and in `/v1/cluster`.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::api::Api;
use crate::api::views::cluster::{Cluster, Known};
use crate::cluster::Fleet;

/// Whether the process lives.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "process", security(()),
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8")))]
pub(in crate::api) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether clients may be sent here.
///
/// Ready: a configuration is in force, listeners are bound, the process is not ending, and the instance is
/// not taken out of use (`switchback cluster drain`). What backends do is not part of it: a proxy that is
/// taken out because its backends fail fails more. `?verbose` also names what does not work and keeps
/// nobody from being served: a config file that was refused, a state that cannot be written, a cluster that
/// cannot be reached.
#[utoipa::path(get, path = "/readyz", operation_id = "healthcheck", tag = "process", security(()),
    params(("verbose" = Option<String>, Query, description = "One line for each part")),
    responses(
        (status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, body = String, content_type = "text/plain; charset=utf-8", description = "Not ready"),
    ))]
pub(in crate::api) async fn readyz(State(api): State<Api>, RawQuery(query): RawQuery) -> Response {
    let fleet = api.controls.fleet();
    let drained = fleet.is_some_and(Fleet::is_drained);
    let (status, mut text) = answer(api.life.is_ready(), drained);
    let names = query.iter().flat_map(|query| query.split('&'));
    let mut names = names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    if names.any(|name| name == "verbose") {
        let parts = [
            (
                "config",
                api.reloader.last().successful,
                "the last file was refused",
            ),
            (
                "state",
                api.store.trouble().is_none(),
                "it cannot be written",
            ),
        ];
        for (part, works, otherwise) in parts {
            match works {
                true => text.push_str(&format!("{part} ok\n")),
                false => text.push_str(&format!("{part} failed: {otherwise}, see the log\n")),
            }
        }
        let line = fleet.map(|fleet| about(&Cluster::of(fleet)));
        text.push_str(&line.unwrap_or_default());
    }
    (status, text).into_response()
}

/// The same as `/readyz`.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "process", security(()),
    params(("verbose" = Option<String>, Query, description = "One line for each part")),
    responses(
        (status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, body = String, content_type = "text/plain; charset=utf-8", description = "Not ready"),
    ))]
pub(in crate::api) async fn healthz(state: State<Api>, query: RawQuery) -> Response {
    readyz(state, query).await
}

fn answer(ready: bool, drained: bool) -> (StatusCode, String) {
    match (ready, drained) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        (true, true) => {
            let why = "not ready: this instance is drained\n";
            (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        }
        (true, false) => (StatusCode::OK, "ok\n".to_owned()),
    }
}

/// How the instance stands with the others, in a line.
fn about(cluster: &Cluster) -> String {
    let leader = cluster.leader.as_deref().unwrap_or("none");
    let behind = cluster.own().and_then(|own| own.lag).unwrap_or(0);
    match cluster.contact {
        Known::Joined => {
            let alive = cluster.alive().count();
            format!("cluster ok: {alive} instances, leader {leader}, {behind} changes behind\n")
        }
        Known::Away if cluster.is_isolated() => {
            "cluster failed: etcd cannot be reached, isolated: canaries have weight 0 here; see the log\n".into()
        }
        Known::Away => "cluster failed: etcd cannot be reached, see the log\n".into(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::views::cluster::{Away, Member};

    fn cluster(contact: Known, isolated: bool) -> Cluster {
        let member = |name: &str, lag| Member {
            name: name.into(),
            alive: true,
            draining: false,
            revision: Some(4),
            lag: Some(lag),
            baseline: None,
            baseline_differs: None,
            release: None,
            admin: None,
            started: None,
        };
        Cluster {
            name: "shop".into(),
            instance: "one".into(),
            contact,
            away: (contact == Known::Away).then(|| Away {
                since: Timestamp::UNIX_EPOCH,
                reason: "a secret address does not answer".into(),
                isolated,
            }),
            leader: Some("two".into()),
            head: None,
            instances: vec![member("one", 2), member("two", 0)],
        }
    }

    #[test]
    fn drained_instance_is_not_ready_and_says_why() {
        let (status, text) = answer(true, true);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "not ready: this instance is drained\n");
        assert_eq!(answer(true, false).0, StatusCode::OK);
    }

    #[test]
    fn process_that_ends_is_not_ready_whether_it_is_drained_or_not() {
        for drained in [false, true] {
            let (status, text) = answer(false, drained);
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(text, "not ready\n");
        }
    }

    #[test]
    fn line_about_the_cluster_names_the_leader_and_the_lag() {
        let line = about(&cluster(Known::Joined, false));
        assert_eq!(
            line,
            "cluster ok: 2 instances, leader two, 2 changes behind\n"
        );
    }

    #[test]
    fn isolated_instance_says_that_canaries_get_nothing_and_no_reason_to_strangers() {
        let line = about(&cluster(Known::Away, true));
        assert!(line.contains("canaries have weight 0 here"), "{line}");
        assert!(!line.contains("secret"), "{line}");
        let line = about(&cluster(Known::Away, false));
        assert!(line.starts_with("cluster failed"), "{line}");
        assert!(!line.contains("weight 0"), "{line}");
    }
}

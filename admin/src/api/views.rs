//! Services as JSON: the same shape for the API, the command line and the dashboard.

use serde_json::{Map, Value, json};
use switchback_config::model::Name;
use switchback_proxy::health::Probed;
use switchback_proxy::outcome::CLASSES;
use switchback_proxy::snapshot::{Backend, Endpoint};

use crate::builder::find;
use crate::control::{Confirmed, Published, ServiceStatus};
use crate::effective::Effective;
use crate::state::Stage;

/// All services.
pub(crate) fn services(published: &Published) -> Value {
    let services: Vec<Value> = published
        .services
        .keys()
        .filter_map(|name| service(published, name))
        .collect();
    json!({
        "revision": published.state.revision,
        "stable_only": published.state.stable_only,
        "services": services,
    })
}

/// One service; none if it is not configured.
pub(crate) fn service(published: &Published, name: &str) -> Option<Value> {
    let status = published.services.get(name)?;
    let file = published.file(name)?;
    let effective = &status.effective;
    let mut backends = Map::new();
    for backend in effective.backends.keys() {
        backends.insert(
            backend.clone(),
            backend_view(published, name, status, backend),
        );
    }
    let recorded = published.state.services.get(name);
    Some(json!({
        "name": name,
        "revision": published.state.revision,
        "stable": effective.stable,
        "previous": effective.previous,
        "on_trial": effective.trial_at(jiff::Timestamp::now()),
        "weights": effective.weights,
        "backends": backends,
        "blocked_versions": recorded.map(|state| &state.blocked),
        "health": {"panic": panics(published, name)},
        "rollout": rollout(published, name),
        "judge": judges(status),
        "conflicts": effective.conflicts,
        "file": {"stable": file.stable, "weights": file.weights, "backends": file.backends},
        "override": recorded.map(|state| json!({
            "stable": state.stable, "weights": state.weights, "backends": state.backends,
            "lease": state.lease,
        })),
        "effective": {"stable": effective.stable, "weights": effective.weights, "backends": effective.backends},
    }))
}

/// The rollout of a service that is under way, or its last one.
pub(crate) fn rollout(published: &Published, service: &str) -> Option<Value> {
    let recorded = published.state.services.get(service)?;
    let rollout = recorded.rollout.as_ref()?;
    let standing = crate::rollout::standing(published, service, rollout);
    let at = jiff::Timestamp::now();
    let running = rollout.is_running();
    let stage = match rollout.stage {
        Stage::Step(step) => {
            json!({"kind": "step", "number": step + 1, "of": rollout.plan.steps.len()})
        }
        Stage::Bake => json!({"kind": "bake"}),
    };
    Some(json!({
        "service": service,
        "canary": rollout.canary,
        "version": rollout.version,
        "status": rollout.status(),
        "stage": stage,
        "weight": format!("{}", rollout.share(rollout.stage)),
        "requests": standing.requests,
        "waits_for": running.then(|| rollout.waits_for(at, &standing)).flatten(),
        "began": rollout.began,
        "stage_since": rollout.stage_since,
        "expires": running.then(|| rollout.expires()),
        "by": rollout.by,
        "paused": rollout.paused,
        "ended": rollout.ended,
        "plan": rollout.plan,
    }))
}

fn backend_view(
    published: &Published,
    service: &str,
    status: &ServiceStatus,
    name: &Name,
) -> Value {
    let effective = &status.effective;
    let version = effective.version(name);
    let block = published
        .state
        .services
        .get(service)
        .and_then(|state| state.blocked.get(version));
    let live = find(&published.snapshot, service).and_then(|service| {
        service
            .backends
            .iter()
            .find(|backend| *backend.name == **name)
    });
    let mut view = json!({
        "version": version,
        "role": role(effective, name),
        "weight": effective.weight(name),
        "share": effective.share(name),
        "blocked": block,
    });
    if let (Some(live), Value::Object(view)) = (live, &mut view) {
        let endpoints: Vec<Value> = live.endpoints.iter().map(|e| endpoint_view(e)).collect();
        view.insert("health".into(), backend_health(live).into());
        view.insert("endpoints".into(), endpoints.into());
        view.insert("in_flight".into(), live.stats.in_flight().into());
        view.insert("begun".into(), live.stats.begun().into());
        let (requests, failures) = totals(live);
        view.insert("requests".into(), requests.into());
        view.insert("failures".into(), failures.into());
    }
    view
}

/// Ended requests, and those of them that ended in 5xx, connect, timeout or reset.
fn totals(backend: &Backend) -> (u64, u64) {
    let (mut requests, mut failures) = (0, 0);
    for cells in backend.stats.split() {
        for (class, cell) in CLASSES.iter().zip(&cells.classes) {
            requests += cell.get();
            if matches!(*class, "5xx" | "connect" | "timeout" | "reset") {
                failures += cell.get();
            }
        }
    }
    (requests, failures)
}

fn role(effective: &Effective, name: &Name) -> &'static str {
    if *name == effective.stable {
        "stable"
    } else if effective.previous.as_ref() == Some(name) {
        "previous"
    } else {
        "canary"
    }
}

fn endpoint_view(endpoint: &Endpoint) -> Value {
    json!({
        "url": format!("{}://{}", endpoint.scheme.as_str(), endpoint.authority),
        "address": endpoint.address,
        "health": endpoint_health(endpoint),
    })
}

fn endpoint_health(endpoint: &Endpoint) -> &'static str {
    match (endpoint.health.probed(), endpoint.health.is_failing()) {
        (Probed::Down, _) | (_, true) => "unhealthy",
        (Probed::Unknown, false) => "unknown",
        (Probed::Up, false) => "healthy",
    }
}

fn backend_health(backend: &Backend) -> &'static str {
    let any = |health| {
        backend
            .endpoints
            .iter()
            .any(|endpoint| endpoint_health(endpoint) == health)
    };
    match (any("healthy"), any("unknown")) {
        (true, _) => "healthy",
        (false, true) => "unknown",
        (false, false) => "unhealthy",
    }
}

/// Whether probes say that nothing with weight works, and are therefore not believed.
pub(crate) fn panics(published: &Published, service: &str) -> bool {
    let Some(service) = find(&published.snapshot, service) else {
        return false;
    };
    let mut endpoints = (0..service.backends.len())
        .filter(|index| service.is_open(*index))
        .flat_map(|index| &service.backends[index].endpoints)
        .peekable();
    endpoints.peek().is_some() && endpoints.all(|endpoint| endpoint.health.probed() == Probed::Down)
}

fn judges(status: &ServiceStatus) -> Value {
    let mut judges = Map::new();
    for (backend, gauge) in &status.gauges {
        let mut view = json!({"evidence": gauge.evidence()});
        if let (Some(reading), Value::Object(view)) = (gauge.reading(), &mut view)
            && let Ok(Value::Object(reading)) = serde_json::to_value(&*reading)
        {
            view.extend(reading);
        }
        judges.insert(backend.clone(), view);
    }
    judges.into()
}

/// The answer to a write: what is in force, how fast it got there, what each backend has begun.
pub(crate) fn written(service: &str, confirmed: &Confirmed) -> Value {
    let applied = &confirmed.applied;
    let published = &applied.published;
    let Some(status) = published.services.get(service) else {
        return Value::Null;
    };
    let effective = &status.effective;
    let (mut begun, mut in_flight) = (Map::new(), Map::new());
    if let Some(live) = find(&published.snapshot, service) {
        for backend in &live.backends {
            begun.insert(backend.name.to_string(), backend.stats.begun().into());
            in_flight.insert(backend.name.to_string(), backend.stats.in_flight().into());
        }
    }
    json!({
        "service": service,
        "changed": applied.changed,
        "revision": published.state.revision,
        "weights": effective.weights,
        "stable": effective.stable,
        "previous": effective.previous,
        "on_trial": effective.trial_at(jiff::Timestamp::now()).map(|trial| &trial.backend),
        "blocked": effective.blocked,
        "rollout": rollout(published, service),
        "applied_in_us": u64::try_from(confirmed.applied_in.as_micros()).unwrap_or(u64::MAX),
        "begun": begun,
        "in_flight": in_flight,
        "durable": confirmed.durable,
    })
}

/// The answer to a dry run: what would be in force.
pub(crate) fn planned(service: &str, confirmed: &Confirmed) -> Value {
    let applied = &confirmed.applied;
    let Some((decision, published)) = applied.planned.as_deref() else {
        return Value::Null;
    };
    let Some(status) = published.services.get(service) else {
        return Value::Null;
    };
    let before = &status.effective;
    let after = match (
        decision.services.get(service),
        decision.config.services.get(service),
    ) {
        (Some(state), Some(file)) => Effective::new(file, state, decision.stable_only),
        _ => Effective::clone(before),
    };
    let notes: Vec<&str> = decision
        .notes
        .iter()
        .map(|note| note.message.as_str())
        .collect();
    json!({
        "service": service,
        "dry_run": true,
        "changed": applied.changed,
        "revision": published.state.revision,
        "before": {"weights": before.weights, "stable": before.stable, "blocked": before.blocked},
        "weights": after.weights,
        "stable": after.stable,
        "previous": after.previous,
        "on_trial": after.on_trial.as_ref().map(|trial| &trial.backend),
        "blocked": after.blocked,
        "notes": notes,
    })
}

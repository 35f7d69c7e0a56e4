//! What has to hold for a rollback to be possible and to help, one thing after the other.

use switchback_config::defaults::DRILL_GOOD_FOR;
use switchback_config::model::Name;
use switchback_proxy::snapshot;

use super::{Check, Inputs, Ready};
use crate::age;
use crate::builder::find;
use crate::command::Refusal;
use crate::control::Published;
use crate::controller::database::unfit;
use crate::effective::Effective;
use crate::explain::Facts;
use crate::state::{Phase, ServiceState, later};

/// Connections that may be in use when all traffic arrives, of a hundred: the rest is for the rush that
/// comes with it.
const IN_USE_MAX: u64 = 80;

/// Looks at everything; none if the service is not configured.
pub(super) fn ready(published: &Published, service: &Name, inputs: &Inputs) -> Option<Ready> {
    let unrecorded = ServiceState::default();
    let facts = Facts::collect(published, service, &unrecorded, published.clock.now())?;
    let live = find(&published.snapshot, service)?;
    let target = target(facts.effective);
    let mut checks = vec![possible(&facts, target.as_ref())];
    if let Some(target) = &target {
        checks.push(up(live, target));
        checks.push(capacity(&facts, live, target));
        checks.push(window(&facts, target));
        checks.push(schema(&facts, target));
        checks.push(contract(&facts, target));
    }
    checks.push(drill(&facts, inputs));
    checks.push(durable(&facts, inputs));
    checks.extend(retained(&facts, inputs));
    let failed = checks.iter().filter(|check| !check.ok);
    let reasons: Vec<String> = failed.map(|check| check.text.clone()).collect();
    Some(Ready {
        service: service.clone(),
        ready: reasons.is_empty(),
        target,
        reasons,
        checks,
    })
}

fn check(check: &'static str, found: Result<String, String>) -> Check {
    let ok = found.is_ok();
    let text = found.unwrap_or_else(|why| why);
    Check { check, ok, text }
}

/// Who would get the traffic: stable, while a canary has some; else the previous stable.
fn target(effective: &Effective) -> Option<Name> {
    let is_canary = |name: &&Name| {
        **name != effective.stable
            && effective.previous.as_ref() != Some(*name)
            && effective.weight(name) > 0
    };
    if effective.backends.keys().any(|name| is_canary(&name)) {
        return Some(effective.stable.clone());
    }
    let previous = effective.previous.clone()?;
    let is_same = effective.version(&previous) == effective.version(&effective.stable);
    (!is_same && !effective.blocked.contains(&previous)).then_some(previous)
}

/// Whether the button does anything.
fn possible(facts: &Facts<'_>, target: Option<&Name>) -> Check {
    let nothing =
        "there is nothing to go back to: no canary has traffic, and there is no previous version";
    check(
        "target",
        match (&facts.button, target) {
            (Ok(Some(_)), Some(target)) => Ok(format!("a rollback leaves all traffic on {target}")),
            (Err(refusal), Some(_)) => Err(format!("a rollback is refused: {refusal}")),
            _ => Err(nothing.into()),
        },
    )
}

/// By what is known of each endpoint. That a sole one is tried all the same, whatever is known, is no
/// reason to call it one that works.
fn up(live: &snapshot::Service, target: &Name) -> Check {
    check(
        "target_up",
        match working(live, target) {
            0 => Err(format!("{target} has no endpoint that works")),
            _ => Ok(format!("{target} has an endpoint that works")),
        },
    )
}

/// How many endpoints of a backend work, as far as anybody knows.
fn working(live: &snapshot::Service, backend: &str) -> usize {
    let mut backends = live.backends.iter();
    let found = backends.find(|one| *one.name == *backend);
    let endpoints = found.into_iter().flat_map(|one| &one.endpoints);
    endpoints
        .filter(|endpoint| endpoint.health.is_healthy())
        .count()
}

/// Whether the target could serve what everybody serves now.
fn capacity(facts: &Facts<'_>, live: &snapshot::Service, target: &Name) -> Check {
    let there = working(live, target);
    let busiest = live
        .backends
        .iter()
        .filter(|backend| *backend.name != **target && facts.effective.weight(&backend.name) > 0)
        .max_by_key(|backend| working(live, &backend.name));
    let needed = busiest.map_or(0, |backend| working(live, &backend.name));
    let in_flight: u64 = live.backends.iter().map(|b| b.stats.in_flight()).sum();
    let allowed = live.upstream.connections.saturating_mul(IN_USE_MAX) / 100;
    check(
        "capacity",
        match () {
            () if there < needed => Err(format!(
                "{target} has {there} endpoints that work, {} has {needed}: it may not be able to serve everybody",
                busiest.map_or("", |backend| &*backend.name)
            )),
            () if there == 0 => Err(format!(
                "{target} has 0 endpoints that work, like all others"
            )),
            () if in_flight > allowed => Err(format!(
                "{in_flight} requests are in flight, and {target} may have {} connections (upstream_connections)",
                live.upstream.connections
            )),
            () => Ok(format!(
                "{target} has {there} endpoints that work, and room for the {in_flight} requests in flight"
            )),
        },
    )
}

/// Whether the previous stable is still kept for it.
fn window(facts: &Facts<'_>, target: &Name) -> Check {
    let trial = facts.effective.on_trial.as_ref();
    check(
        "window",
        match (*target == facts.effective.stable, trial) {
            (true, _) => Ok("a canary can be rolled back at any time".into()),
            (false, Some(trial)) if facts.at < trial.until => {
                Ok(format!("the window ends {}", facts.ahead(trial.until)))
            }
            (false, Some(trial)) => Err(format!(
                "the window ended {}: nobody has to keep {target} any more",
                facts.ago(trial.until)
            )),
            (false, None) => Err(format!(
                "the window is over: nobody has to keep {target} any more"
            )),
        },
    )
}

fn schema(facts: &Facts<'_>, target: &Name) -> Check {
    let refusal = unfit(&facts.state.database, target, &facts.effective.backends);
    check(
        "schema",
        match (refusal, facts.state.database.version()) {
            (Some(refusal @ Refusal::SchemaIncompatible { .. }), _) => Err(refusal.to_string()),
            (_, None) => Ok("nobody has said which schema the database has".into()),
            (_, Some(version)) => Ok(format!("{target} may live with schema {version}")),
        },
    )
}

fn contract(facts: &Facts<'_>, target: &Name) -> Check {
    let refusal = unfit(&facts.state.database, target, &facts.effective.backends);
    check(
        "contract",
        match refusal {
            Some(refusal @ Refusal::ContractBegun { .. }) => Err(refusal.to_string()),
            _ if facts.state.database.phase() == Some(Phase::Contract) => Ok(format!(
                "the contract has begun, and {target} can live after it"
            )),
            _ => Ok("no contract has begun".into()),
        },
    )
}

fn drill(facts: &Facts<'_>, inputs: &Inputs) -> Check {
    check(
        "drill",
        match inputs.last_drill {
            Some(at) if later(at, DRILL_GOOD_FOR) > facts.at => {
                Ok(format!("the way back was last taken {}", facts.ago(at)))
            }
            Some(at) => Err(format!(
                "the way back was last taken {}, more than {} ago",
                facts.ago(at),
                age::between(at, later(at, DRILL_GOOD_FOR))
            )),
            None => Err("the way back was never gone: neither rehearsed nor needed".into()),
        },
    )
}

fn durable(facts: &Facts<'_>, inputs: &Inputs) -> Check {
    check(
        "durable",
        match (&inputs.trouble, facts.stable_only) {
            (Some(why), _) => Err(format!("the state cannot be written: {why}")),
            (None, true) => Err("the recorded state was lost: switchback acknowledge".into()),
            (None, false) => Ok("the state is on disk".into()),
        },
    )
}

/// Earlier versions that have to stay reachable, where the file asks for it.
fn retained(facts: &Facts<'_>, inputs: &Inputs) -> Vec<Check> {
    let wanted = usize::try_from(facts.file.retain).unwrap_or(usize::MAX);
    let kept = facts.state.retained.iter().take(wanted);
    let mut checks: Vec<Check> = kept
        .map(|kept| {
            let version = &kept.deployed.version;
            let found = match inputs.reached.get(version) {
                Some(Ok(())) => Ok(format!("version {version} can be reached")),
                Some(Err(why)) => Err(format!("version {version} is gone: {why}")),
                None => Err(format!("nobody has looked for version {version} yet")),
            };
            check("retained", found)
        })
        .collect();
    if checks.len() < wanted {
        let known = checks.len();
        let found = format!("{known} of {wanted} earlier versions are known (retain: {wanted})");
        checks.push(check("retained", Err(found)));
    }
    checks
}

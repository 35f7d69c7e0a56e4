//! Writes after which another backend is stable, or an earlier split is back: hooks for `before_switch` are
//! asked first.
//!
//! The request waits for them. What cannot be done anyway is refused before anybody is asked, and what
//! was agreed to is decided anew afterwards, as things are then. A client that closes its connection
//! meanwhile ends the wait, and nothing happens.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::response::Response;
use switchback_config::model::Name;

use super::{Write, carry_out as carry_out_at_once};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::api::views::BeforeSwitch;
use crate::command::{Asked, Command};
use crate::control::Published;
use crate::controller::Decision;
use crate::effective::Effective;
use crate::hooks::gate::{Coming, has_gate};

/// Carries a command out, after hooks were asked if it makes another backend stable.
pub(super) async fn carry_out(
    api: &Api,
    mut write: Write,
    command: Command,
    reason: Option<String>,
) -> Result<Response, Problem> {
    let service = command.service().cloned().unwrap_or_default();
    let asks = has_gate(&api.controls.published(), &service) && !write.options.dry_run;
    if !asks {
        return carry_out_at_once(api, &write, command, reason).await;
    }
    let asked = write.asked(api, reason.clone())?;
    if let Some(to) = next_stable(api, &service, &command, &asked).await? {
        write.before_switch = Some(match command.is_forced() {
            true => BeforeSwitch::Skipped,
            false => {
                api.hooks.pass(&to, &asked).await?;
                BeforeSwitch::Passed
            }
        });
    }
    carry_out_at_once(api, &write, command, reason).await
}

/// Asks the hooks of every service whose stable or split a restore changes. One that does not agree
/// refuses all of it; nothing is written before.
pub(in crate::api) async fn hear_restore(
    api: &Api,
    write: &mut Write,
    command: &Command,
    reason: Option<&String>,
) -> Result<(), Problem> {
    if write.options.dry_run {
        return Ok(());
    }
    let asked = write.asked(api, reason.cloned())?;
    let mut heard = BTreeSet::new();
    loop {
        // What they wait for takes its time, and the plan may be another one afterwards.
        let coming = restored(api, command, &asked).await?;
        let Some(next) = coming.difference(&heard).next().cloned() else {
            return Ok(());
        };
        if command.is_forced() {
            write.before_switch = Some(BeforeSwitch::Skipped);
            return Ok(());
        }
        api.hooks.pass(&next, &asked).await?;
        write.before_switch = Some(BeforeSwitch::Passed);
        heard.insert(next);
    }
}

/// What a restore would do to services whose hooks want to be asked.
async fn restored(
    api: &Api,
    command: &Command,
    asked: &Asked,
) -> Result<BTreeSet<Coming>, Problem> {
    let Some(planned) = plan(api, command, asked).await? else {
        return Ok(BTreeSet::new());
    };
    let (decision, _) = &*planned;
    let now = api.controls.published();
    let services = decision.services.keys();
    let gated = services.filter(|service| has_gate(&now, service));
    let coming = gated.filter_map(|service| {
        let before = &now.services.get(service)?.effective;
        let after = after(decision, service)?;
        if after.stable == before.stable && after.weights == before.weights {
            return None;
        }
        let split = after.weights.iter();
        let split: Vec<String> = split
            .map(|(name, weight)| format!("{name}={weight}"))
            .collect();
        Some(Coming {
            message: format!(
                "an earlier state is about to be restored: stable {}, weights {}",
                after.stable,
                split.join(" ")
            ),
            version: after.version(&after.stable).to_owned(),
            to: after.stable,
            service: service.clone(),
        })
    });
    Ok(coming.collect())
}

/// What would become stable; none if the same backend stays.
async fn next_stable(
    api: &Api,
    service: &Name,
    command: &Command,
    asked: &Asked,
) -> Result<Option<Coming>, Problem> {
    let Some(planned) = plan(api, command, asked).await? else {
        return Ok(None);
    };
    let (decision, published) = &*planned;
    let (Some(before), Some(after)) = (published.services.get(service), after(decision, service))
    else {
        return Ok(None);
    };
    let is_same = after.stable == before.effective.stable;
    let coming = (!is_same).then(|| Coming::switch(published, service, &after.stable));
    Ok(coming.flatten())
}

/// What would follow from a command.
async fn plan(
    api: &Api,
    command: &Command,
    asked: &Asked,
) -> Result<Option<Box<(Decision, Arc<Published>)>>, Problem> {
    let asked = Asked {
        dry_run: true,
        ..asked.clone()
    };
    let confirmed = api.controls.ask(command.clone(), asked).await?;
    Ok(confirmed.applied.planned)
}

fn after(decision: &Decision, service: &str) -> Option<Effective> {
    let state = decision.services.get(service)?;
    let file = decision.config.services.get(service)?;
    Some(Effective::new(file, state, decision.stable_only))
}

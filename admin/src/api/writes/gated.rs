//! Writes after which another backend is stable: hooks for `before_switch` are asked first.
//!
//! The request waits for them. What cannot be done anyway is refused before anybody is asked, and what
//! was agreed to is decided anew afterwards, as things are then. A client that closes its connection
//! meanwhile ends the wait, and nothing happens.

use axum::response::Response;
use switchback_config::model::Name;

use super::{Write, carry_out as carry_out_at_once};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::api::views::BeforeSwitch;
use crate::command::{Asked, Command};
use crate::effective::Effective;
use crate::hooks::gate::has_gate;

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
                api.hooks.pass(&service, &to, &asked).await?;
                BeforeSwitch::Passed
            }
        });
    }
    carry_out_at_once(api, &write, command, reason).await
}

/// The backend that would become stable; none if the same one stays.
async fn next_stable(
    api: &Api,
    service: &Name,
    command: &Command,
    asked: &Asked,
) -> Result<Option<Name>, Problem> {
    let asked = Asked {
        dry_run: true,
        ..asked.clone()
    };
    let confirmed = api.controls.ask(command.clone(), asked).await?;
    let Some((decision, published)) = confirmed.applied.planned.as_deref() else {
        return Ok(None);
    };
    let before = published.services.get(service);
    let (Some(before), Some(state), Some(file)) = (
        before,
        decision.services.get(service),
        decision.config.services.get(service),
    ) else {
        return Ok(None);
    };
    let after = Effective::new(file, state, decision.stable_only);
    Ok((after.stable != before.effective.stable).then_some(after.stable))
}

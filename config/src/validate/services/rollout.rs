//! The plan of rollouts.

use crate::decode::{Context, Spanned};
use crate::defaults;
use crate::diagnostic::Code;
use crate::model::{Bake, Rollout, Step};
use crate::raw;
use crate::units::Percent;

use super::require;

/// Reads the plan.
pub(super) fn rollout(written: Option<&Spanned<raw::Rollout>>, cx: &Context<'_>) -> Rollout {
    let mut rollout = defaults::rollout();
    let Some(written) = written else {
        return rollout;
    };
    let raw = &written.value;
    if let Some(steps) = &raw.steps {
        rollout.steps = steps
            .value
            .iter()
            .map(|written| step(written, cx))
            .collect();
    }
    if let Some(bake) = &raw.bake {
        rollout.bake = bake.value.0.as_ref().map(self::bake);
    }
    if let Some(requests) = &raw.min_requests {
        rollout.min_requests = requests.value;
    }
    if let Some(deadline) = &raw.deadline {
        rollout.deadline = deadline.value;
    }
    for fault in rollout.faults() {
        let step = fault
            .step
            .and_then(|step| raw.steps.as_ref()?.value.get(step));
        // A step without weight was reported already.
        match step {
            Some(step) if step.value.weight.is_none() => {}
            Some(step) => cx.error(Code::OutOfRange, step, fault.reason, fault.repair),
            None => cx.error(Code::OutOfRange, written, fault.reason, fault.repair),
        }
    }
    rollout
}

fn step(written: &Spanned<raw::Step>, cx: &Context<'_>) -> Step {
    let raw = &written.value;
    let weight = require(written, raw.weight.as_ref(), "weight", cx);
    Step {
        weight: weight.map_or(Percent::from_millionths(0), |weight| weight.value),
        span: raw.span.as_ref().map(|span| span.value),
        requests: raw.requests.as_ref().map(|requests| requests.value),
        approve: raw.approve.as_ref().is_some_and(|approve| approve.value),
    }
}

fn bake(raw: &raw::Bake) -> Bake {
    let default = defaults::bake();
    Bake {
        holdback: raw
            .holdback
            .as_ref()
            .map_or(default.holdback, |holdback| holdback.value),
        span: raw.span.as_ref().map_or(default.span, |span| span.value),
    }
}

//! Flagger: a Canary.

use serde_json::{Value, json};
use switchback_config::foreign::Foreign;

use super::{ImportError, Reading, last_key, percent, span};

/// Takes over what has a counterpart.
pub(super) fn read(documents: &[Foreign], reading: &mut Reading) -> Result<(), ImportError> {
    let is_canary = |document: &&Foreign| {
        let kind = document.key("kind").and_then(Foreign::text);
        kind.is_none_or(|kind| kind == "Canary") && document.key("spec").is_some()
    };
    let Some(canary) = documents.iter().find(is_canary) else {
        return Err(ImportError::Nothing("Canary"));
    };
    for key in ["apiVersion", "kind", "metadata"] {
        if let Some(value) = canary.key(key) {
            reading.know(value);
        }
    }
    let name = canary.at(&["metadata", "name"]).and_then(Foreign::text);
    reading.name = name.map(str::to_owned);
    if let Some(deadline) = canary.at(&["spec", "progressDeadlineSeconds"]) {
        match deadline.text().and_then(span) {
            Some(time) => {
                reading.take(deadline, "rollout.deadline");
                reading.set("rollout", "deadline", time.to_string().into());
            }
            None => reading.leave(deadline, "this is no time"),
        }
    }
    let skips = canary.at(&["spec", "skipAnalysis"]);
    if let Some(skips) = skips.filter(|skips| skips.text() == Some("true")) {
        reading.take(skips, "rollback.on_failure: notify");
        reading.set("rollback", "on_failure", "notify".into());
    }
    if let Some(analysis) = canary.at(&["spec", "analysis"]) {
        steps(analysis, reading);
        let metrics = analysis.key("metrics").map(Foreign::items);
        for metric in metrics.unwrap_or_default() {
            self::metric(metric, reading);
        }
    }
    Ok(())
}

/// Shares of the canary, an interval each.
fn steps(analysis: &Foreign, reading: &mut Reading) {
    let interval = analysis.key("interval");
    let Some(time) = interval.and_then(Foreign::text).and_then(span) else {
        return;
    };
    let number = |key: &str| {
        let value = analysis.key(key)?;
        Some((value, value.text()?.parse::<u32>().ok()?))
    };
    let mut weights: Vec<u32> = Vec::new();
    if let Some(listed) = analysis.key("stepWeights") {
        let read = listed
            .items()
            .iter()
            .map(|weight| weight.text()?.parse().ok());
        match read.collect::<Option<Vec<u32>>>() {
            Some(read) => {
                reading.take(listed, "rollout.steps");
                weights = read;
            }
            None => reading.leave(listed, "these are no weights"),
        }
    } else if let Some((step, by)) = number("stepWeight").filter(|(_, by)| *by > 0) {
        let (most, max) =
            number("maxWeight").map_or((None, 100), |(value, max)| (Some(value), max));
        reading.take(step, "rollout.steps");
        if let Some(most) = most {
            reading.take(most, "rollout.steps");
        }
        weights = (1..=100)
            .map(|step| step * by)
            .take_while(|weight| *weight <= max)
            .collect();
    }
    // All of it is the end of the rollout.
    weights.retain(|weight| (1..100).contains(weight));
    for weight in &weights {
        let step = json!({"weight": format!("{weight}%"), "for": time.to_string()});
        reading.push("rollout", "steps", step);
    }
    if let Some(interval) = interval.filter(|_| !weights.is_empty()) {
        reading.take(interval, "rollout.steps[].for");
    }
}

fn metric(metric: &Foreign, reading: &mut Reading) {
    let bound = |key: &str| {
        let value = metric.at(&["thresholdRange", key])?;
        Some((value, value.text()?.parse::<f64>().ok()?))
    };
    let name = metric.key("name");
    match name.and_then(Foreign::text) {
        Some("request-success-rate") => {
            match bound("min").map(|(at, min)| (at, percent(100.0 - min))) {
                Some((at, Some(share))) => {
                    reading.take(
                    at,
                    "rollback.max_extra_errors: how much more than stable fails, not how much fails",
                );
                    know_name(metric, reading);
                    reading.set("rollback", "max_extra_errors", share.into());
                }
                _ => reading.leave(metric, "it has no thresholdRange.min from 0 to 100"),
            }
        }
        Some("request-duration") => match bound("max") {
            Some((at, max)) if max >= 1.0 => {
                // Flagger's built-in metric is the 99th percentile, in milliseconds.
                reading.take(at, "rollback.slow, and max_extra_slow: 1% beyond it");
                know_name(metric, reading);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "bounded below by 1, and above by the check of the section"
                )]
                let millis = max.round().min(1e9) as u64;
                reading.set("rollback", "slow", format!("{millis}ms").into());
                reading.set("rollback", "max_extra_slow", Value::from("1%"));
            }
            _ => reading.leave(metric, "it has no thresholdRange.max in milliseconds"),
        },
        _ => reading.leave(
            metric,
            "a metric of your own: write it as a rule with prometheus:, query: and threshold:",
        ),
    }
}

/// The name of a metric says which one it is, and is in what became of it.
fn know_name(metric: &Foreign, reading: &mut Reading) {
    for key in ["name"] {
        if let Some(value) = metric.key(key) {
            reading.know(value);
        }
    }
}

/// Why a key has no counterpart.
pub(super) fn reason(path: &str) -> &'static str {
    match last_key(path) {
        "threshold" => "the judge needs no number of failed checks: it decides by odds",
        "interval" => "every request is looked at when it ends",
        "targetRef" | "autoscalerRef" | "ingressRef" | "routeRef" | "gatewayRef"
        | "upstreamRef" => {
            "pods and their routes stay with Kubernetes; what runs is told by backend set and deploy"
        }
        "service" | "provider" | "metricsServer" => "requests are split and measured here",
        "webhooks" => "hooks of a service; before_switch may refuse",
        "alerts" => "hooks of a service tell whom you like",
        "iterations" => "bake is the last stretch with a control group",
        "match" | "sessionAffinity" => "a route with headers, affinity, or preview",
        "mirror" | "mirrorWeight" => "mirror of a service names the backend that gets the copies",
        "stepWeightPromotion"
        | "primaryReadyThreshold"
        | "canaryReadyThreshold"
        | "revertOnDeletion"
        | "suspend" => "promotion is one step here",
        _ => "there is nothing like it here",
    }
}

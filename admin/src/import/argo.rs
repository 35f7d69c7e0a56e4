//! Argo Rollouts: a Rollout, or a fragment of one, and the `AnalysisTemplate`s beside it.

use serde_json::{Map, Value, json};
use switchback_config::defaults::{SIGNAL_EVERY, SIGNAL_EVERY_MIN, STEP_REQUESTS_MIN};
use switchback_config::foreign::Foreign;
use switchback_config::units::TimeSpan;

use super::{ImportError, Reading, last_key, percent_of_one, section, span};

/// Takes over what has a counterpart.
pub(super) fn read(documents: &[Foreign], reading: &mut Reading) -> Result<(), ImportError> {
    let kind = |document: &Foreign| {
        let kind = document.key("kind").and_then(Foreign::text);
        kind.unwrap_or("Rollout").to_owned()
    };
    let is_template = |kind: &str| matches!(kind, "AnalysisTemplate" | "ClusterAnalysisTemplate");
    let mut rollouts = documents.iter().filter(|document| {
        kind(document) == "Rollout" && document.at(&["spec", "strategy"]).is_some()
    });
    let templates: Vec<&Foreign> = documents
        .iter()
        .filter(|document| is_template(&kind(document)))
        .collect();
    let rollout = rollouts.next();
    if rollout.is_none() && templates.is_empty() {
        return Err(ImportError::Nothing("Rollout or AnalysisTemplate"));
    }
    for document in rollout.iter().chain(&templates) {
        for key in ["apiVersion", "kind", "metadata"] {
            if let Some(value) = document.key(key) {
                reading.know(value);
            }
        }
    }
    let named = rollout.or(templates.first().copied());
    let name = named.and_then(|document| document.at(&["metadata", "name"]));
    reading.name = name.and_then(Foreign::text).map(str::to_owned);
    let mut arguments = Map::new();
    if let Some(rollout) = rollout {
        strategy(rollout, &templates, &mut arguments, reading);
    }
    for template in templates {
        metrics(template, &arguments, reading);
    }
    Ok(())
}

fn strategy(
    rollout: &Foreign,
    templates: &[&Foreign],
    arguments: &mut Map<String, Value>,
    reading: &mut Reading,
) {
    if let Some(deadline) = rollout.at(&["spec", "progressDeadlineSeconds"]) {
        take_time(reading, deadline, ("rollout", "deadline"));
    }
    if let Some(canary) = rollout.at(&["spec", "strategy", "canary"]) {
        if let Some(written) = canary.key("steps") {
            steps(written.items(), reading);
        }
        if let Some(delay) = canary.key("abortScaleDownDelaySeconds") {
            take_time(reading, delay, ("drain", "safe_to_stop_after"));
        }
        if let Some(analysis) = canary.key("analysis") {
            self::analysis(analysis, templates, arguments, reading);
        }
    }
    if let Some(blue_green) = rollout.at(&["spec", "strategy", "blueGreen"]) {
        for key in ["scaleDownDelaySeconds", "abortScaleDownDelaySeconds"] {
            if let Some(delay) = blue_green.key(key) {
                take_time(reading, delay, ("drain", "safe_to_stop_after"));
            }
        }
        if let Some(analysis) = blue_green.key("postPromotionAnalysis") {
            self::analysis(analysis, templates, arguments, reading);
        }
    }
}

fn take_time(reading: &mut Reading, value: &Foreign, (part, key): (&str, &str)) {
    match value.text().and_then(span) {
        Some(time) => {
            reading.take(value, format!("{part}.{key}"));
            reading.set(part, key, time.to_string().into());
        }
        None => reading.leave(value, "this is no time"),
    }
}

/// A share of the canary, and what it waits for.
struct Step {
    weight: u32,
    span: Option<TimeSpan>,
    approve: bool,
}

fn steps(items: &[Foreign], reading: &mut Reading) {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_whole = false;
    for item in items {
        if let Some(weight) = item.key("setWeight") {
            match weight.text().and_then(|weight| weight.parse().ok()) {
                Some(100) => {
                    is_whole = true;
                    reading.take(item, "the end of the rollout: the canary becomes stable");
                }
                Some(weight @ 1..100) => {
                    reading.take(item, format!("rollout.steps[{}]", steps.len()));
                    steps.push(Step {
                        weight,
                        span: None,
                        approve: false,
                    });
                }
                _ => reading.leave(item, "a step gives the canary 1 to 99 of 100"),
            }
        } else if let Some(pause) = item.key("pause") {
            let index = steps.len().saturating_sub(1);
            let Some(step) = steps.last_mut().filter(|_| !is_whole) else {
                reading.leave(item, "it is before any step, or after the last");
                continue;
            };
            let duration = pause.key("duration");
            match duration.map(|duration| duration.text().and_then(span)) {
                None => {
                    step.approve = true;
                    reading.take(item, format!("rollout.steps[{index}].approve"));
                }
                Some(Some(more)) => {
                    let before = step.span.map_or_else(Default::default, |span| span.0);
                    step.span = Some(TimeSpan(before + more.0));
                    reading.take(item, format!("rollout.steps[{index}].for"));
                }
                Some(None) => reading.leave(item, "its duration is no time"),
            }
        }
    }
    for step in steps {
        let mut written = json!({"weight": format!("{}%", step.weight)});
        match step.span.filter(|span| !span.0.is_zero()) {
            Some(span) => written["for"] = span.to_string().into(),
            // Something has to end it.
            None if !step.approve => written["requests"] = STEP_REQUESTS_MIN.into(),
            None => {}
        }
        if step.approve {
            written["approve"] = true.into();
        }
        reading.push("rollout", "steps", written);
    }
}

/// Which templates are used, and what they are told.
fn analysis(
    analysis: &Foreign,
    templates: &[&Foreign],
    arguments: &mut Map<String, Value>,
    reading: &mut Reading,
) {
    let listed = analysis.key("args").map(Foreign::items).unwrap_or_default();
    for argument in listed {
        let (name, value) = (argument.key("name"), argument.key("value"));
        if let (Some(name), Some(value)) =
            (name.and_then(Foreign::text), value.and_then(Foreign::text))
        {
            arguments.insert(name.into(), value.into());
        }
    }
    let used = analysis
        .key("templates")
        .map(Foreign::items)
        .unwrap_or_default();
    for used in used {
        let Some(name) = used.key("templateName").and_then(Foreign::text) else {
            continue;
        };
        let is_here = templates.iter().any(|template| {
            template.at(&["metadata", "name"]).and_then(Foreign::text) == Some(name)
        });
        match is_here {
            true => reading.take(used, "rollback.rules, from the template"),
            false => threshold(used, name, listed, reading),
        }
    }
    if reading.section.contains_key("rollback") || !templates.is_empty() {
        for argument in listed
            .iter()
            .filter(|argument| is_used(argument, templates))
        {
            reading.take(argument, "rollback.rules, where it was filled in");
        }
    }
}

/// Whether a template of the file asks for an argument.
fn is_used(argument: &Foreign, templates: &[&Foreign]) -> bool {
    let name = argument.key("name").and_then(Foreign::text);
    templates.iter().any(|template| {
        let asked = template.at(&["spec", "args"]).map(Foreign::items);
        let asked = asked.unwrap_or_default().iter();
        asked
            .filter_map(|asked| asked.key("name"))
            .any(|asked| asked.text() == name)
    })
}

/// Of a template that is elsewhere, only the threshold is known: the share of requests that may fail.
fn threshold(used: &Foreign, name: &str, arguments: &[Foreign], reading: &mut Reading) {
    let threshold = arguments
        .iter()
        .find(|argument| argument.key("name").and_then(Foreign::text) == Some("threshold"));
    let share = threshold.and_then(|argument| argument.key("value"));
    let share = share.and_then(Foreign::text).and_then(percent_of_one);
    match (threshold, share) {
        (Some(threshold), Some(share)) if name.contains("error") => {
            reading.take(
                used,
                "rollback: the judge looks at every request, not at a query now and then",
            );
            reading.take(
                threshold,
                "rollback.max_extra_errors: how much more than stable fails, not how much fails",
            );
            reading.set("rollback", "max_extra_errors", share.into());
        }
        _ => reading.leave(
            used,
            "the template is not in this file: add it, and its metrics become rules",
        ),
    }
}

fn metrics(template: &Foreign, arguments: &Map<String, Value>, reading: &mut Reading) {
    let mut filled = Map::new();
    let asked = template
        .at(&["spec", "args"])
        .map(Foreign::items)
        .unwrap_or_default();
    for argument in asked {
        let Some(name) = argument.key("name").and_then(Foreign::text) else {
            continue;
        };
        let value = argument
            .key("value")
            .and_then(Foreign::text)
            .map(Value::from);
        if let Some(value) = arguments.get(name).cloned().or(value) {
            filled.insert(name.into(), value);
            reading.take(argument, "rollback.rules, where it is filled in");
        }
    }
    let metrics = template.at(&["spec", "metrics"]).map(Foreign::items);
    for metric in metrics.unwrap_or_default() {
        match rule(metric, &filled) {
            Ok(rule) => {
                let became = format!("rollback.rules: {}", rule["name"]);
                for key in [
                    "name",
                    "interval",
                    "successCondition",
                    "failureCondition",
                    "failureLimit",
                ] {
                    if let Some(value) = metric.key(key) {
                        reading.take(value, became.clone());
                    }
                }
                for key in ["address", "query"] {
                    if let Some(value) = metric.at(&["provider", "prometheus", key]) {
                        reading.take(value, became.clone());
                    }
                }
                reading.push("rollback", "rules", rule);
            }
            Err(reason) => reading.leave(metric, reason),
        }
    }
}

/// A metric as a rule of its own.
fn rule(metric: &Foreign, arguments: &Map<String, Value>) -> Result<Value, String> {
    let name = metric
        .key("name")
        .and_then(Foreign::text)
        .unwrap_or("metric");
    let text = |keys: &[&str]| metric.at(keys).and_then(Foreign::text);
    let (Some(address), Some(query)) = (
        text(&["provider", "prometheus", "address"]),
        text(&["provider", "prometheus", "query"]),
    ) else {
        return Err("only prometheus is asked; a rule with http: goes by a status".into());
    };
    let (query, address) = (fill(query, arguments)?, fill(address, arguments)?);
    let threshold = match (text(&["failureCondition"]), text(&["successCondition"])) {
        (Some(bad), _) => condition(&fill(bad, arguments)?, false),
        (None, Some(good)) => condition(&fill(good, arguments)?, true),
        (None, None) => return Err("it has no condition: nothing would be bad".into()),
    };
    let threshold = threshold.ok_or(
        "its condition is not result[0], a comparison and a number: write the rule by hand",
    )?;
    let every = match text(&["interval"]) {
        Some(interval) => span(interval).ok_or("its interval is no time")?,
        None => TimeSpan(SIGNAL_EVERY),
    };
    let every = every.max(TimeSpan(SIGNAL_EVERY_MIN));
    let failures = text(&["failureLimit"]).and_then(|limit| limit.parse::<u32>().ok());
    // One failure more than the limit, and a single one at least.
    let bad_for = TimeSpan(every.0 * failures.unwrap_or(0).saturating_add(1));
    let rule = json!({
        "name": name,
        "prometheus": address,
        "query": query,
        "threshold": threshold,
        "for": bad_for.to_string(),
        "every": every.to_string(),
    });
    let alone = json!({"rollback": {"rules": [rule.clone()]}});
    match alone.as_object().and_then(section::fault) {
        None => Ok(rule),
        Some(fault) => Err(format!("{}; {}", fault.reason, fault.repair)),
    }
}

/// Puts arguments where they are asked for.
fn fill(text: &str, arguments: &Map<String, Value>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (asked, behind) = after.split_once("}}").ok_or("{{ has no }}")?;
        let name = asked.trim();
        let value = name
            .strip_prefix("args.")
            .and_then(|name| arguments.get(name));
        let value = value.and_then(Value::as_str);
        let value = value.ok_or_else(|| format!("nobody says what {{{{{name}}}}} is"))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// `result[0] <= 0.05` as the threshold beyond which it is bad.
fn condition(text: &str, is_good: bool) -> Option<String> {
    let result = text.trim().strip_prefix("result")?;
    let result = result.strip_prefix("[0]").unwrap_or(result).trim_start();
    let signs = [(">=", "<"), ("<=", ">"), (">", "<="), ("<", ">=")];
    let (sign, opposite) = signs
        .into_iter()
        .find(|(sign, _)| result.starts_with(sign))?;
    let number: f64 = result[sign.len()..].trim().parse().ok()?;
    Some(format!(
        "{} {number}",
        if is_good { opposite } else { sign }
    ))
}

/// Why a key has no counterpart.
pub(super) fn reason(path: &str) -> &'static str {
    match last_key(path) {
        "trafficRouting" | "canaryService" | "stableService" | "activeService"
        | "previewService" => "requests are split here: backends of the service, and preview",
        "maxSurge"
        | "maxUnavailable"
        | "replicas"
        | "template"
        | "selector"
        | "workloadRef"
        | "minReadySeconds"
        | "revisionHistoryLimit"
        | "strategy" => "pods stay with Kubernetes; what runs is told by backend set and deploy",
        "setCanaryScale"
        | "scaleDownDelayRevisionLimit"
        | "previewReplicaCount"
        | "dynamicStableScale" => "switchback scales nothing; safe_to_stop tells when one may",
        "setHeaderRoute" => "a route with headers leads to a service of its own",
        "setMirrorRoute" => "mirror of a service: it has no steps",
        "experiment" => "mirror tries a version before any user meets it",
        "antiAffinity" => "where pods run is not known here",
        "autoPromotionEnabled" | "autoPromotionSeconds" => {
            "switch is a command of its own; a rollout has approve"
        }
        "prePromotionAnalysis" => "hooks on before_switch are asked before a switch",
        "startingStep" => "rules hold from the first request on",
        "dryRun" | "measurementRetention" => "on_failure: notify only tells",
        "count"
        | "initialDelay"
        | "consecutiveErrorLimit"
        | "inconclusiveLimit"
        | "consecutiveSuccessLimit" => {
            "a rule is looked at as long as the version is watched; missing data holds, and rolls nothing back"
        }
        "paused" => "a rollout is started by switchback rollout start",
        _ => "there is nothing like it here",
    }
}

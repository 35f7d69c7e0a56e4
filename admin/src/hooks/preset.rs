//! The bodies that receivers understand: CloudEvents, Slack, Alertmanager.

use std::time::Duration;

use http::Uri;
use jiff::Timestamp;
use serde_json::{Value, json};
use switchback_config::model::{HookEvent, Preset};

use super::delivery::{CloudEvent, Happening};
use crate::state::later;

/// A trouble that nobody resolves fires for so long.
const TROUBLE_TIME: Duration = Duration::from_secs(4 * 3600);

/// News fire for so long: long enough for Alertmanager to group and send them.
const NEWS_TIME: Duration = Duration::from_secs(300);

/// Content type and body of a message.
pub(super) fn body(preset: Preset, event: &CloudEvent) -> (&'static str, Value) {
    match preset {
        Preset::Cloudevents => ("application/cloudevents+json", json!(event)),
        Preset::Slack => ("application/json", slack(&event.data)),
        Preset::Alertmanager => ("application/json", alerts(event)),
    }
}

/// The path of a URL. Alertmanager's may be left out.
pub(super) fn path(preset: Preset, url: &Uri) -> String {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    match preset {
        Preset::Alertmanager if path == "/" => "/api/v2/alerts".into(),
        Preset::Cloudevents | Preset::Slack | Preset::Alertmanager => path.into(),
    }
}

/// A message, with its text once more for notifications.
fn slack(data: &Happening) -> Value {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let sign = match trouble(data.event) {
        Some(_) => ":rotating_light:",
        None if is_relief(data.event) => ":white_check_mark:",
        None => ":information_source:",
    };
    let title = format!("{sign} *{}* {}", escape(&data.service), data.event.word());
    let text = format!("{title}: {}", escape(&data.message));
    let split: Vec<String> = data
        .weights
        .iter()
        .map(|(name, weight)| format!("{name}={weight}"))
        .collect();
    let mut context = format!("by {} | {}", escape(&data.by), split.join(" "));
    if let Some(revision) = data.revision {
        context = format!("{context} | revision {revision}");
    }
    json!({
        "text": text,
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": text}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": context}]},
        ],
    })
}

/// The alert that an event stands for, if it is one that somebody has to do something about.
const fn trouble(event: HookEvent) -> Option<(&'static str, &'static str)> {
    Some(match event {
        HookEvent::Rollback => ("SwitchbackRolledBack", "warning"),
        HookEvent::RollbackHeld => ("SwitchbackRollbackHeld", "critical"),
        HookEvent::RollbackDidNotHelp => ("SwitchbackRollbackDidNotHelp", "critical"),
        HookEvent::StableFailing => ("SwitchbackStableFailing", "critical"),
        HookEvent::RuleFired => ("SwitchbackRuleFired", "warning"),
        HookEvent::JudgeHold => ("SwitchbackJudgeHold", "warning"),
        HookEvent::JudgeNotify => ("SwitchbackJudgeNotify", "warning"),
        HookEvent::BeforeSwitchFailed => ("SwitchbackBeforeSwitchFailed", "warning"),
        HookEvent::Conflict => ("SwitchbackConflict", "warning"),
        _ => return None,
    })
}

/// Events after which earlier troubles of the service are over.
const fn is_relief(event: HookEvent) -> bool {
    matches!(
        event,
        HookEvent::Recovered | HookEvent::Promote | HookEvent::Switch
    )
}

/// Alerts as `POST /api/v2/alerts` takes them. Alerts of one name and service are one: a relief
/// resolves it without knowing which backend it was about.
fn alerts(event: &CloudEvent) -> Value {
    let data = &event.data;
    if is_relief(data.event) {
        let troubles = HookEvent::ALL.iter().filter_map(|event| trouble(*event));
        let resolved = troubles.map(|names| alert(event, names, event.time));
        return resolved.collect();
    }
    let (names, time) = match trouble(data.event) {
        Some(names) => (names, TROUBLE_TIME),
        None => (("SwitchbackNews", "info"), NEWS_TIME),
    };
    let alert = alert(event, names, later(event.time, time));
    json!([alert])
}

fn alert(event: &CloudEvent, (name, severity): (&str, &str), ends: Timestamp) -> Value {
    let data = &event.data;
    let mut labels = json!({"alertname": name, "service": data.service, "severity": severity});
    if severity == "info" {
        labels["event"] = data.event.word().into();
    }
    let mut annotations = json!({
        "summary": format!("{}: {}", data.service, data.event.word()),
        "description": data.message,
        "by": data.by,
    });
    for (key, value) in [("backend", &data.backend), ("version", &data.version)] {
        if let Some(value) = value {
            annotations[key] = value.as_str().into();
        }
    }
    json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": event.time,
        "endsAt": ends,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: HookEvent) -> CloudEvent {
        let data = Happening {
            service: "shop".into(),
            event,
            kind: event.kind().into(),
            message: "green rolled back to blue: 5 of 10 <failed> & more".into(),
            backend: Some("green".into()),
            version: Some("2".into()),
            revision: Some(7),
            by: "judge".into(),
            reason: None,
            cause: Some("judge".into()),
            weights: [("blue".to_owned(), 100), ("green".to_owned(), 0)].into(),
            stable: "blue".into(),
        };
        CloudEvent::new(Timestamp::UNIX_EPOCH, data)
    }

    #[test]
    fn slack_text_says_everything_and_is_escaped() {
        let (content_type, body) = body(Preset::Slack, &event(HookEvent::Rollback));
        assert_eq!(content_type, "application/json");
        let text = body["text"].as_str().expect("a text");
        assert!(text.contains("*shop* rollback"), "{text}");
        assert!(text.contains("5 of 10 &lt;failed&gt; &amp; more"), "{text}");
        assert_eq!(body["blocks"][0]["text"]["type"], "mrkdwn");
        let context = &body["blocks"][1]["elements"][0]["text"];
        assert_eq!(context, "by judge | blue=100 green=0 | revision 7");
    }

    #[test]
    fn relief_resolves_every_alert_that_a_trouble_fires() {
        let (_, relief) = body(Preset::Alertmanager, &event(HookEvent::Recovered));
        let resolved = relief.as_array().expect("alerts");
        for trouble in HookEvent::ALL
            .iter()
            .filter(|event| trouble(**event).is_some())
        {
            let (_, firing) = body(Preset::Alertmanager, &event(*trouble));
            let labels = &firing[0]["labels"];
            assert!(firing[0]["endsAt"].as_str() > firing[0]["startsAt"].as_str());
            let same = resolved.iter().find(|alert| alert["labels"] == *labels);
            let same = same.expect("an alert with the same labels");
            assert_eq!(same["endsAt"], same["startsAt"]);
        }
    }

    #[test]
    fn path_of_alertmanager_may_be_left_out() {
        let url = |text: &str| text.parse::<Uri>().expect("a URL");
        let alertmanager = |text| path(Preset::Alertmanager, &url(text));
        assert_eq!(alertmanager("http://127.0.0.1:9093"), "/api/v2/alerts");
        assert_eq!(
            alertmanager("http://a/prefix/api/v2/alerts"),
            "/prefix/api/v2/alerts"
        );
        assert_eq!(path(Preset::Slack, &url("http://a/x?y=1")), "/x?y=1");
    }
}

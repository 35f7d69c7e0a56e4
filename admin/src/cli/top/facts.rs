//! What the API says of a service, in the words of one who is on call: what is wrong, and how badly.
//!
//! Pure, and without any notion of a screen.

use serde_json::Value;

use crate::cli::rollout::stage;

/// From here on evidence is worth a look: half of the way to a rollback.
const EVIDENCE_WORTH_A_LOOK: f64 = 0.5;

/// How badly somebody is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// All is well.
    Well,
    /// Something is under way.
    Note,
    /// Somebody should have a look.
    Attention,
    /// Users may be hurt now.
    Alarm,
}

impl Level {
    /// What stands before the words, so that they need no colour.
    pub(super) const fn mark(self) -> &'static str {
        match self {
            Self::Well | Self::Note => "",
            Self::Attention => "! ",
            Self::Alarm => "!! ",
        }
    }
}

/// A word of an answer; nothing for anything else.
pub(super) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The backends of a service, with their names.
pub(super) fn backends(service: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let backends = service["backends"].as_object().into_iter().flatten();
    backends.map(|(name, view)| (name.as_str(), view))
}

/// The members of a list; none if it is none.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Endpoints of a backend that work, and all of them.
pub(super) fn healthy(backend: &Value) -> (usize, usize) {
    let endpoints = list(&backend["endpoints"]);
    let healthy = endpoints.iter();
    let healthy = healthy.filter(|endpoint| endpoint["health"] == "healthy");
    (healthy.count(), endpoints.len())
}

/// The evidence against a backend that has weight.
pub(super) fn evidence(service: &Value, backend: &str) -> Option<f64> {
    let evidence = service["judge"][backend]["evidence"].as_f64()?;
    (service["backends"][backend]["weight"] != 0).then_some(evidence)
}

/// The evidence of the judge that is closest to a rollback.
pub(super) fn nearest_evidence(service: &Value) -> Option<f64> {
    let all = backends(service).filter_map(|(name, _)| evidence(service, name));
    all.reduce(f64::max)
}

/// What a rollout that is under way says of itself: `running` or `paused`.
pub(super) fn rollout_status(service: &Value) -> Option<&str> {
    let status = service["rollout"]["status"].as_str()?;
    matches!(status, "running" | "paused").then_some(status)
}

/// What is to be said of a service, the worst first; never empty.
pub(super) fn concerns(service: &Value) -> Vec<(Level, String)> {
    let mut found = Vec::new();
    about_backends(service, &mut found);
    if !list(&service["rules_firing"]).is_empty() {
        found.push((Level::Alarm, "rule fires".into()));
    }
    for signal in list(&service["signals"]) {
        let name = word(&signal["name"]);
        match word(&signal["state"]) {
            "firing" => found.push((Level::Alarm, format!("signal {name} fires"))),
            "missing" => found.push((Level::Attention, format!("signal {name} missing"))),
            _ => {}
        }
    }
    about_rollout(service, &mut found);
    let mut conflicts = list(&service["conflicts"]).iter();
    if conflicts.any(|conflict| conflict["kind"] == "refused") {
        found.push((Level::Attention, "file is refused".into()));
    }
    if let Some(trial) = service["on_trial"]["backend"].as_str() {
        found.push((Level::Note, format!("{trial} on trial")));
    }
    if found.is_empty() {
        found.push((Level::Well, "ok".into()));
    }
    // Stable: what comes first among equals stays first.
    found.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    found
}

fn about_backends(service: &Value, found: &mut Vec<(Level, String)>) {
    for (name, backend) in backends(service) {
        let (healthy, all) = healthy(backend);
        let is_down = backend["health"] == "unhealthy";
        let judge = &service["judge"][name];
        let has_weight = backend["weight"] != 0;
        if has_weight && is_down {
            found.push((Level::Alarm, format!("{name} is down")));
        } else if has_weight && healthy < all && backend["health"] == "healthy" {
            found.push((
                Level::Attention,
                format!("{name}: {healthy} of {all} healthy"),
            ));
        }
        if has_weight && judge["verdict"] == "hold" {
            found.push((Level::Attention, format!("{name} held")));
        }
        let evidence = evidence(service, name).unwrap_or(0.0);
        if evidence >= EVIDENCE_WORTH_A_LOOK {
            found.push((Level::Attention, format!("{name} evidence {evidence:.2}")));
        }
        if !backend["blocked"].is_null() {
            found.push((Level::Attention, format!("{name} blocked")));
        }
    }
}

fn about_rollout(service: &Value, found: &mut Vec<(Level, String)>) {
    let rollout = &service["rollout"];
    let waits = word(&rollout["waits_for"]["for"]);
    let concern = match (rollout_status(service), waits) {
        (Some("paused"), _) => (Level::Attention, "rollout paused".into()),
        (Some(_), "approval") => (Level::Attention, "rollout waits for you".into()),
        (Some(_), "hold") => (Level::Attention, "rollout held".into()),
        (Some(_), _) => (Level::Note, stage(rollout)),
        (None, _) => return,
    };
    found.push(concern);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let endpoint = json!({"health": "healthy"});
        let blue = json!({"weight": 95, "health": "healthy", "blocked": null, "endpoints": [endpoint, endpoint]});
        let green =
            json!({"weight": 5, "health": "healthy", "blocked": null, "endpoints": [endpoint]});
        let mut service = json!({
            "name": "shop",
            "backends": {"blue": blue, "green": green},
            "judge": {"green": {"evidence": 0.1, "verdict": "continue"}},
            "rules_firing": [], "signals": [], "conflicts": [], "rollout": null, "on_trial": null,
        });
        change(&mut service);
        let concerns = concerns(&service).into_iter();
        concerns
            .map(|(level, words)| format!("{}{words}", level.mark()))
            .collect()
    }

    #[test]
    fn each_thing_that_somebody_should_know_is_said() {
        let cases: [(&str, Value, &str); 12] = [
            (
                "/backends/green/health",
                json!("unhealthy"),
                "!! green is down",
            ),
            ("/rules_firing", json!([{"rule": "x"}]), "!! rule fires"),
            (
                "/signals",
                json!([{"name": "cpu", "state": "firing"}]),
                "!! signal cpu fires",
            ),
            (
                "/signals",
                json!([{"name": "cpu", "state": "missing"}]),
                "! signal cpu missing",
            ),
            (
                "/backends/blue/endpoints/1/health",
                json!("unhealthy"),
                "! blue: 1 of 2 healthy",
            ),
            ("/judge/green/verdict", json!("hold"), "! green held"),
            ("/judge/green/evidence", json!(0.5), "! green evidence 0.50"),
            (
                "/backends/green/blocked",
                json!({"by": "judge"}),
                "! green blocked",
            ),
            ("/rollout", json!({"status": "paused"}), "! rollout paused"),
            (
                "/rollout",
                json!({"status": "running", "waits_for": {"for": "approval"}}),
                "! rollout waits for you",
            ),
            (
                "/rollout",
                json!({"status": "running", "stage": {"kind": "step", "number": 2, "of": 3}}),
                "step 2 of 3",
            ),
            ("/on_trial", json!({"backend": "blue"}), "blue on trial"),
        ];
        for (place, value, expected) in cases {
            let said = said(|service| *service.pointer_mut(place).expect(place) = value);
            assert_eq!(said, [expected], "{place}");
        }
        assert_eq!(said(|_| ()), ["ok"]);
    }

    #[test]
    fn what_has_no_weight_or_has_ended_is_no_concern() {
        let idle = said(|service| {
            service["backends"]["green"]["weight"] = 0.into();
            service["backends"]["green"]["health"] = "unhealthy".into();
            service["judge"]["green"]["evidence"] = 1.into();
            service["rollout"] = json!({"status": "promoted"});
        });
        assert_eq!(idle, ["ok"]);
        let below = said(|service| service["judge"]["green"]["evidence"] = 0.49.into());
        assert_eq!(below, ["ok"]);
    }

    #[test]
    fn worst_comes_first() {
        let said = said(|service| {
            service["on_trial"] = json!({"backend": "blue"});
            service["rollout"] = json!({"status": "paused"});
            service["backends"]["green"]["health"] = "unhealthy".into();
        });
        assert_eq!(
            said,
            ["!! green is down", "! rollout paused", "blue on trial"]
        );
    }
}

//! Evidence of rollbacks, reports of incidents, and whether a rollback helped.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Behaviour, Http, Load, Mood, Origin, Protocol, Proxy, Receiver, eventually, eventually_async,
};

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    touched: Vec<u8>,
    failed: Vec<u8>,
    rescued: Vec<u8>,
}

impl Seen {
    /// Sends a request of one client and notes which version it met, and how that went. Only GETs are
    /// rescued.
    async fn send(&mut self, client: u8, http: &mut Http, number: usize) {
        let method = if number.is_multiple_of(2) {
            "GET"
        } else {
            "POST"
        };
        let answer = http
            .send(method, "/users/42?secret", &[], b"")
            .await
            .unwrap();
        let rescued = answer.header("x-switchback-rescued") == "1";
        if answer.header("x-switchback-backend") == "green" || rescued {
            self.touched.push(client);
        }
        if rescued {
            assert_eq!(answer.status, 200, "stable answers");
            self.rescued.push(client);
        } else if answer.status != 200 {
            self.failed.push(client);
        }
    }

    /// Requests are counted. Distinct clients are estimated: two of a few may look like one.
    fn require_impact(&self, impact: &Value) {
        for (of, clients) in [
            ("touched", &self.touched),
            ("saw_error", &self.failed),
            ("rescued", &self.rescued),
        ] {
            let distinct: BTreeSet<u8> = clients.iter().copied().collect();
            let estimate = impact[of]["clients"].as_u64().unwrap();
            assert_eq!(impact[of]["requests"], clients.len(), "{of}: {impact}");
            assert!(
                estimate.abs_diff(distinct.len() as u64) <= 2,
                "{of}: {} clients: {impact}",
                distinct.len()
            );
        }
    }
}

async fn clients(proxy: &Proxy) -> Vec<(u8, Http)> {
    let mut clients = Vec::new();
    for client in 1..=20 {
        clients.push((
            client,
            Http::connect_from([127, 0, 1, client], proxy.web).await,
        ));
    }
    clients
}

/// The number of the only rollback, once it is recorded.
async fn recorded(proxy: &Proxy) -> u64 {
    eventually_async("the rollback is recorded", || async {
        proxy.get("/v1/rollbacks").await["rollbacks"][0]["id"].is_u64()
    })
    .await;
    let list = proxy.get("/v1/rollbacks").await;
    assert_eq!(list["rollbacks"].as_array().unwrap().len(), 1, "{list}");
    list["rollbacks"][0]["id"].as_u64().unwrap()
}

async fn record(proxy: &Proxy, id: u64) -> Value {
    proxy.get(&format!("/v1/rollbacks/{id}")).await
}

async fn recovery(proxy: &Proxy, id: u64, state: &str) -> Value {
    eventually_async("the recovery is known", || async {
        record(proxy, id).await["recovery"]["state"] != "pending"
    })
    .await;
    let record = record(proxy, id).await;
    assert_eq!(record["recovery"]["state"], state, "{}", record["recovery"]);
    record
}

fn sum(record: &Value, of: &str) -> u64 {
    let seconds = record["versions"][0]["seconds"].as_array().unwrap();
    seconds
        .iter()
        .map(|second| second[of].as_u64().unwrap())
        .sum()
}

async fn events(proxy: &Proxy) -> String {
    let path = "/v1/events?follow=false";
    proxy.api("GET", path, Value::Null).await.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_of_a_rollback_says_what_clients_saw_and_survives_a_kill() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "expose: true\nrescue: {budget: 100%}\nrollback: {verify: 2s}";
    let mut proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    let mut clients = clients(&proxy).await;
    let mut seen = Seen::default();
    for number in 0..100 {
        let (client, http) = &mut clients[number % 20];
        seen.send(*client, http, number).await;
    }
    green.behave(Behaviour {
        fail_every: Some(3),
        ..Behaviour::default()
    });
    let mut number = 0;
    while proxy.service().await["weights"]["green"] != 0 {
        assert!(number < 10_000, "never rolled back");
        for _ in 0..10 {
            number += 1;
            // Clients take turns at both methods.
            let (client, http) = &mut clients[(number / 2) % 20];
            seen.send(*client, http, number).await;
        }
    }
    let id = recorded(&proxy).await;
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    let found = recovery(&proxy, id, "recovered").await;
    load.stop().await;

    let impact = &found["versions"][0]["impact"];
    seen.require_impact(impact);
    assert!(!seen.failed.is_empty() && !seen.rescued.is_empty());
    assert_eq!(sum(&found, "canary_requests"), seen.touched.len() as u64);
    let failures = seen.failed.len() + seen.rescued.len();
    assert_eq!(sum(&found, "canary_failures"), failures as u64);
    assert!(sum(&found, "stable_requests") > 50);
    let after = found["versions"][0]["seconds"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert!(
        after["second"].as_i64().unwrap() >= 0 && after["stable_requests"] != 0,
        "{after}"
    );

    let samples = found["versions"][0]["samples"].as_array().unwrap();
    assert!(!samples.is_empty() && samples.len() <= 20);
    let known = green.request_ids();
    for sample in samples {
        assert!(
            known.contains(sample["request_id"].as_str().unwrap()),
            "{sample}"
        );
        assert_eq!(sample["outcome"], "500");
        assert_eq!(sample["traceparent"].as_str().unwrap().len(), 55);
        assert!(
            sample["path"].is_null(),
            "paths are recorded only on demand"
        );
    }
    assert_eq!(found["cause"], "judge");
    let block = &proxy.service().await["backends"]["green"]["blocked"];
    assert_eq!(found["sentence"], block["reason"]);
    assert!(
        found["applied_in_us"].is_u64(),
        "{}",
        found["applied_in_us"]
    );
    assert_eq!(found["weights_after"], json!({"blue": 100, "green": 0}));
    let levels = &found["versions"][0]["judges"][0]["path"];
    assert!(!levels.as_array().unwrap().is_empty());
    assert_eq!(found["replayed"], true, "{}", found["replay_problem"]);
    assert!(events(&proxy).await.contains("event: recovered"));

    proxy.crash_and_restart();
    assert_eq!(record(&proxy, id).await, found, "nothing is lost");
    let number = id.to_string();
    let (code, out, err) = proxy.cli(&["incident", &number, "--verify"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("verified"), "{out}");
    let (code, report, err) = proxy.cli(&["incident", &number, "-o", "markdown"]);
    assert_eq!(code, 0, "{err}");
    for part in [
        format!("# Incident {id}: shop, version 2 of green rolled back"),
        format!(
            "| were sent to it | {} | {} |",
            impact["touched"]["requests"], impact["touched"]["clients"]
        ),
        "## Timeline".into(),
        "weights are blue=50 green=50".into(),
        "| Recovery | recovered: after the rollback of green (2), blue failed".into(),
        "comes to the same verdict at the same tick".into(),
        format!("> {}", found["sentence"].as_str().unwrap()),
    ] {
        assert!(report.contains(&part), "{part}: {report}");
    }
    assert!(
        !report.contains("127.0.1.") && !report.contains("/users"),
        "{report}"
    );
    let (code, list, _) = proxy.cli(&["incidents", "shop"]);
    assert!(code == 0 && list.contains("recovered"), "{list}");
    let (code, facts, _) = proxy.cli(&["incident"]);
    assert!(code == 0 && facts.contains("were rescued"), "{facts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_that_does_not_help_is_told_as_such() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let hook = Receiver::start().await;
    let more = format!(
        "rollback: {{verify: 1s, on_failure: notify}}\nrescue: {{enabled: false}}\nhooks: [{{on: [recovered, rollback_did_not_help], http: \"{}\"}}]",
        hook.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &more);
    proxy.weights(50, 50).await;
    for origin in [&blue, &green] {
        origin.behave(Behaviour {
            fail_every: Some(2),
            ..Behaviour::default()
        });
    }
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    eventually_async("traffic flows", || async { load.done() > 200 }).await;
    let body = json!({"reason": "errors"});
    proxy.post("/v1/services/shop/rollback", body).await;
    let id = recorded(&proxy).await;
    let found = recovery(&proxy, id, "did_not_help").await;
    load.stop().await;
    assert_eq!(found["cause"], "operator");
    assert!(
        found["sentence"]
            .as_str()
            .unwrap()
            .ends_with("asked for it: errors"),
        "{found}"
    );
    assert_eq!(found["replayed"], Value::Null, "no judge was involved");
    assert!(found["versions"][0]["judges"][0]["tape"].is_null());
    assert!(sum(&found, "canary_failures") > 0);
    let sentence = found["recovery"]["sentence"].as_str().unwrap();
    assert!(sentence.ends_with("shared cause likely"), "{sentence}");
    let events = events(&proxy).await;
    assert!(events.contains("event: rollback_did_not_help"), "{events}");
    assert!(!events.contains("event: recovered"), "{events}");
    let (_, report, _) = proxy.cli(&["incident", &id.to_string(), "-o", "markdown"]);
    assert!(report.contains("**the rollback did not help**"), "{report}");
    eventually("the hook is told", || !hook.types().is_empty());
    assert_eq!(hook.types(), ["switchback.rollback_did_not_help"]);
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    let counted = "switchback_recoveries_total{service=\"shop\",result=\"did_not_help\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_rule_is_played_again_and_paths_are_templates_where_asked_for() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "rollback: {rules: [\"error_rate > 20% for 1s\"], min_failures: 1000000, sample_paths: true}";
    let mut proxy = Proxy::blue_green(&blue, &green, more);
    green.answer_with(500);
    proxy.weights(50, 50).await;
    let mut http = Http::connect(proxy.web).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while proxy.service().await["weights"]["green"] != 0 {
        ticks.tick().await;
        http.get("/users/42/orders?secret").await;
    }
    let id = recorded(&proxy).await;
    let found = record(&proxy, id).await;
    assert_eq!(found["cause"], "rule");
    assert_eq!(found["replayed"], true, "{}", found["replay_problem"]);
    let rule = &found["versions"][0]["rule"];
    assert_eq!(rule["rule"], "error_rate > 20% for 1s");
    assert!(rule["tape"]["concluded_us"].is_u64(), "{rule}");
    let sample = &found["versions"][0]["samples"][0];
    assert_eq!(sample["path"], "/users/*/orders");
    assert_eq!(found["recovery"]["state"], "pending");
    proxy.crash_and_restart();
    let found = record(&proxy, id).await;
    assert_eq!(found["recovery"]["state"], "interrupted", "{found}");
    assert_eq!(found["replayed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_canary_leaves_a_record_and_unknown_ones_are_404() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "health: {path: /healthz, interval: 100ms, timeout: 90ms, fall: 2}\nrollback: {unhealthy_for: 300ms, verify: 300ms}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    let unknown = proxy.api("GET", "/v1/rollbacks/99", Value::Null).await;
    assert_eq!(
        (unknown.status, &unknown.json()["code"]),
        (404, &json!("not_found"))
    );
    let (code, _, err) = proxy.cli(&["incident"]);
    assert!(
        code == 1 && err.contains("there was no rollback yet"),
        "{err}"
    );
    proxy.weights(95, 5).await;
    drop(green);
    let id = recorded(&proxy).await;
    // Nobody asks for anything, so nobody can tell.
    let found = recovery(&proxy, id, "unknown").await;
    assert_eq!(found["cause"], "unhealthy");
    assert_eq!(found["replayed"], Value::Null);
    let other = proxy.get("/v1/rollbacks?service=other").await;
    assert_eq!(other["rollbacks"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_canary_leaves_slow_samples_and_a_verdict_that_can_be_played_again() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "rollback: {max_extra_slow: 5%, slow: 300ms, verify: 2s}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    let mut load = Load::start(proxy.web, Protocol::Http1, 20);
    eventually_async("traffic flows", || async { load.done() > 200 }).await;
    green.behave(Behaviour {
        delay: Duration::from_millis(600),
        ..Behaviour::default()
    });
    let id = recorded(&proxy).await;
    let found = recovery(&proxy, id, "recovered").await;
    load.stop().await;
    assert_eq!(found["replayed"], true, "{}", found["replay_problem"]);
    let judges = found["versions"][0]["judges"].as_array().unwrap();
    assert_eq!((judges.len(), &judges[1]["trouble"]), (2, &json!("slow")));
    assert!(
        judges[1]["tape"]["concluded_us"].is_u64() && judges[0]["tape"]["concluded_us"].is_null()
    );
    let samples = found["versions"][0]["samples"].as_array().unwrap();
    assert!(
        !samples.is_empty(),
        "those that hung until the rollback are added later"
    );
    for sample in samples {
        assert_eq!(sample["outcome"], "slow");
        assert!(sample["duration_ms"].as_f64().unwrap() > 300.0, "{sample}");
    }
    assert_eq!(
        found["versions"][0]["impact"]["saw_error"]["requests"], 0,
        "slow is no error"
    );
    let (_, report, _) = proxy.cli(&["incident", &id.to_string(), "-o", "markdown"]);
    assert!(
        report.contains("was slower than 300ms") && report.contains("judge of errors"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_of_a_record_name_the_hooks_that_were_told_and_those_that_could_not_be() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let (chat, pager) = (Receiver::start().await, Receiver::start().await);
    pager.be(Mood::Answer(410));
    let more = format!(
        "hooks:\n  - {{name: chat, on: [rollback], http: \"{}\"}}\n  - {{name: pager, on: [rollback], http: \"{}\"}}",
        chat.url(),
        pager.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &more);
    proxy.weights(50, 50).await;
    proxy.post("/v1/services/shop/rollback", Value::Null).await;
    let id = recorded(&proxy).await;
    let actions = async || {
        let actions = record(&proxy, id).await["actions"].clone();
        let actions = actions.as_array().unwrap().iter();
        let actions = actions.map(|action| action["what"].as_str().unwrap().to_owned());
        actions
            .filter(|what| what.starts_with("hook "))
            .collect::<BTreeSet<_>>()
    };
    eventually_async("both hooks are named", || async {
        actions().await.len() == 2
    })
    .await;
    let named: Vec<String> = actions().await.into_iter().collect();
    assert!(
        named[0].starts_with("hook chat was told of it: "),
        "{named:?}"
    );
    assert!(
        named[1].starts_with("hook pager could not be told of it: "),
        "{named:?}"
    );
    let (_, report, _) = proxy.cli(&["incident", &id.to_string(), "-o", "markdown"]);
    assert!(report.contains("hook chat was told of it"), "{report}");
}

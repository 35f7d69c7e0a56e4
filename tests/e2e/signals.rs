//! Rules about what is measured elsewhere: a real Prometheus, and a check over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Behaviour, Load, Origin, Prometheus, Protocol, Proxy, blue_green, eventually_async,
};

/// Rules of the service `shop`, one a line, looked at ten times a second.
fn rules(rules: &[&str]) -> String {
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| format!("    - {{{rule}, every: 100ms}}\n"))
        .collect();
    format!("rollback:\n  rules:\n{}", rules.concat())
}

/// The rule that most tests have: a gauge by version must not be above 5.
fn orders(prometheus: &Prometheus, span: &str) -> String {
    rules(&[&format!(
        "name: orders, prometheus: \"{}\", query: 'orders_failing{{version=\"{{{{version}}}}\"}}', threshold: \"> 5\", for: {span}",
        prometheus.url()
    )])
}

/// Both versions, and the shop that is asked about them.
async fn origins() -> [Origin; 3] {
    [
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    ]
}

/// What the shop says about itself.
fn failing(shop: &Origin, version: &str, orders: f64) {
    let version = version.replace('\\', "\\\\").replace('"', "\\\"");
    let body = format!(
        "# TYPE orders_failing gauge\norders_failing{{version=\"1\"}} 0\norders_failing{{version=\"{version}\"}} {orders}\n"
    );
    shop.behave(Behaviour {
        body: Some(body),
        ..Behaviour::default()
    });
}

async fn signal(proxy: &Proxy) -> Value {
    proxy.service().await["signals"][0].clone()
}

async fn signal_is(proxy: &Proxy, state: &str) {
    eventually_async(&format!("the signal is {state}"), || async {
        signal(proxy).await["state"] == state
    })
    .await;
}

async fn rolled_back(proxy: &Proxy) -> Value {
    eventually_async("the canary is rolled back", || async {
        proxy.service().await["weights"]["green"] == 0
    })
    .await;
    proxy.service().await["backends"]["green"]["blocked"].clone()
}

async fn start_rollout(proxy: &Proxy) {
    let body = json!({
        "canary": "green",
        "steps": [{"weight": "10%", "for": "200ms"}, {"weight": "50%", "for": "200ms"}],
        "bake": "off",
    });
    let answer = proxy.post("/v1/services/shop/rollout", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn rollout_is(proxy: &Proxy, what: &str, is: impl Fn(&Value) -> bool) {
    eventually_async(what, || async { is(&proxy.service().await["rollout"]) }).await;
}

/// Nothing is to happen for so long.
async fn for_a_while(long: Duration) {
    let nothing = tokio::time::timeout(long, std::future::pending::<()>());
    nothing.await.unwrap_err();
}

/// How often each kind of event has happened about the canary.
async fn count(proxy: &Proxy, kind: &str) -> usize {
    let events = proxy.api("GET", "/v1/events?follow=false", Value::Null);
    let events = events.await.text();
    let (kind, canary) = (format!("\"kind\":\"{kind}\""), "\"message\":\"green: ");
    let is_meant = |line: &&str| line.contains(&kind) && line.contains(canary);
    events.lines().filter(is_meant).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_whose_numbers_are_bad_for_long_enough_is_rolled_back() {
    let [blue, green, shop] = origins().await;
    failing(&shop, "2", 3.0);
    let prometheus = Prometheus::start(&shop);
    let proxy = Proxy::blue_green(&blue, &green, &orders(&prometheus, "1s"));
    signal_is(&proxy, "ok").await;
    assert_eq!(signal(&proxy).await["backend"], "blue");
    proxy.weights(50, 50).await;
    assert_eq!(signal(&proxy).await["backend"], "green");
    signal_is(&proxy, "ok").await;
    assert_eq!(signal(&proxy).await["value"], 3.0);
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    let line = "switchback_signal_state{service=\"shop\",backend=\"green\",signal=\"orders\",state=\"ok\"} 1";
    assert!(metrics.contains(line), "{metrics}");

    failing(&shop, "2", 7.2);
    signal_is(&proxy, "pending").await;
    let (_, out, _) = proxy.cli(&["status", "shop"]);
    assert!(
        out.contains("signal orders (prometheus) is pending: 7.2, bad: > 5 for 1s"),
        "{out}"
    );
    let block = rolled_back(&proxy).await;
    assert_eq!(block["cause"], "rule");
    let reason = block["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("signal orders (prometheus): 7.2 > 5 for 1s; canary failed 0 of "),
        "{reason}"
    );
    assert_eq!(signal(&proxy).await["backend"], "blue");
    assert_recorded(&proxy, "> 5", 7.2).await;
}

/// What the signal was told is in the record, and leads to the same verdict when it is played again.
async fn assert_recorded(proxy: &Proxy, bad: &str, last: f64) {
    eventually_async("the record is written", || async {
        proxy.get("/v1/rollbacks").await["rollbacks"] != json!([])
    })
    .await;
    let id = proxy.get("/v1/rollbacks").await["rollbacks"][0]["id"].clone();
    let record = proxy.get(&format!("/v1/rollbacks/{id}")).await;
    assert_eq!(record["replayed"], true, "{}", record["replay_problem"]);
    let signal = &record["versions"][0]["rule"]["signal"];
    assert_eq!(signal["bad"], bad);
    let tape = &signal["tape"];
    let [at, value, is_bad] =
        [0, 1, 2].map(|part| &tape["looks"].as_array().unwrap().last().unwrap()[part]);
    assert_eq!(*at, tape["concluded_us"], "{tape}");
    assert_eq!((value, is_bad), (&json!(last), &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_waits_for_a_prometheus_that_is_away_and_goes_on_when_it_is_back() {
    let [blue, green, shop] = origins().await;
    failing(&shop, "2", 3.0);
    let mut prometheus = Prometheus::start(&shop);
    let proxy = Proxy::blue_green(&blue, &green, &orders(&prometheus, "1s"));
    let _load = Load::start(proxy.web, Protocol::Http1, 2);
    prometheus.kill();
    start_rollout(&proxy).await;
    rollout_is(&proxy, "the rollout holds", |rollout| {
        let reason = rollout["waits_for"]["reason"].as_str().unwrap_or_default();
        reason.starts_with("signal orders (prometheus) has no data: connect to 127.0.0.1:")
    })
    .await;
    for_a_while(Duration::from_secs(1)).await;
    let service = proxy.service().await;
    assert_eq!(service["rollout"]["stage"]["number"], 1);
    assert_eq!(service["weights"], json!({"blue": 9_000, "green": 1_000}));
    assert_eq!(count(&proxy, "signal_missing").await, 1);

    prometheus.start_again();
    rollout_is(&proxy, "the canary is promoted", |rollout| {
        rollout["status"] == "promoted"
    })
    .await;
    assert_eq!(count(&proxy, "signal_back").await, 1);
    assert_eq!(count(&proxy, "signal_missing").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_is_not_rolled_back_for_what_was_last_heard_of_it() {
    let [blue, green, shop] = origins().await;
    failing(&shop, "2", 9.0);
    let mut prometheus = Prometheus::start(&shop);
    let proxy = Proxy::blue_green(&blue, &green, &orders(&prometheus, "3s"));
    proxy.weights(50, 50).await;
    signal_is(&proxy, "pending").await;
    prometheus.kill();
    signal_is(&proxy, "missing").await;
    for_a_while(Duration::from_secs(4)).await;
    assert_eq!(signal(&proxy).await["state"], "missing");
    assert_eq!(proxy.service().await["weights"]["green"], 50);

    prometheus.start_again();
    assert_eq!(rolled_back(&proxy).await["cause"], "rule");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn label_full_of_quotes_is_asked_for_as_it_is() {
    const LABEL: &str = "2\"} or vector(9) or x{y='\\";
    let [blue, green, shop] = origins().await;
    failing(&shop, LABEL, 3.0);
    let prometheus = Prometheus::start(&shop);
    let config = blue_green(&blue.url(), &green.url(), &orders(&prometheus, "1s"));
    let label = format!("version: '{}'", LABEL.replace('\'', "''"));
    let proxy = Proxy::start(&config.replace("version: \"2\"", &label));
    proxy.weights(50, 50).await;
    signal_is(&proxy, "ok").await;
    assert_eq!(signal(&proxy).await["value"], 3.0);
    failing(&shop, LABEL, 8.0);
    let block = rolled_back(&proxy).await;
    let reason = block["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("signal orders (prometheus): 8 > 5 for 1s;"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_that_fails_or_finds_nothing_holds_and_says_why() {
    let [blue, green, shop] = origins().await;
    failing(&shop, "2", 9.0);
    let prometheus = Prometheus::start(&shop);
    let url = prometheus.url();
    let rule = |name: &str, query: &str| {
        format!(
            "name: {name}, prometheus: \"{url}\", query: '{query}', threshold: \"> 5\", for: 200ms"
        )
    };
    let proxy = Proxy::blue_green(
        &blue,
        &green,
        &rules(&[
            &rule("nothing", "orders_lost"),
            &rule("broken", "orders_failing{"),
            &rule("range", "orders_failing[1m]"),
            &rule("nan", "0 / vector(0)"),
        ]),
    );
    proxy.weights(50, 50).await;
    let reasons = async || {
        let service = proxy.service().await;
        let signals = service["signals"].as_array().unwrap().clone();
        let text = |signal: &Value, key: &str| signal[key].as_str().unwrap_or_default().to_owned();
        let shown = signals
            .iter()
            .map(|signal| (text(signal, "state"), text(signal, "error")));
        shown.collect::<Vec<_>>()
    };
    eventually_async("every query was answered", || async {
        reasons().await.iter().all(|(_, error)| !error.is_empty())
    })
    .await;
    let found = reasons().await;
    for ((state, error), expected) in found.iter().zip([
        "the query yields no series",
        "status 400: invalid parameter \\\"query\\\": ",
        "the query yields a matrix, not a number",
        "the query yields no number (NaN)",
    ]) {
        assert_eq!(state, "missing");
        assert!(error.starts_with(expected), "{error}");
    }
    for_a_while(Duration::from_secs(1)).await;
    assert_eq!(proxy.service().await["weights"]["green"], 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_over_http_rolls_back_when_it_fails_and_holds_when_nobody_answers() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let check = Origin::start().await;
    let rule = format!(
        "http: \"{}/ok?version={{{{version}}}}&at={{{{backend}}}}\", for: 1s, token_file: token",
        check.url()
    );
    let directory = tempfile::tempdir().unwrap();
    let config = blue_green(&blue.url(), &green.url(), &rules(&[&rule]));
    let config = config.replace("version: \"2\"", "version: \"2 & 3\"");
    std::fs::write(directory.path().join("switchback.yaml"), config).unwrap();
    std::fs::write(directory.path().join("token"), "s3cret\n").unwrap();
    let proxy = Proxy::start_in(directory);
    let _load = Load::start(proxy.web, Protocol::Http1, 2);
    // Nobody is asked about versions without weight.
    signal_is(&proxy, "ok").await;
    let asked = check.last();
    assert_eq!(asked.uri.path_and_query().unwrap(), "/ok?version=1&at=blue");
    proxy.weights(50, 50).await;
    signal_is(&proxy, "ok").await;
    eventually_async("the canary's answer counts", || async {
        let asked = check.last();
        asked.uri.path_and_query().unwrap() == "/ok?version=2%20%26%203&at=green"
            && asked.headers["authorization"] == "Bearer s3cret"
    })
    .await;
    let config = proxy.get("/v1/config").await.to_string();
    assert!(!config.contains("s3cret"), "{config}");

    proxy.weights(100, 0).await;
    let address = check.address;
    drop(check);
    start_rollout(&proxy).await;
    rollout_is(&proxy, "the rollout holds", |rollout| {
        let reason = rollout["waits_for"]["reason"].as_str().unwrap_or_default();
        reason.starts_with("signal http (http) has no data: ")
    })
    .await;
    let check = Origin::start_at(address).await;
    check.answer_with(503);
    let block = rolled_back(&proxy).await;
    let reason = block["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("signal http (http): status 503 for 1s;"),
        "{reason}"
    );
    assert_recorded(&proxy, "not 200-299", 503.0).await;
    assert_eq!(
        proxy.service().await["rollout"]["ended"]["outcome"],
        "rolled_back"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_file_that_is_missing_is_refused_before_anything_changes() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let rule = "http: \"http://127.0.0.1:7000/ok\", for: 1s, token_file: token";
    let config = blue_green(&blue.url(), &green.url(), &rules(&[rule]));
    proxy.write_config(&config);
    let answer = proxy.post("/v1/reload", Value::Null).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let problem = answer.json();
    assert_eq!(problem["code"], "config_file_refused");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("services.shop.rollback.rules (http): read ")
            && detail.contains("token"),
        "{detail}"
    );
    assert_eq!(proxy.service().await["signals"], json!([]));
}

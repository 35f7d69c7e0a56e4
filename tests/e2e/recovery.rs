//! Ways back: whether there is one, how fast each was, and which is recommended.

use serde_json::{Value, json};

use crate::support::{Http, Load, Origin, Protocol, Proxy, eventually_async};

async fn origins() -> (Origin, Origin) {
    (Origin::start().await, Origin::start().await)
}

#[track_caller]
fn must(proxy: &Proxy, arguments: &[&str]) -> String {
    let (code, out, why) = proxy.cli(arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{why}");
    out
}

async fn method(proxy: &Proxy, name: &str) -> Value {
    let answer = proxy.get("/v1/services/shop/methods").await;
    let methods = answer["methods"].as_array().unwrap().iter();
    let mut found = methods.filter(|method| method["method"] == name);
    found
        .next()
        .unwrap_or_else(|| panic!("{name}: {answer}"))
        .clone()
}

/// A switch there and back, so that the way back was taken.
fn switch_there_and_back_and_there(proxy: &Proxy) {
    must(proxy, &["switch", "shop", "--to", "green"]);
    must(proxy, &["rollback", "shop"]);
    must(proxy, &["unblock", "shop", "green"]);
    must(proxy, &["switch", "shop", "--to", "green"]);
}

fn ready(proxy: &Proxy) -> (i32, Value) {
    let (code, out, why) = proxy.cli(&["ready", "shop", "-o", "json"]);
    let answer = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{why}"));
    (code, answer)
}

/// The reasons that are about one thing.
fn reason(answer: &Value, check: &str) -> Option<String> {
    let mut checks = answer["checks"].as_array().unwrap().iter();
    let found = checks.find(|one| one["check"] == check && one["ok"] == false)?;
    Some(found["text"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_says_what_is_missing_and_exits_0_only_when_nothing_is() {
    let (blue, green) = origins().await;
    let health = "health: {path: /, interval: 100ms, timeout: 100ms, rise: 1, fall: 1}\n";
    let proxy = Proxy::blue_green(&blue, &green, health);
    let (code, answer) = ready(&proxy);
    assert_eq!((code, &answer["ready"]), (1, &json!(false)));
    assert!(
        reason(&answer, "target")
            .unwrap()
            .contains("nothing to go back to"),
        "{answer}"
    );
    assert!(
        reason(&answer, "drill").unwrap().contains("never gone"),
        "{answer}"
    );
    let (code, out, _) = proxy.cli(&["ready", "shop"]);
    assert!(code == 1 && out.contains("not ready to roll back"), "{out}");
    eventually_async("green is healthy", || async {
        proxy
            .cli(&["switch", "shop", "--to", "green", "--dry-run"])
            .0
            == 0
    })
    .await;
    switch_there_and_back_and_there(&proxy);
    eventually_async("all is well", || async { ready(&proxy).0 == 0 }).await;
    let (_, answer) = ready(&proxy);
    assert_eq!(
        (&answer["target"], &answer["reasons"]),
        (&json!("blue"), &json!([]))
    );
    let metric = |value: u8| format!("switchback_ready{{service=\"shop\"}} {value}\n");
    eventually_async("metric and dashboard know", || async {
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        let overview = proxy.get("/v1/overview").await;
        metrics.contains(&metric(1)) && overview["services"][0]["ready"]["ready"] == true
    })
    .await;
    drop(blue);
    eventually_async("blue is missed", || async { ready(&proxy).0 == 1 }).await;
    let (_, answer) = ready(&proxy);
    assert!(
        reason(&answer, "target_up")
            .unwrap()
            .contains("blue has no endpoint"),
        "{answer}"
    );
    eventually_async("the metric falls", || async {
        let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
        metrics.contains(&metric(0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_does_not_contradict_itself_about_a_sole_endpoint_that_fails() {
    let (blue, green) = origins().await;
    // No probe comes to it: what is known is what requests have found.
    let proxy = Proxy::blue_green(&blue, &green, "health: {path: /, interval: 1h}\n");
    proxy.weights(50, 50).await;
    drop(blue);
    eventually_async("blue is missed", || async {
        Http::connect(proxy.web).await.get("/").await;
        reason(&ready(&proxy).1, "capacity").is_some()
    })
    .await;
    let (_, answer) = ready(&proxy);
    assert_eq!(
        (&answer["target"], reason(&answer, "target_up")),
        (
            &json!("blue"),
            Some("blue has no endpoint that works".into())
        ),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_knows_the_schema_and_a_full_disk() {
    let (blue, green) = origins().await;
    let proxy = Proxy::blue_green(&blue, &green, "");
    switch_there_and_back_and_there(&proxy);
    let body = json!({
        "version": "1",
        "endpoints": [blue.url()],
        "schema": {"reads": [3], "writes": 3},
    });
    let path = "/v1/services/shop/backends/blue";
    proxy.put(path, body).await;
    must(&proxy, &["schema", "set", "shop", "3"]);
    assert_eq!(reason(&ready(&proxy).1, "schema"), None);
    must(&proxy, &["schema", "set", "shop", "4"]);
    let (code, answer) = ready(&proxy);
    assert_eq!(code, 1);
    assert!(
        reason(&answer, "schema")
            .unwrap()
            .contains("cannot live with schema 4"),
        "{answer}"
    );
    must(&proxy, &["schema", "set", "shop", "3"]);
    proxy.fill_disk(true);
    let full = proxy
        .api("PUT", "/v1/services/shop/schema", json!({"version": 4}))
        .await;
    assert_eq!(full.status, 507, "{}", full.text());
    let (code, answer) = ready(&proxy);
    assert_eq!(code, 1);
    assert!(
        reason(&answer, "durable")
            .unwrap()
            .contains("cannot be written"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_previous_artifacts_pitfall_ready_is_red_when_an_earlier_version_is_gone() {
    let (blue, green) = origins().await;
    let next = Origin::start().await;
    let proxy = Proxy::blue_green(&blue, &green, "retain: 2\n");
    let (_, answer) = ready(&proxy);
    assert!(
        reason(&answer, "retained").unwrap().contains("0 of 2"),
        "{answer}"
    );
    must(&proxy, &["switch", "shop", "--to", "green"]);
    let url = next.url();
    must(
        &proxy,
        &[
            "backend",
            "set",
            "shop",
            "blue",
            "--version",
            "3",
            "--endpoint",
            &url,
        ],
    );
    eventually_async("blue's new version works", || async {
        proxy.cli(&["switch", "shop", "--to", "blue"]).0 == 0
    })
    .await;
    eventually_async("both earlier versions are reached", || async {
        reason(&ready(&proxy).1, "retained").is_none()
    })
    .await;
    drop(blue);
    eventually_async("version 1 is missed", || async {
        let why = reason(&ready(&proxy).1, "retained");
        why.is_some_and(|why| why.starts_with("version 1 is gone: connect to"))
    })
    .await;
    assert_eq!(ready(&proxy).0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed_table_shows_what_was_measured_here_and_nothing_else() {
    let (blue, green) = origins().await;
    let proxy = Proxy::blue_green(&blue, &green, "");
    let shown = must(&proxy, &["methods", "shop"]);
    assert_eq!(shown.matches("not measured yet").count(), 7, "{shown}");
    for claim in ["Instant", "Seconds", "1-5 min", "5-15 min", "15-60 min"] {
        assert!(!shown.contains(claim), "{claim}: {shown}");
    }
    proxy.weights(90, 10).await;
    let rollback = proxy
        .post("/v1/services/shop/rollback", Value::Null)
        .await
        .json();
    must(&proxy, &["unblock", "shop", "green"]);
    must(&proxy, &["switch", "shop", "--to", "green"]);
    eventually_async("both are measured", || async {
        let canary = method(&proxy, "canary_to_zero").await;
        let switch = method(&proxy, "blue_green_switch").await;
        canary["measured"] == 1 && switch["measured"] == 1
    })
    .await;
    let canary = method(&proxy, "canary_to_zero").await;
    assert_eq!(canary["p50_us"], rollback["applied_in_us"], "the very time");
    assert_eq!(canary["p50_us"], canary["p99_us"]);
    assert_eq!(canary["last_drill"], Value::Null, "it was in earnest");
    assert_eq!(method(&proxy, "image_revert").await["p50_us"], Value::Null);
    let risk = method(&proxy, "blue_green_switch").await["data_risk"].clone();
    assert!(risk.as_str().unwrap().starts_with("unknown"), "{risk}");
    must(&proxy, &["schema", "set", "shop", "4"]);
    let risk = method(&proxy, "blue_green_switch").await["data_risk"].clone();
    assert!(risk.as_str().unwrap().contains("does not say"), "{risk}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blue_green_switch_goes_back_under_load_without_a_failure_and_its_time_survives_a_restart()
{
    let (blue, green) = origins().await;
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    must(&proxy, &["switch", "shop", "--to", "green"]);
    must(&proxy, &["rollback", "shop"]);
    let service = proxy.service().await;
    assert_eq!(
        (&service["stable"], &service["weights"]["blue"]),
        (&json!("blue"), &json!(100))
    );
    load.finish().await;
    eventually_async("the switch and the way back are measured", || async {
        method(&proxy, "blue_green_switch").await["measured"] == 2
    })
    .await;
    proxy.crash_and_restart();
    assert_eq!(method(&proxy, "blue_green_switch").await["measured"], 2);
    // What was done in earnest is no drill.
    assert!(method(&proxy, "blue_green_switch").await["last_drill"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_route_to_0_percent_is_what_diagnose_recommends_first_with_its_measured_time() {
    let (blue, green) = origins().await;
    let proxy = Proxy::blue_green(&blue, &green, "rollback: {on_failure: notify}\n");
    // Once for the time.
    proxy.weights(90, 10).await;
    must(&proxy, &["rollback", "shop"]);
    must(&proxy, &["unblock", "shop", "green"]);
    proxy.weights(80, 20).await;
    green.answer_with(500);
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    let diagnosis = || async { proxy.get("/v1/services/shop/diagnose").await };
    eventually_async("green is seen to err", || async {
        diagnosis().await["errors"][0]["backend"] == "green"
    })
    .await;
    let found = diagnosis().await;
    let first = &found["methods"][0];
    assert_eq!(first["method"], "canary_to_zero", "{found:#}");
    assert_eq!(first["measured"], 1, "{found:#}");
    assert_eq!(found["tree"][2]["answer"], true, "{found:#}");
    assert!(
        found["changes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["action"] == "weights")
    );
    let shown = must(&proxy, &["diagnose", "shop", "--within", "30m"]);
    assert!(shown.contains("green (version 2) errs"), "{shown}");
    // The command is exact.
    let command = first["command"].as_str().unwrap();
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    must(&proxy, &arguments);
    assert_eq!(proxy.service().await["weights"]["green"], 0);
    drop(load);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_revert_brings_back_any_revision_under_load_and_shows_where_the_file_differs() {
    let (blue, green) = origins().await;
    let proxy = Proxy::blue_green(&blue, &green, "");
    // Nothing is expected of the file's text but the weights.
    let text = std::fs::read_to_string(proxy.path().join("switchback.yaml")).unwrap();
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    proxy.weights(70, 30).await;
    let good = proxy.service().await["revision"].as_u64().unwrap();
    proxy.write_config(&text.replace("{blue: 100, green: 0}", "{blue: 10, green: 90}"));
    eventually_async("the file is in force", || async {
        proxy.service().await["weights"]["green"] == 90
    })
    .await;
    let good_text = good.to_string();
    let plan = must(&proxy, &["restore", &good_text, "--dry-run"]);
    assert!(plan.contains("weights.green"), "{plan}");
    assert_eq!(
        proxy.service().await["weights"]["green"],
        90,
        "nothing changed"
    );
    let found = proxy.get("/v1/services/shop/diagnose").await;
    let methods = found["methods"].as_array().unwrap();
    let revert = methods
        .iter()
        .find(|one| one["method"] == "config_revert")
        .unwrap();
    let command = revert["command"].as_str().unwrap().to_owned();
    assert_eq!(command, format!("switchback restore {good} shop"));
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    must(&proxy, &arguments);
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 70, "green": 30}));
    let conflict = &service["conflicts"][0];
    assert_eq!(
        (&conflict["field"], &conflict["kind"]),
        (&json!("weights"), &json!("differs"))
    );
    assert_eq!(conflict["file"], json!({"blue": 10, "green": 90}));
    let measured = method(&proxy, "config_revert").await["measured"].clone();
    assert_eq!(measured, 1, "the file that was read again was no way back");
    load.finish().await;
    assert_eq!(Http::connect(proxy.web).await.get("/").await.status, 200);
}

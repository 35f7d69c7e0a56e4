//! Plain rules while no version is judged: they tell, once each time, and change nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Load, Origin, Protocol, Proxy, Receiver, eventually, eventually_async};

const RATE: &str = "error_rate > 20% for 1s";

/// Hooks for everything that must be told, and for everything that must not happen.
fn hooks(receiver: &Receiver) -> String {
    format!(
        "hooks: [{{on: [rule_fired, rule_cleared, rollback, rollback_held, block, judge_notify, rollout_pause], http: \"{}\"}}]\n",
        receiver.url()
    )
}

/// What was told, in order, with the messages.
fn told(receiver: &Receiver) -> Vec<(String, String)> {
    let seen = receiver.seen().into_iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    seen.map(|seen| {
        (
            text(&seen.body["type"]),
            text(&seen.body["data"]["message"]),
        )
    })
    .collect()
}

async fn for_a_while(long: Duration) {
    let nothing = tokio::time::timeout(long, std::future::pending::<()>());
    nothing.await.unwrap_err();
}

async fn firing_metric(proxy: &Proxy, rule: &str, value: u8) -> bool {
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    metrics.contains(&format!(
        "switchback_rule_firing{{service=\"shop\",backend=\"blue\",rule=\"{rule}\"}} {value}\n"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stable_that_fails_without_a_canary_is_told_of_once_each_time() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let receiver = Receiver::start().await;
    let rules = format!("rollback: {{rules: [\"{RATE}\", \"{RATE} and not stable\"]}}\n");
    let proxy = Proxy::blue_green(&blue, &green, &(rules + &hooks(&receiver)));
    assert!(firing_metric(&proxy, RATE, 0).await);
    let before = proxy.service().await;
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    blue.answer_with(500);
    eventually("the hook is told", || !told(&receiver).is_empty());
    for_a_while(Duration::from_millis(2_500)).await;
    let [(kind, message)] = &told(&receiver)[..] else {
        panic!("once: {:?}", told(&receiver));
    };
    assert_eq!(kind, "switchback.rule_fired");
    assert!(
        message.starts_with(&format!("blue: {RATE}: blue failed "))
            && message.ends_with("; no other version has weight, so nothing is rolled back"),
        "{message}"
    );
    assert!(firing_metric(&proxy, RATE, 1).await);
    let now = proxy.service().await;
    for same in ["revision", "weights", "stable", "blocked_versions"] {
        assert_eq!(now[same], before[same]);
    }
    let firing = &now["rules_firing"];
    assert_eq!(firing.as_array().map(Vec::len), Some(1), "{firing}");
    assert_eq!(
        (&firing[0]["backend"], &firing[0]["rule"]),
        (&json!("blue"), &json!(RATE))
    );
    let (_, out, _) = proxy.cli(&["status", "shop"]);
    let line = format!("shop blue: rule fires: {RATE}: blue failed ");
    assert!(out.contains(&line), "{out}");

    blue.answer_with(200);
    eventually("its end is told", || told(&receiver).len() == 2);
    assert_eq!(receiver.types()[1], "switchback.rule_cleared");
    assert!(firing_metric(&proxy, RATE, 0).await);
    assert_eq!(proxy.service().await["rules_firing"], json!([]));
    blue.answer_with(500);
    eventually("another time is told too", || told(&receiver).len() == 3);
    assert_eq!(receiver.types()[2], "switchback.rule_fired");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signal_that_is_bad_without_a_canary_is_told_of_once_each_time() {
    const SIGNAL: &str = "signal orders (http)";
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let (check, receiver) = (Origin::start().await, Receiver::start().await);
    let rule = format!(
        "rollback:\n  rules:\n    - {{name: orders, http: \"{}/ok?at={{{{backend}}}}\", for: 300ms, every: 100ms}}\n",
        check.url()
    );
    let proxy = Proxy::blue_green(&blue, &green, &(rule + &hooks(&receiver)));
    let before = proxy.service().await;
    check.answer_with(503);
    eventually("the hook is told", || !told(&receiver).is_empty());
    for_a_while(Duration::from_secs(1)).await;
    let expected = format!(
        "blue: {SIGNAL}: status 503 for 300ms; no other version has weight, so nothing is rolled back"
    );
    let fired = ("switchback.rule_fired".to_owned(), expected);
    assert_eq!(told(&receiver), std::slice::from_ref(&fired));
    assert!(firing_metric(&proxy, SIGNAL, 1).await);
    let now = proxy.service().await;
    for same in ["revision", "weights", "stable", "blocked_versions"] {
        assert_eq!(now[same], before[same]);
    }
    let signal = &now["signals"][0];
    assert_eq!(
        (&signal["backend"], &signal["state"]),
        (&json!("blue"), &json!("firing"))
    );
    assert_eq!(now["rules_firing"][0]["rule"], SIGNAL);

    check.answer_with(200);
    eventually("its end is told", || told(&receiver).len() == 2);
    assert_eq!(receiver.types()[1], "switchback.rule_cleared");
    eventually_async("the signal is fine", || async {
        proxy.service().await["signals"][0]["state"] == "ok"
    })
    .await;
    check.answer_with(503);
    eventually("another time is told too", || told(&receiver).len() == 3);
    assert_eq!(told(&receiver)[2], fired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_look_at_the_canary_alone_while_it_has_weight() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let receiver = Receiver::start().await;
    let rules =
        format!("rollback: {{rules: [\"{RATE}\"], min_failures: 1000000, on_failure: notify}}\n");
    let proxy = Proxy::blue_green(&blue, &green, &(rules + &hooks(&receiver)));
    proxy.weights(50, 50).await;
    blue.answer_with(500);
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    for_a_while(Duration::from_millis(2_500)).await;
    assert_eq!(told(&receiver), [], "the canary is fine");
    assert_eq!(proxy.service().await["rules_firing"], json!([]));
    proxy.weights(100, 0).await;
    eventually("now stable is looked at", || !told(&receiver).is_empty());
    assert_eq!(receiver.types(), ["switchback.rule_fired"]);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_that_nobody_looks_at_any_more_is_told_to_be_over() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let receiver = Receiver::start().await;
    let rules = format!("rollback: {{rules: [\"{RATE}\"], on_failure: notify}}\n");
    let proxy = Proxy::blue_green(&blue, &green, &(rules + &hooks(&receiver)));
    blue.answer_with(500);
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    eventually("the rule fires", || told(&receiver).len() == 1);
    proxy.weights(50, 50).await;
    let over = || {
        let types = receiver.types();
        types.iter().any(|kind| kind == "switchback.rule_cleared")
    };
    eventually("now the canary is looked at", over);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_while_the_disk_is_full_is_told_when_it_is_not() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let receiver = Receiver::start().await;
    let rules = format!("rollback: {{rules: [\"{RATE}\"]}}\n");
    let proxy = Proxy::blue_green(&blue, &green, &(rules + &hooks(&receiver)));
    proxy.fill_disk(true);
    let refused = proxy.api(
        "PUT",
        "/v1/services/shop/weights",
        json!({"weights": {"blue": 1, "green": 0}}),
    );
    assert_eq!(refused.await.status, 507, "the disk is full");
    blue.answer_with(500);
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    eventually_async("the rule fires", || async {
        proxy.service().await["rules_firing"] != json!([])
    })
    .await;
    for_a_while(Duration::from_millis(1_500)).await;
    assert_eq!(told(&receiver), [], "the message is not on disk");
    proxy.fill_disk(false);
    eventually("the hook is told", || !told(&receiver).is_empty());
    assert_eq!(receiver.types(), ["switchback.rule_fired"]);
    load.stop().await;
}

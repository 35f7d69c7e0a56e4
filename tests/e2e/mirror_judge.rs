//! The judge stops a version that no user has met, by what it answers to copies of their requests.

use serde_json::{Value, json};

use crate::support::{Behaviour, Load, Origin, Protocol, Proxy, eventually_async};

/// A service whose copies to green are judged.
async fn judged(more: &str) -> (Origin, Origin, Proxy) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = format!("mirror: {{to: green, judge: true}}\n{more}");
    let proxy = Proxy::blue_green(&blue, &green, &more);
    (blue, green, proxy)
}

async fn block(proxy: &Proxy) -> Value {
    proxy.service().await["backends"]["green"]["blocked"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_that_fails_its_copies_is_blocked_before_any_user_meets_it() {
    let (blue, green, proxy) = judged("").await;
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    eventually_async("a good version gets copies", || async {
        green.received() > 500
    })
    .await;
    assert_eq!(block(&proxy).await, Value::Null);
    green.answer_with(500);
    eventually_async("it is blocked", || async { !block(&proxy).await.is_null() }).await;
    let done = load.finish().await;
    assert_eq!(done, blue.received(), "every client was answered by blue");
    let block = block(&proxy).await;
    assert_eq!(
        (&block["cause"], &block["by"]),
        (&json!("judge"), &json!("judge"))
    );
    let sentence = block["reason"].as_str().unwrap();
    println!("{sentence}");
    assert!(
        sentence.starts_with("of mirrored requests, canary failed "),
        "{sentence}"
    );
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 100, "green": 0}));
    assert_eq!(service["backends"]["green"]["begun"], 0, "{service}");
    assert_eq!(service["mirror"]["stopped"], "blocked");
    let answer = proxy
        .post("/v1/services/shop/rollout", json!({"canary": "green"}))
        .await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (409, &json!("blocked"))
    );
    let (code, _, error) = proxy.cli(&["rollout", "start", "shop", "--canary", "green"]);
    assert!(
        code != 0 && error.contains("of mirrored requests"),
        "{code}: {error}"
    );
    let metrics = proxy.api("GET", "/metrics", Value::Null).await.text();
    assert!(
        !metrics.contains("switchback_rollbacks_total{"),
        "nothing was rolled back: {metrics}"
    );
    let revisions = proxy.get("/v1/revisions").await;
    let last = &revisions["revisions"][0];
    assert_eq!(
        (&last["action"], &last["by"]),
        (&json!("block"), &json!("judge")),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unblocked_version_gets_copies_again_and_is_judged_anew() {
    let (_blue, green, proxy) = judged("").await;
    green.answer_with(503);
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    eventually_async("it is blocked", || async { !block(&proxy).await.is_null() }).await;
    green.answer_with(200);
    let path = "/v1/services/shop/backends/green/unblock";
    assert_eq!(proxy.post(path, Value::Null).await.status, 200);
    let before = green.received();
    eventually_async("it gets copies again", || async {
        green.received() > before + 1_000
    })
    .await;
    assert_eq!(block(&proxy).await, Value::Null, "what is over is over");
    green.answer_with(500);
    eventually_async("it is blocked again", || async {
        !block(&proxy).await.is_null()
    })
    .await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_both_versions_fail_block_nobody() {
    let (blue, green, proxy) = judged("").await;
    for origin in [&blue, &green] {
        origin.behave(Behaviour {
            fail_every: Some(5),
            ..Behaviour::default()
        });
    }
    let mut load = Load::start(proxy.web, Protocol::Http1, 4);
    eventually_async("many copies were compared", || async {
        proxy.service().await["mirror"]["mirrored"].as_u64() > Some(3_000)
    })
    .await;
    let (_, failed, _) = load.stop().await;
    assert!(failed > 500, "{failed} failed");
    assert_eq!(block(&proxy).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judge_that_may_only_notify_says_so_and_blocks_nobody() {
    let (_blue, green, proxy) = judged("rollback: {on_failure: notify}").await;
    green.answer_with(500);
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    eventually_async("somebody hears of it", || async {
        let answer = proxy
            .api("GET", "/v1/events?follow=false", Value::Null)
            .await;
        let text = answer.text();
        text.contains("judge_notify") && text.contains("of mirrored requests")
    })
    .await;
    let before = green.received();
    eventually_async("copies go on", || async { green.received() > before + 200 }).await;
    load.finish().await;
    assert_eq!(block(&proxy).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_leaves_a_record_that_proves_it() {
    let (_blue, green, proxy) = judged("").await;
    green.answer_with(500);
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    eventually_async("it is blocked", || async { !block(&proxy).await.is_null() }).await;
    load.finish().await;
    let sentence = block(&proxy).await["reason"].clone();
    eventually_async("there is a record", || async {
        proxy.get("/v1/rollbacks").await["rollbacks"] != json!([])
    })
    .await;
    let listed = proxy.get("/v1/rollbacks").await["rollbacks"][0].clone();
    assert_eq!(
        (&listed["backend"], &listed["version"], &listed["cause"]),
        (&json!("green"), &json!("2"), &json!("judge"))
    );
    let id = &listed["id"];
    let record = proxy.get(&format!("/v1/rollbacks/{id}")).await;
    assert_eq!(record["sentence"], sentence);
    assert_eq!(record["weights_before"], record["weights_after"]);
    assert_eq!(record["replayed"], true, "{}", record["replay_problem"]);
    assert_eq!(record["recovery"]["state"], "not_needed");
    let version = &record["versions"][0];
    let seconds = version["seconds"].as_array().unwrap().iter();
    let failures: u64 = seconds
        .map(|second| second["canary_failures"].as_u64().unwrap())
        .sum();
    assert!(failures > 0, "{version}");
    assert!(
        version["judges"][0]["tape"]["concluded_us"].is_u64(),
        "{version}"
    );
    let (code, report, err) = proxy.cli(&["incident", &id.to_string(), "-o", "markdown"]);
    assert_eq!(code, 0, "{err}");
    for part in [
        "version 2 of green blocked".to_owned(),
        format!("> {}", sentence.as_str().unwrap()),
        "comes to the same verdict at the same tick".into(),
        "only copies of requests".into(),
    ] {
        assert!(report.contains(&part), "{part}: {report}");
    }
    assert!(
        !report.contains("weights:"),
        "no weight has moved: {report}"
    );
}

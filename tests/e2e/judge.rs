//! The judge on live traffic through the real proxy.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Behaviour, Http, Load, Origin, Protocol, Proxy, eventually_async};

async fn rolled_back(proxy: &Proxy) -> Value {
    eventually_async("the canary is rolled back", || async {
        proxy.service().await["weights"]["green"] == 0
    })
    .await;
    proxy.service().await
}

/// Requests at a steady rate until the canary is rolled back: how many it got, and its block.
async fn requests_until_rollback(canary: Behaviour, rate: u32) -> (u64, Value) {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "rescue: {budget: 100%}");
    proxy.weights(95, 5).await;
    // Healthy traffic first, so that the judge knows what is usual.
    paced(&proxy, rate, 300).await;
    green.behave(canary);
    let before = green.received();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Http::connect(proxy.web).await);
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0..60_000_usize {
        ticks.tick().await;
        clients[number % 4].get("/").await;
        if number % 50 == 49 && proxy.service().await["weights"]["green"] == 0 {
            let block = proxy.service().await["backends"]["green"]["blocked"].clone();
            return (green.received() - before, block);
        }
    }
    panic!("never rolled back");
}

/// How often a measurement is repeated: `SWITCHBACK_RUNS`, or a few times.
fn runs(few: u64) -> u64 {
    let asked = std::env::var("SWITCHBACK_RUNS").ok();
    asked.map_or(few, |runs| {
        runs.parse().expect("SWITCHBACK_RUNS is a number")
    })
}

async fn paced(proxy: &Proxy, rate: u32, count: u32) {
    let mut client = Http::connect(proxy.web).await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for _ in 0..count {
        ticks.tick().await;
        client.get("/").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_that_fails_everything_is_rolled_back_after_a_handful_of_requests() {
    let mut total = 0;
    let runs = runs(10);
    for _ in 0..runs {
        let failing = Behaviour {
            status: 500,
            ..Behaviour::default()
        };
        let (requests, block) = requests_until_rollback(failing, 1_000).await;
        total += requests;
        assert_eq!(block["cause"], "judge");
        let sentence = block["reason"].as_str().unwrap();
        assert!(sentence.starts_with("canary failed "), "{sentence}");
        assert!(
            sentence.contains("odds of a healthy canary 1 in 10^"),
            "{sentence}"
        );
    }
    let mean = total as f64 / runs as f64;
    println!("canary fails 100%: rolled back after a mean of {mean} canary requests");
    assert!(mean <= 6.0, "{mean}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_that_fails_a_tenth_is_rolled_back_within_its_bar() {
    let mut total = 0;
    let runs = runs(5);
    for _ in 0..runs {
        let failing = Behaviour {
            fail_every: Some(10),
            ..Behaviour::default()
        };
        total += requests_until_rollback(failing, 1_000).await.0;
    }
    let mean = total as f64 / runs as f64;
    println!("canary fails 10%: rolled back after a mean of {mean} canary requests");
    assert!(mean <= 75.0, "{mean}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_outage_rolls_nothing_back() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    paced(&proxy, 1_000, 200).await;
    for origin in [&blue, &green] {
        origin.behave(Behaviour {
            fail_every: Some(3),
            ..Behaviour::default()
        });
    }
    paced(&proxy, 1_000, 2_000).await;
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 50, "green": 50}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_canary_whose_successes_are_slower_than_its_failures_survives_its_start() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    for origin in [&blue, &green] {
        let delay = Duration::from_millis(300);
        origin.behave(Behaviour {
            delay,
            fail_every: Some(100),
            ..Behaviour::default()
        });
    }
    let proxy = Proxy::blue_green(&blue, &green, "rescue: {enabled: false}");
    let mut load = Load::start(proxy.web, Protocol::Http1, 200);
    for share in [50, 0, 5, 50, 0, 50] {
        proxy.weights(100 - share, share).await;
        let seen = load.done();
        eventually_async("traffic flows", || async { load.done() > seen + 500 }).await;
        let weights = proxy.service().await["weights"].clone();
        assert_eq!(weights, json!({"blue": 100 - share, "green": share}));
    }
    let (done, failed, _) = load.stop().await;
    assert!(
        failed * 50 > done / 2,
        "{failed} of {done} failed: the failures were there"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_errors_and_client_aborts_never_count() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    green.behave(Behaviour {
        status: 404,
        ..Behaviour::default()
    });
    let proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    let mut client = Http::connect(proxy.web).await;
    for _ in 0..300 {
        client.get("/").await;
    }
    // Clients that hang up while green works on their request.
    green.behave(Behaviour {
        delay: Duration::from_millis(300),
        ..Behaviour::default()
    });
    for _ in 0..50 {
        let mut gone = crate::support::RawClient::connect(proxy.web).await;
        gone.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    }
    let service = proxy.service().await;
    assert_eq!(service["weights"], json!({"blue": 50, "green": 50}));
    assert!(
        service["judge"]["green"]["evidence"].as_f64().unwrap() < 0.5,
        "{service}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stable_on_trial_is_rolled_back_to_the_previous_one() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    proxy
        .post("/v1/services/shop/switch", json!({"to": "green"}))
        .await;
    paced(&proxy, 1_000, 200).await;
    green.answer_with(500);
    let mut load = Load::start(proxy.web, Protocol::Http1, 2);
    let service = rolled_back(&proxy).await;
    load.stop().await;
    assert_eq!(
        (&service["stable"], &service["weights"]["blue"]),
        (&json!("blue"), &json!(100))
    );
    assert!(
        service["backends"]["green"]["blocked"]["reason"]
            .as_str()
            .unwrap()
            .contains("no control group"),
        "{service}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashed_canary_without_requests_is_rolled_back_by_its_health() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "health: {path: /healthz, interval: 100ms, timeout: 90ms, fall: 2}\nrollback: {unhealthy_for: 500ms}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(95, 5).await;
    drop(green);
    let service = rolled_back(&proxy).await;
    assert_eq!(
        service["backends"]["green"]["blocked"]["cause"], "unhealthy",
        "{service}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_commands_does_not_keep_the_judge_from_rolling_back() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    proxy.weights(50, 50).await;
    let (admin, token) = (proxy.admin, format!("Bearer {}", proxy.token));
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let token = token.clone();
        flood.spawn(async move {
            let headers = [
                ("authorization", token.as_str()),
                ("content-type", "application/json"),
            ];
            let mut client = Http::connect(admin).await;
            let path = "/v1/services/shop/weights?dry_run=true";
            let body = br#"{"weights": {"blue": 1, "green": 1}}"#;
            while client.send("PUT", path, &headers, body).await.is_ok() {}
        });
    }
    paced(&proxy, 1_000, 100).await;
    green.answer_with(500);
    let mut client = Http::connect(proxy.web).await;
    let before = green.received();
    let rolled_back = async {
        while green.received() < before + 200 {
            client.get("/").await;
        }
    };
    rolled_back_within(rolled_back, &proxy).await;
    flood.shutdown().await;
}

/// Runs a load until the canary is rolled back; panics if the load ends first.
async fn rolled_back_within(load: impl Future<Output = ()>, proxy: &Proxy) {
    tokio::select! {
        () = load => panic!("the canary got all of these requests and was not rolled back"),
        _ = rolled_back(proxy) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hold_and_notify_only_report() {
    for action in ["hold", "notify"] {
        let (blue, green) = (Origin::start().await, Origin::start().await);
        green.answer_with(500);
        let proxy = Proxy::blue_green(
            &blue,
            &green,
            &format!("rollback: {{on_failure: {action}}}"),
        );
        proxy.weights(50, 50).await;
        paced(&proxy, 1_000, 300).await;
        let kind = format!("judge_{action}");
        eventually_async("it is reported", || async {
            proxy
                .api("GET", "/v1/events?follow=false", Value::Null)
                .await
                .text()
                .contains(&kind)
        })
        .await;
        assert_eq!(
            proxy.service().await["weights"],
            json!({"blue": 50, "green": 50})
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn automatic_rollback_never_moves_traffic_to_an_unhealthy_stable() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "health: {path: /healthz, interval: 100ms, timeout: 90ms, fall: 1}\nrescue: {enabled: false}\nspill_to_canary: true\n";
    let proxy = Proxy::blue_green(&blue, &green, more);
    proxy.weights(50, 50).await;
    drop(blue);
    eventually_async("stable is known to be down", || async {
        proxy.service().await["backends"]["blue"]["health"] == "unhealthy"
    })
    .await;
    let refused = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (409, &json!("target_unhealthy"))
    );
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 50, "green": 50})
    );
    let forced = proxy
        .post("/v1/services/shop/rollback", json!({"force": true}))
        .await;
    assert_eq!(forced.status, 200);
    assert_eq!(
        proxy.service().await["weights"],
        json!({"blue": 100, "green": 0})
    );
}

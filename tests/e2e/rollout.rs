//! Canaries that grow step by step, on real traffic: forward, held, back, and through restarts.

use serde_json::{Value, json};

use crate::support::{Behaviour, Http, Load, Origin, Protocol, Proxy, eventually_async};

const ROLLOUT: &str = "/v1/services/shop/rollout";

/// Steps and a bake that are over in no time.
fn quick() -> Value {
    json!({
        "canary": "green",
        "steps": [
            {"weight": "10%", "for": "200ms", "requests": 30},
            {"weight": "50%", "for": "200ms", "requests": 30},
        ],
        "bake": {"holdback": "2%", "for": "200ms"},
    })
}

async fn rollout(proxy: &Proxy) -> Value {
    proxy.get(ROLLOUT).await
}

async fn start(proxy: &Proxy, body: Value) -> Value {
    let answer = proxy.post(ROLLOUT, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Waits until a rollout is paused or has ended.
async fn settled(proxy: &Proxy) -> Value {
    loop {
        let view = proxy.get(&format!("{ROLLOUT}?wait=20s")).await;
        if view["status"] != "running" {
            return view;
        }
    }
}

async fn events(proxy: &Proxy) -> String {
    let path = "/v1/events?follow=false";
    proxy.api("GET", path, Value::Null).await.text()
}

async fn requests(proxy: &Proxy, count: usize) {
    let mut client = Http::connect(proxy.web).await;
    for _ in 0..count {
        client.get("/").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_canary_takes_every_step_and_becomes_stable() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    let answer = start(&proxy, quick()).await;
    assert_eq!(answer["weights"], json!({"blue": 9_000, "green": 1_000}));
    assert_eq!(answer["rollout"]["status"], "running");
    let (code, out, _) = proxy.cli(&["rollout", "wait", "shop", "--timeout", "20s"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("promoted"), "{out}");
    assert!(!out.contains("no rollout is under way"), "{out}");
    // Whoever comes later learns that it was over before, or that it was another one.
    let (code, out, _) = proxy.cli(&["rollout", "wait", "shop", "--version", "2"]);
    assert_eq!(code, 0, "{out}");
    let over = "shop: no rollout is under way; this is the last one, which began ";
    assert!(out.contains(over) && out.contains("promoted"), "{out}");
    let (code, _, err) = proxy.cli(&["rollout", "wait", "shop", "--version", "3"]);
    assert_eq!(code, 11, "{err}");
    assert!(err.contains("is of version 2, not 3"), "{err}");
    let service = proxy.service().await;
    assert_eq!(
        (
            &service["stable"],
            &service["previous"],
            &service["weights"]
        ),
        (
            &json!("green"),
            &json!("blue"),
            &json!({"blue": 0, "green": 10_000})
        )
    );
    assert_eq!(service["on_trial"]["backend"], "green");
    assert_eq!(service["rollout"]["ended"]["outcome"], "promoted");
    load.finish().await;
    for kind in ["rollout_started", "rollout_advanced", "promoted"] {
        assert!(events(&proxy).await.contains(kind), "{kind}");
    }
    // The old stable is warm: back in one step, and the new version stays out.
    let back = proxy.post("/v1/services/shop/rollback", Value::Null).await;
    assert_eq!(back.json()["weights"], json!({"blue": 10_000, "green": 0}));
    let again = proxy.post(ROLLOUT, quick()).await;
    assert_eq!(
        (again.status, &again.json()["code"]),
        (409, &json!("blocked"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_canary_is_rolled_back_in_its_first_step_and_stays_out() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    green.answer_with(500);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let load = Load::start(proxy.web, Protocol::Http1, 4);
    start(&proxy, json!({"steps": [{"weight": "5%", "for": "1h"}]})).await;
    let (code, out, _) = proxy.cli(&["rollout", "wait", "shop", "--timeout", "20s"]);
    assert_eq!(code, 10, "{out}");
    assert!(out.contains("canary failed"), "{out}");
    load.finish().await;
    let service = proxy.service().await;
    assert_eq!(service["weights"]["green"], 0);
    assert_eq!(service["rollout"]["ended"]["outcome"], "rolled_back");
    assert_eq!(service["backends"]["green"]["blocked"]["cause"], "judge");
    let (code, _, err) = proxy.cli(&["rollout", "start", "shop"]);
    assert_eq!(code, 75, "{err}");
    assert!(err.contains("blocked"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_advances_nothing() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let steps = json!([{"weight": "50%", "for": "50ms"}]);
    start(&proxy, json!({"steps": steps, "bake": "off"})).await;
    eventually_async("the step's time is over", || async {
        rollout(&proxy).await["waits_for"]["for"] == "traffic"
    })
    .await;
    let view = rollout(&proxy).await;
    assert_eq!(
        view["waits_for"],
        json!({"for": "traffic", "requests": 0, "needed": 20})
    );
    let (code, out, _) = proxy.cli(&["rollout", "wait", "shop", "--timeout", "300ms"]);
    assert_eq!(code, 75, "{out}");
    requests(&proxy, 38).await;
    assert_eq!(
        rollout(&proxy).await["status"],
        "running",
        "19 of 20 are not enough"
    );
    requests(&proxy, 8).await;
    assert_eq!(settled(&proxy).await["status"], "promoted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn step_survives_a_crash_and_goes_on() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let mut proxy = Proxy::blue_green(&blue, &green, "");
    let steps = json!([
        {"weight": "10%", "for": "100ms"},
        {"weight": "20%", "approve": true},
        {"weight": "30%", "approve": true},
    ]);
    start(&proxy, json!({"steps": steps, "bake": "off"})).await;
    requests(&proxy, 300).await;
    eventually_async("the second step", || async {
        rollout(&proxy).await["stage"]["number"] == 2
    })
    .await;
    let before = rollout(&proxy).await;
    proxy.crash_and_restart();
    let after = rollout(&proxy).await;
    for key in ["status", "stage", "began", "plan", "weight", "by"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    let weights = json!({"blue": 8_000, "green": 2_000});
    assert_eq!(proxy.service().await["weights"], weights);
    requests(&proxy, 150).await;
    eventually_async("approval is what it waits for", || async {
        rollout(&proxy).await["waits_for"]["for"] == "approval"
    })
    .await;
    // Paused rollouts stay paused.
    let (code, _, err) = proxy.cli(&["rollout", "pause", "shop", "--reason", "lunch"]);
    assert_eq!(code, 0, "{err}");
    proxy.crash_and_restart();
    let view = rollout(&proxy).await;
    assert_eq!(
        (&view["status"], &view["paused"]["reason"]),
        (&json!("paused"), &json!("lunch"))
    );
    let (code, out, _) = proxy.cli(&["rollout", "wait", "shop"]);
    assert_eq!(code, 11, "{out}");
    proxy.cli(&["rollout", "resume", "shop"]);
    proxy.cli(&["rollout", "promote", "shop"]);
    assert_eq!(rollout(&proxy).await["stage"]["number"], 3);
    let (code, out, _) = proxy.cli(&["rollout", "promote", "shop", "--full"]);
    assert_eq!(code, 0, "{out}");
    proxy.crash_and_restart();
    let service = proxy.service().await;
    assert_eq!(
        (&service["stable"], &service["rollout"]["status"]),
        (&json!("green"), &json!("promoted"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_rollout_and_leased_weights_end_by_themselves() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "rollout: {deadline: 300ms}");
    let steps = json!([{"weight": "10%", "approve": true}]);
    start(&proxy, json!({"steps": steps, "bake": "off"})).await;
    let view = settled(&proxy).await;
    assert_eq!(view["status"], "expired", "{view}");
    let service = proxy.service().await;
    assert_eq!(service["weights"]["green"], 0);
    assert_eq!(service["backends"]["green"]["blocked"], Value::Null);
    let (code, out, _) = proxy.cli(&["rollout", "wait", "shop"]);
    assert_eq!(code, 11, "{out}");
    let (code, _, err) = proxy.cli(&["weights", "shop", "blue=1", "green=1", "--lease", "300ms"]);
    assert_eq!(code, 0, "{err}");
    let until = &proxy.service().await["override"]["lease"]["until"];
    assert!(until.is_string(), "{until}");
    eventually_async("the lease ends", || async {
        proxy.service().await["weights"]["green"] == 0
    })
    .await;
    assert!(events(&proxy).await.contains("lease_ended"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sets_weights_ends_the_rollout() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    start(&proxy, json!({"steps": [{"weight": "1%", "for": "1h"}]})).await;
    let second = proxy.post(ROLLOUT, quick()).await;
    assert_eq!(
        (second.status, &second.json()["code"]),
        (409, &json!("rollout_running"))
    );
    proxy.weights(50, 50).await;
    let (code, out, _) = proxy.cli(&["rollout", "wait", "shop"]);
    assert_eq!(code, 11, "{out}");
    assert_eq!(rollout(&proxy).await["status"], "superseded");
    let refused = proxy.post(&format!("{ROLLOUT}/promote"), json!({})).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (409, &json!("no_rollout"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_stable_is_named_and_never_gets_the_traffic_back() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    // A rule that the shared errors of both would fire: stable is worse still.
    let more = "rollback: {rules: [\"error_rate > 5% for 1s\"]}\nrescue: {enabled: false}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    start(&proxy, json!({"steps": [{"weight": "50%", "for": "1h"}]})).await;
    blue.answer_with(500);
    green.behave(Behaviour {
        fail_every: Some(10),
        ..Behaviour::default()
    });
    let mut load = Load::start(proxy.web, Protocol::Http1, 4);
    eventually_async("it is said", || async {
        events(&proxy).await.contains("stable is the broken one")
    })
    .await;
    eventually_async("the rollout is held for this reason", || async {
        let view = rollout(&proxy).await;
        let reason = view["waits_for"]["reason"].as_str().unwrap_or_default();
        view["waits_for"]["for"] == "time" || reason.contains("stable is the broken one")
    })
    .await;
    eventually_async("the rule has fired", || async {
        events(&proxy).await.contains("judge_hold")
    })
    .await;
    assert_eq!(proxy.service().await["weights"]["green"], 5_000);
    // Going forward is what helps.
    let (code, out, err) = proxy.cli(&["rollout", "promote", "shop", "--full"]);
    assert_eq!(code, 0, "{out}{err}");
    // It fails too, but the way back leads to one that is worse.
    let seen = load.done();
    eventually_async("more traffic", || async { load.done() > seen + 2_000 }).await;
    assert_eq!(proxy.service().await["stable"], "green");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_rollback_pauses_the_rollout() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let more = "health: {path: /healthz, interval: 100ms, timeout: 90ms, rise: 1, fall: 1}";
    let proxy = Proxy::blue_green(&blue, &green, more);
    start(&proxy, json!({"steps": [{"weight": "50%", "for": "1h"}]})).await;
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
    let view = settled(&proxy).await;
    assert_eq!(view["status"], "paused");
    let reason = view["paused"]["reason"].as_str().unwrap();
    assert!(reason.contains("a rollback was refused"), "{reason}");
    assert_eq!(proxy.service().await["weights"]["green"], 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_waits_for_a_canary_that_works_and_keys_make_it_idempotent() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    // Registered over the API, at an address where nobody listens.
    let nobody = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", socket.local_addr().unwrap())
    };
    let (code, _, err) = proxy.cli(&[
        "backend",
        "set",
        "shop",
        "green",
        "--version",
        "3",
        "--endpoint",
        &nobody,
    ]);
    assert_eq!(code, 0, "{err}");
    let refused = proxy.post(ROLLOUT, quick()).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (409, &json!("target_unhealthy"))
    );
    let green_url = green.url();
    proxy.cli(&[
        "backend",
        "set",
        "shop",
        "green",
        "--version",
        "3",
        "--endpoint",
        &green_url,
    ]);
    eventually_async("green is known to work", || async {
        proxy.service().await["backends"]["green"]["health"] == "healthy"
    })
    .await;
    let with_key = [
        "rollout",
        "start",
        "shop",
        "--step",
        "10% for 1h",
        "--idempotency-key",
        "job 7",
    ];
    for _ in 0..2 {
        let (code, out, err) = proxy.cli(&with_key);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("step 1 of 1"), "{out}");
    }
    let revision = proxy.service().await["revision"].clone();
    proxy.cli(&with_key);
    assert_eq!(proxy.service().await["revision"], revision);
    let dry = proxy
        .post(
            &format!("{ROLLOUT}/promote?dry_run=true"),
            json!({"full": true}),
        )
        .await
        .json();
    assert_eq!(
        (&dry["dry_run"], &dry["stable"]),
        (&json!(true), &json!("green"))
    );
    assert_eq!(proxy.service().await["revision"], revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused_with_its_reason() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::blue_green(&blue, &green, "");
    let before = proxy.service().await["revision"].clone();
    for (body, status, code) in [
        (json!({"canary": "blue"}), 422, "invalid_rollout"),
        (json!({"canary": "pink"}), 404, "unknown_backend"),
        (json!({"steps": [], "bake": "off"}), 422, "invalid_rollout"),
        (json!({"steps": [{"weight": "5%"}]}), 422, "invalid_rollout"),
        (
            json!({"steps": [{"weight": "5%", "for": "1m"}, {"weight": "1%", "for": "1m"}]}),
            422,
            "invalid_rollout",
        ),
        (
            json!({"bake": {"holdback": "0.1%", "for": "1m"}}),
            422,
            "invalid_rollout",
        ),
        (json!({"bake": "on"}), 400, "invalid_body"),
        (json!({"pace": "slow"}), 400, "invalid_body"),
        (json!({"fast": true}), 409, "not_proven"),
    ] {
        let answer = proxy.post(ROLLOUT, body.clone()).await;
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["code"]),
            (status, &json!(code)),
            "{body}: {problem}"
        );
    }
    assert_eq!(proxy.service().await["revision"], before);
    let (code, _, err) = proxy.cli(&["rollout", "start", "shop", "--step", "ten percent"]);
    assert_eq!(code, 2);
    assert!(err.contains("10% for 5m"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judge_that_may_only_hold_freezes_the_rollout_and_ends_the_wait() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    green.answer_with(500);
    let proxy = Proxy::blue_green(&blue, &green, "rollback: {on_failure: hold}");
    let load = Load::start(proxy.web, Protocol::Http1, 2);
    start(&proxy, json!({"steps": [{"weight": "10%", "for": "1h"}]})).await;
    let (code, out, _) = proxy.cli(&["rollout", "wait", "shop", "--timeout", "20s"]);
    assert_eq!(code, 11, "{out}");
    let view = settled(&proxy).await;
    let reason = view["paused"]["reason"].as_str().unwrap();
    assert!(reason.contains("canary failed"), "{reason}");
    assert_eq!(proxy.service().await["weights"]["green"], 1_000);
    load.finish().await;
}
